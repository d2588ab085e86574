"""Every format is read, every defect is told, and no clip is in two splits."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from sounds import bad_sounds, save, sine

from audioldm.datasets.check import FlatTops, check
from audioldm.datasets.manifest import Row, leaks, refuse_leaks
from audioldm.errors import AudioLDMError


def flat_share(channels):
    tops = FlatTops(channels.shape[1])
    tops.add(channels)
    return tops.share()


FORMATS = [
    *[
        ("wav", subtype)
        for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
    ],
    *[("flac", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")],
    *[("aiff", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT")],
    ("ogg", "VORBIS"),
    ("ogg", "OPUS"),
    ("mp3", "MPEG_LAYER_III"),
]


def row(path, **values):
    return Row(str(path), ("a sound",), **values)


@pytest.mark.parametrize(("suffix", "subtype"), FORMATS)
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (48000, 2)])
def test_every_width_rate_and_channel_count_is_read(tmp_path, suffix, subtype, rate, channels):
    path = tmp_path / f"a.{suffix}"
    wave = np.stack([sine(1.0, 440.0, rate)] * channels, axis=1)
    soundfile.write(path, wave, rate, subtype=subtype, format=suffix.upper())
    report = check([row(path)])
    assert not report.findings
    # Opus, Vorbis and mp3 may add a block; 8 bits and companding are 1 % off in loudness
    assert report.rows[0].seconds == pytest.approx(1.0, abs=0.15)
    assert report.rows[0].loudness == pytest.approx(-9.7, abs=0.5)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "ogg"])
def test_a_file_that_is_cut_anywhere_is_corrupt(tmp_path, suffix):
    rng = np.random.default_rng(0)
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, 0.1 * rng.standard_normal(48000), 16000)
    data = whole.read_bytes()
    assert not check([row(whole)]).findings
    for share in (0.1, 0.5, 0.9):
        part = tmp_path / f"{share}.{suffix}"
        part.write_bytes(data[: int(share * len(data))])
        assert check([row(part)]).counts() == {"corrupt": 1}, share


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("page.mp3", b"\n<!DOCTYPE html><html>404</html>", "it is a web page."),
        ("none.wav", b"", "the file is empty."),
        ("words.flac", b"these are words", "format not recognised."),
        ("words.mp3", b"these are words", "format not recognised."),
    ],
)
def test_the_reason_is_told_once_and_without_the_path(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    (finding,) = check([row(tmp_path / name)]).findings
    assert finding.detail.lower() == reason


def test_a_cut_file_says_so(tmp_path):
    path = save(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:20000])
    (finding,) = check([row(path)]).findings
    assert finding.detail == "cut off before its end."


def test_a_wav_from_a_pipe_states_no_size(tmp_path):
    path = save(tmp_path / "a.wav", subtype="PCM_16")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[4:8] = data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert not check([row(path)]).findings


def test_six_channels_and_odd_rates(tmp_path):
    for rate in (11025, 22050, 44100, 96000, 192000):
        path = tmp_path / f"{rate}.flac"
        soundfile.write(path, np.stack([sine(0.5, 300, rate)] * 6, axis=1), rate)
        assert not check([row(path)]).findings


@pytest.mark.parametrize("gain", [1.5, 8.0])
def test_clipped_sounds_are_told_and_kept(tmp_path, gain):
    cut = save(tmp_path / "cut.wav", np.clip(sine(gain=gain), -1, 1), subtype="PCM_16")
    beyond = save(tmp_path / "beyond.wav", sine(hertz=441, gain=gain))
    fine = save(tmp_path / "fine.wav", sine(hertz=442, gain=0.999), subtype="PCM_16")
    report = check([row(cut), row(beyond), row(fine)])
    assert [(finding.kind, finding.path) for finding in report.findings] == [
        ("clipped", str(cut)),
        ("clipped", str(beyond)),
    ]
    assert len(report.rows) == 3


def test_flat_tops_are_counted_where_they_are():
    wave = torch.zeros(100, 2)
    wave[10:15, 1] = 1.0
    wave[50:52, 1] = 1.0  # two samples are no top
    assert flat_share(wave) == pytest.approx(5 / 200)
    assert flat_share(0.9 * wave) == 0.0
    assert flat_share(torch.ones(2, 1)) == 0.0


def test_the_same_sound_in_another_format_is_a_duplicate(tmp_path):
    samples = (32767 * sine()).astype(np.int16)
    first = save(tmp_path / "a.wav", samples, subtype="PCM_16")
    second = save(tmp_path / "b.flac", samples, subtype="PCM_16")
    report = check([row(first), row(second)])
    assert report.counts() == {"duplicate": 1} and report.rows[0].path == str(first)


def test_what_test_holds_never_stays_in_training(tmp_path):
    clip, other, scene, take = (save(tmp_path / f"{n}.wav", sine(hertz=300 + n)) for n in range(4))
    again = save(tmp_path / "again.flac", sine(hertz=300), subtype="PCM_24")
    test = check([row(clip, split="test", group="rec")]).rows[0]
    report = check(
        [
            row(again),
            row(clip, split="val"),
            row(other),
            row(scene, parts=(test.sha256,)),
            row(take, group="rec"),
            test,
        ]
    )
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


def test_processes_find_what_one_finds(tmp_path):
    rows = [row(path) for path in bad_sounds(tmp_path).values()]
    alone, together = check(rows), check(rows, workers=2)
    assert alone == together
