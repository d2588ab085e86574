"""Manifests are read, written and checked: every defect is told, and no clip is in two splits."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import RATE, bad_sounds, save, sine

from audioldm.datasets.check import FlatTops, check
from audioldm.datasets.loudness import loudness
from audioldm.datasets.manifest import Row, leaks, read, refuse_leaks, split_of, write
from audioldm.errors import AudioLDMError
from audioldm.progress import listening


def row(path: Path, **values) -> Row:
    return Row(str(path), ("a sound",), **values)


def test_write_then_read_gives_the_rows_back_wherever_the_folder_goes(tmp_path: Path):
    first = Row(
        path=str(tmp_path / "old" / "a" / "b.wav"), captions=("Geräusch", "two"), labels=("x",), start=0.5, seconds=1.0,
        split="val", licence="CC0-1.0", source="made", sha256="ab", loudness=-20.5, author="me", fold=3, group="g",
    )  # fmt: skip
    outside = replace(first, path=str(tmp_path / "elsewhere.wav"), split="test")
    manifest = write([first, outside], tmp_path / "old" / "m.jsonl")
    assert read(manifest) == [first, outside] and read(manifest, split="val") == [first]
    assert json.loads(manifest.read_text().splitlines()[0])["path"] == "a/b.wav"
    (tmp_path / "old").rename(tmp_path / "new")
    assert read(tmp_path / "new" / "m.jsonl")[0].path == str(tmp_path / "new" / "a" / "b.wav")


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
        ('{"path": "a", "captions": ["x"], "weight": 1e400}', "weight=inf"),
        ('{"path": "a", "path": "b", "captions": ["x"]}', "'path' comes twice"),
        ('{"path": "a", "captions": null}', "list of texts"),
    ],
)
def test_a_wrong_line_is_named_by_number(tmp_path: Path, line: str, word: str):
    path = tmp_path / "m.jsonl"
    path.write_text('{"path": "fine.wav", "captions": ["x"]}\n\n' + line + "\n")
    with pytest.raises(AudioLDMError, match=word) as caught:
        read(path)
    assert "m.jsonl:3" in str(caught.value)
    findings = []
    assert len(read(path, findings=findings)) == len(findings) == 1


def test_no_manifest_and_no_such_split(tmp_path: Path):
    with pytest.raises(AudioLDMError, match="nothing"):
        read(tmp_path / "nothing.jsonl")
    with pytest.raises(AudioLDMError, match="'dev'"):
        read(write([], tmp_path / "m.jsonl"), split="dev")


def test_every_kind_of_bad_file_is_named_and_left_out(tmp_path: Path):
    made, calls = bad_sounds(tmp_path), []
    with listening(lambda unit, done, total: calls.append((unit, done, total))):
        report = check([row(path) for path in made.values()])
    assert [kept.path for kept in report.rows] == [str(made["good"])]
    assert {(finding.kind, finding.path) for finding in report.findings} == {
        ("corrupt" if kind == "cut" else kind, str(path)) for kind, path in made.items() if kind != "good"
    }
    assert report.counts() == {"corrupt": 2, "duplicate": 1, "nan": 1, "silent": 1, "missing": 1}
    assert str(made["good"]) in next(str(f) for f in report.findings if f.kind == "duplicate")
    assert calls == [("sounds", done, len(made)) for done in range(len(made) + 1)]
    assert check([row(path) for path in made.values()], workers=1) == report, "a process finds the same"


def test_a_sound_that_kills_its_process_is_named_and_the_others_stay(tmp_path: Path):
    (tmp_path / "killing.py").write_text(
        "import os\nfrom audioldm.datasets.manifest import Row\nfrom audioldm.datasets.check import each\n"
        "def work(row):\n    if 'killer' in row.path:\n        os._exit(9)\n    return row.path\n"
        "if __name__ == '__main__':\n"
        "    rows = [Row(name, ('x',)) for name in ('a', 'killer', 'b', 'c')]\n"
        "    print(*each(work, rows, processes=2), sep='\\n')\n"
    )
    command = [sys.executable, tmp_path / "killing.py"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[::2] == ["a", "b"] and lines[3] == "c"
    assert lines[1].startswith("failed: killer (it ended the process")


def test_good_rows_are_measured(tmp_path: Path):
    kept = check([row(save(tmp_path / "a.wav", sine(1.5)))]).rows[0]
    assert kept.seconds == 1.5 and len(kept.sha256) == 64
    # BS.1770: a full-scale 997 Hz sine reads -3.01 LUFS; at 440 Hz the K filter takes 0.6 dB, gain 0.5 takes 6.02
    assert kept.loudness == pytest.approx(-3.01 - 6.02 - 0.65, abs=0.3)
    save(Path(kept.path), sine(gain=0.25))
    assert check([kept]).counts() == {"changed": 1}


@pytest.mark.parametrize(
    ("samples", "kind"),
    [
        (np.full(16000, 0.3, np.float32), "silent"),
        (np.full(1, 0.3, np.float32), "short"),
        (np.float32(1e30) * sine(), "level"),
        (np.zeros(0, np.float32), "corrupt"),
    ],
)
def test_what_holds_no_sound_is_named(tmp_path: Path, samples: np.ndarray, kind: str):
    assert check([row(save(tmp_path / "a.wav", samples))]).counts() == {kind: 1}


def test_parts_of_a_file(tmp_path: Path):
    path = save(tmp_path / "a.wav", np.concatenate([np.zeros(RATE, np.float32), sine(2.0)]))
    parts = [row(path, start=1.0, seconds=1.0), row(path, start=2.0, seconds=1.0)]
    report = check(
        [*parts, parts[0], row(path, seconds=1.0), row(path, start=9.0), row(path, start=2.5, seconds=1.0)]
    )
    assert [kept.start for kept in report.rows] == [1.0, 2.0, 2.5] and report.rows[2].seconds == 0.5
    assert [finding.kind for finding in report.findings] == ["silent", "corrupt", "part", "duplicate"]


@pytest.mark.parametrize("captions", [(), ("",), ("fine", "  ")])
def test_a_row_without_a_caption_is_named(tmp_path: Path, captions: tuple[str, ...]):
    assert check([Row(str(save(tmp_path / "a.wav")), captions)]).counts() == {"caption": 1}


def test_clipped_sounds_are_told_and_kept(tmp_path: Path):
    cut = save(tmp_path / "cut.wav", np.clip(sine(gain=1.5), -1, 1), subtype="PCM_16")
    beyond = save(tmp_path / "beyond.wav", sine(hertz=441, gain=8.0))
    fine = save(tmp_path / "fine.wav", sine(hertz=442, gain=0.999), subtype="PCM_16")
    report = check([row(cut), row(beyond), row(fine)])
    assert [(item.kind, item.path) for item in report.findings] == [
        ("clipped", str(cut)),
        ("clipped", str(beyond)),
    ]
    assert len(report.rows) == 3


def test_flat_tops_are_counted_where_they_are():
    def share(channels: torch.Tensor) -> float:
        tops = FlatTops(channels.shape[1])
        tops.add(channels)
        return tops.share()

    wave = torch.zeros(100, 2)
    wave[10:15, 1] = 1.0
    wave[50:52, 1] = 1.0  # two samples are no top
    assert share(wave) == pytest.approx(5 / 200)
    assert share(0.9 * wave) == 0.0 and share(torch.ones(2, 1)) == 0.0


def test_the_same_sound_in_another_format_is_a_duplicate(tmp_path: Path):
    samples = (32767 * sine()).astype(np.int16)
    first, second = (save(tmp_path / name, samples, subtype="PCM_16") for name in ("a.wav", "b.flac"))
    report = check([row(first), row(second)])
    assert report.counts() == {"duplicate": 1} and report.rows[0].path == str(first)


def test_what_test_holds_never_stays_in_training(tmp_path: Path):
    clip, other, scene, take = (save(tmp_path / f"{n}.wav", sine(hertz=300 + n)) for n in range(4))
    again = save(tmp_path / "again.flac", sine(hertz=300), subtype="PCM_24")
    test = check([row(clip, split="test", group="rec")]).rows[0]
    others = [row(clip, split="val"), row(other), row(scene, parts=(test.sha256,)), row(take, group="rec")]
    report = check([row(again), *others, test])
    assert report.counts() == {"leak": 4}
    assert {(kept.path, kept.split) for kept in report.rows} == {(str(other), "train"), (str(clip), "test")}
    assert all(str(clip) in finding.detail for finding in report.findings)


def test_leaks_need_no_reading():
    rows = [
        Row("a", ("x",), sha256="1"),
        Row("b", ("x",), sha256="1", split="val"),
        Row("c", ("x",), sha256="2"),
    ]
    assert [bool(why) for why in leaks(rows)] == [True, False, False]
    refuse_leaks(rows[1:])
    with pytest.raises(AudioLDMError, match="data check"):
        refuse_leaks(rows)
    refuse_leaks([replace(item, split="train") for item in rows])


def test_loudness():
    tone = torch.sin(2 * torch.pi * 997 * torch.arange(2 * 48_000) / 48_000)
    full = loudness(tone, 48_000)
    # ITU-R BS.1770-4: -3.01 LKFS; the filters of other libraries read -2.97 to -3.05 too
    assert full == pytest.approx(-3.01, abs=0.06)
    assert loudness(0.1 * tone, 48_000) == pytest.approx(full - 20, abs=0.001), "a loud clip is not clipped"
    # below 0.4 s: plain RMS of a sine of amplitude 1/2, 20 log10(0.5 / sqrt 2)
    assert loudness(torch.from_numpy(sine(0.25)), RATE) == pytest.approx(-9.03, abs=0.01)
    assert loudness(torch.zeros(RATE), RATE) == loudness(torch.zeros(0), RATE) == float("-inf")
    faint = torch.from_numpy(sine(1.0, gain=1e-5))  # below the gate of -70 LUFS: RMS again
    assert loudness(faint, RATE) == pytest.approx(-103.01, abs=0.01)


def test_splits_have_about_their_shares_and_depend_on_the_name_only():
    splits = [split_of(f"clip {number}") for number in range(2000)]
    assert splits == [split_of(f"clip {number}") for number in range(2000)]
    # 10 % of 2000 is 200; four standard deviations of a binomial are 54
    assert abs(splits.count("val") - 200) < 54 and abs(splits.count("test") - 200) < 54
