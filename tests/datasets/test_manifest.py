"""Manifests are read, written and checked; what must not be trained on is named."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sounds import RATE, bad_sounds, save, sine

from audioldm.datasets.check import check
from audioldm.datasets.loudness import loudness
from audioldm.datasets.manifest import Row, read, split_of, write
from audioldm.errors import AudioLDMError
from audioldm.progress import listening


def rows_of(paths):
    return [Row(str(path), ("a sound",), source="made") for path in paths]


def test_write_then_read_gives_the_rows_back(tmp_path):
    row = Row(
        path=str(tmp_path / "a" / "b.wav"), captions=("Geräusch", "two"), labels=("x",), start=0.5, seconds=1.0,
        split="val", licence="CC0-1.0", source="made", sha256="ab", loudness=-20.5, author="me", fold=3, group="g",
    )  # fmt: skip
    outside = replace(row, path=str(tmp_path.parent / "elsewhere.wav"), split="test")
    manifest = write([row, outside], tmp_path / "m.jsonl")
    assert read(manifest) == [row, outside]
    assert read(manifest, split="val") == [row]
    assert json.loads(manifest.read_text().splitlines()[0])["path"] == "a/b.wav"
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_manifest_moves_with_its_folder(tmp_path):
    save(tmp_path / "old" / "a.wav")
    write(rows_of([tmp_path / "old" / "a.wav"]), tmp_path / "old" / "m.jsonl")
    (tmp_path / "old").rename(tmp_path / "new")
    assert [row.path for row in read(tmp_path / "new" / "m.jsonl")] == [str(tmp_path / "new" / "a.wav")]


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"captions": []}', "path"),
        ('{"path": "a", "captions": "one text"}', "list of texts"),
        ('{"path": "a", "captions": [1]}', "list of texts"),
        ('{"path": "a", "captions": ["x"], "split": "dev"}', "dev"),
        ('{"path": "a", "captions": ["x"], "licens": "CC0"}', "licens"),
        ('{"path": "a", "captions": ["x"], "start": "1"}', "start='1'"),
        ('{"path": "a", "captions": ["x"], "seconds": -1}', "seconds=-1"),
        ('{"path": "a", "captions": null}', "list of texts"),
    ],
)
def test_a_wrong_line_is_named_by_number(tmp_path, line, word):
    path = tmp_path / "m.jsonl"
    path.write_text('{"path": "fine.wav", "captions": ["x"]}\n\n' + line + "\n")
    with pytest.raises(AudioLDMError, match=word) as caught:
        read(path)
    assert "m.jsonl:3" in str(caught.value)


def test_no_manifest_and_no_such_split(tmp_path):
    with pytest.raises(AudioLDMError, match="nothing"):
        read(tmp_path / "nothing.jsonl")
    write([], tmp_path / "m.jsonl")
    with pytest.raises(AudioLDMError, match="'dev'"):
        read(tmp_path / "m.jsonl", split="dev")


def test_every_kind_of_bad_file_is_named_and_left_out(tmp_path):
    made = bad_sounds(tmp_path)
    calls = []
    with listening(lambda unit, done, total: calls.append((unit, done, total))):
        report = check(rows_of(made.values()))
    assert [row.path for row in report.rows] == [str(made["good"])]
    assert {(finding.kind, finding.path) for finding in report.findings} == {
        ("corrupt" if kind == "cut" else kind, str(path)) for kind, path in made.items() if kind != "good"
    }
    assert report.counts() == {"corrupt": 2, "duplicate": 1, "nan": 1, "silent": 1, "missing": 1}
    assert str(made["good"]) in next(str(f) for f in report.findings if f.kind == "duplicate")
    assert calls == [("sounds", done, len(made)) for done in range(len(made) + 1)]


def test_good_rows_are_measured(tmp_path):
    row = check(rows_of([save(tmp_path / "a.wav", sine(1.5))])).rows[0]
    assert row.seconds == 1.5
    assert len(row.sha256) == 64
    # BS.1770: a full-scale 997 Hz sine reads -3.01 LUFS; at 440 Hz the K filter takes 0.6 dB, gain 0.5 takes 6.02
    assert row.loudness == pytest.approx(-3.01 - 6.02 - 0.65, abs=0.3)


def test_parts_of_one_file_are_no_duplicates(tmp_path):
    path = str(save(tmp_path / "a.wav", sine(2.0)))
    parts = [Row(path, ("x",), start=0.0, seconds=1.0), Row(path, ("x",), start=1.0, seconds=1.0)]
    report = check([*parts, parts[0]])
    assert [row.start for row in report.rows] == [0.0, 1.0]
    assert report.counts() == {"duplicate": 1}


def test_a_silent_part_of_a_loud_file_is_silent(tmp_path):
    path = save(tmp_path / "a.wav", np.concatenate([np.zeros(RATE, np.float32), sine()]))
    report = check([Row(str(path), ("x",), seconds=1.0), Row(str(path), ("x",), start=9.0)])
    assert [finding.kind for finding in report.findings] == ["silent", "corrupt"]


def test_a_changed_file_is_named(tmp_path):
    path = save(tmp_path / "a.wav")
    rows = check(rows_of([path])).rows
    save(path, sine(gain=0.25))
    assert check(rows).counts() == {"changed": 1}


@pytest.mark.parametrize("captions", [(), ("",), ("fine", "  ")])
def test_a_row_without_a_caption_is_named(tmp_path, captions):
    assert check([Row(str(save(tmp_path / "a.wav")), captions)]).counts() == {"caption": 1}


def test_loudness_of_loud_clips_is_not_clipped():
    sine = torch.sin(2 * torch.pi * 997 * torch.arange(2 * 48_000) / 48_000)
    full = loudness(sine, 48_000)
    # ITU-R BS.1770-4: -3.01 LKFS; the filters of other libraries read -2.97 to -3.05 too
    assert full == pytest.approx(-3.01, abs=0.06)
    assert loudness(0.1 * sine, 48_000) == pytest.approx(full - 20, abs=0.001)


def test_loudness_of_short_and_silent_clips():
    short = torch.from_numpy(sine(0.25))
    # below 0.4 s: plain RMS of a sine of amplitude 1/2, 20 log10(0.5 / sqrt 2)
    assert loudness(short, RATE) == pytest.approx(-9.03, abs=0.01)
    assert loudness(torch.zeros(RATE), RATE) == float("-inf")
    assert loudness(torch.zeros(0), RATE) == float("-inf")
    faint = torch.from_numpy(sine(1.0, gain=1e-5))  # below the gate of -70 LUFS: RMS again
    assert loudness(faint, RATE) == pytest.approx(-103.01, abs=0.01)


def test_splits_have_about_their_shares_and_depend_on_the_name_only():
    splits = [split_of(f"clip {number}") for number in range(2000)]
    assert splits == [split_of(f"clip {number}") for number in range(2000)]
    # 10 % of 2000 is 200; four standard deviations of a binomial are 54
    assert abs(splits.count("val") - 200) < 54
    assert abs(splits.count("test") - 200) < 54
