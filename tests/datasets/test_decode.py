"""Files to mono waves: every width and rate, one resampling, whole files only, and no header is believed."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional as audio
from sounds import bad_sounds, save, sine

from audioldm.datasets import decode as decoding
from audioldm.datasets.check import check
from audioldm.datasets.decode import decode, encode, mono, opened, read_mono, resample
from audioldm.datasets.loudness import Loudness, loudness
from audioldm.datasets.manifest import Row, read, write
from audioldm.datasets.store import load
from audioldm.errors import AudioLDMError, AudioLDMWarning

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
FORMATS = [
    *[
        ("wav", subtype)
        for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
    ],
    *[("wav", subtype) for subtype in ("GSM610", "MS_ADPCM", "IMA_ADPCM")],
    *[("flac", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")],
    *[("aiff", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT")],
    *[("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")],
]


def row(path: Path) -> Row:
    return Row(str(path), ("a sound",))


def detail(path: Path) -> str:
    """What the check says of a corrupt file."""
    (finding,) = check([row(path)]).findings
    assert finding.kind == "corrupt", finding
    return finding.detail


def changed(path: Path, place: int, content: bytes) -> Path:
    """A file with other bytes at a place."""
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("suffix", "subtype"), FORMATS)
def test_every_width_rate_and_channel_count_is_read(tmp_path: Path, suffix: str, subtype: str):
    for rate, channels in ((8000, 1), (48000, 1 if subtype == "GSM610" else 2)):
        path = tmp_path / f"{rate}.{suffix}"
        wave = np.stack([sine(1.0, 440.0, rate)] * channels, axis=1)
        soundfile.write(path, wave, rate, subtype=subtype, format=suffix.upper())
        report = check([row(path)])
        assert not report.findings or subtype == "GSM610"
        # lossy ones may add a block; 8 bits and companding are 1 % off in loudness
        assert report.rows[0].seconds == pytest.approx(1.0, abs=0.15)
        assert report.rows[0].loudness == pytest.approx(-9.7, abs=0.5)
        assert decode(path, 16000, start=0.25, seconds=0.5).shape == (8000,)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "FLOAT", 0),
        ("a.wav", "PCM_24", 2**-23),
        ("a.flac", "PCM_16", 2**-15),
        ("a.wav", "PCM_U8", 2**-7),
    ],
)
def test_a_sample_is_read_to_within_one_step_of_its_width(
    tmp_path: Path, name: str, subtype: str, tolerance: float
):
    path = save(tmp_path / name, sine(), subtype=subtype)
    assert torch.allclose(decode(path, 16000), torch.from_numpy(sine()), rtol=0, atol=tolerance)


def test_channels_are_averaged(tmp_path: Path):
    path = save(tmp_path / "three.wav", np.full((100, 3), (0.5, 0.25, 0.0)))
    assert torch.allclose(decode(path, 16000), torch.full((100,), 0.25))


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 192000, 44101])
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(tmp_path: Path, rate: int):
    wave = decode(save(tmp_path / "tone.wav", sine(1.0, 1000.0, rate), rate), 16000)
    expected, middle = torch.from_numpy(sine(1.0, 1000.0)), slice(1000, -1000)  # the filter's edges ring
    # 44101 Hz uses a ratio that is 0.02 cents off: 1e-5 of 1000 periods is 0.07 rad at the end
    tolerance = 0.05 if rate == 44101 else 2e-4
    assert len(wave) == 16000 and torch.allclose(wave[middle], expected[middle], atol=tolerance)


def test_what_cannot_be_kept_is_removed_and_not_folded_back():
    wave = resample(torch.from_numpy(sine(1.0, 9000.0, 44100)), 44100, 16000)
    # 9 kHz would come back at 7 kHz; the filter stops it by 75 dB or more
    assert wave[500:-500].abs().max() < 1e-4
    assert resample(wave, 16000, 16000) is wave and resample(torch.zeros(0), 44100, 16000).shape == (0,)
    assert resample(torch.ones(1), 44100, 16000).shape == (1,)


def test_blocks_and_pieces_give_what_the_whole_gives(tmp_path: Path, monkeypatch):
    wave = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.1
    path = save(tmp_path / "a.wav", wave.numpy(), 44100)
    whole, level = resample(wave, 44100, 16000), loudness(wave, 44100)
    assert level == pytest.approx(float(audio.loudness(wave[None], 44100)), abs=1e-3)
    monkeypatch.setattr(decoding, "BLOCK", 1000)
    assert torch.equal(read_mono(path)[0], wave)
    assert torch.allclose(decode(path, 16000), whole, atol=1e-6) and len(whole) == 36282
    up = audio.resample(wave, 160, 441, **decoding.RESAMPLE)
    assert torch.allclose(resample(wave, 16000, 44100), up, atol=1e-6)
    meter = Loudness(44100)
    for part in wave.split(777):
        meter.add(part)
    assert meter.value() == pytest.approx(level, abs=1e-3)


def test_a_part_is_the_same_as_the_part_of_the_whole(tmp_path: Path):
    path = save(tmp_path / "a.wav", sine(2.0))
    assert torch.equal(decode(path, 16000, start=0.5, seconds=0.25), decode(path, 16000)[8000:12000])
    assert decode(path, 16000, start=1.75, seconds=9.0).shape == (4000,)
    assert decode(path, 16000, start=1e300).shape == (0,)
    for start, seconds in ((float("nan"), None), (-1.0, None), (0.0, float("inf"))):
        with pytest.raises(AudioLDMError, match="no part begins"), opened(path) as file:
            list(file.blocks(start, seconds))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_encode_decode_round_trip(tmp_path: Path, suffix: str):
    wave = torch.from_numpy(sine())
    path = encode(tmp_path / "deep" / f"a.{suffix}", wave, 16000)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = decode(path, 16000)
    assert again.shape == (16000,) and (suffix == "ogg" or torch.allclose(again, wave, rtol=0, atol=2**-15))
    if suffix == "wav":
        with pytest.raises(
            Exception, match=r".+"
        ):  # soundfile refuses a rate of 0 after the temporary file exists
            encode(path, torch.zeros(10), 0)
        assert torch.equal(decode(path, 16000), again) and list(path.parent.iterdir()) == [path]


def test_encode_refuses_what_it_cannot_write(tmp_path: Path):
    with pytest.raises(AudioLDMError, match="mp4"):
        encode(tmp_path / "a.mp4", torch.zeros(10), 16000)
    with pytest.raises(AudioLDMError, match="finite"):
        encode(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]), 16000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["corrupt", "cut", "missing"])
def test_an_unreadable_file_is_named(tmp_path: Path, kind: str):
    path = bad_sounds(tmp_path)[kind]
    with pytest.raises(AudioLDMError, match=path.name) as caught:
        decode(path, 16000)
    assert caught.value.code == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("page.mp3", b"\n<!DOCTYPE html><html>404</html>", "it is a web page."),
        ("none.wav", b"", "the file is empty."),
        ("words.flac", b"these are words", "format not recognised."),
    ],
)
def test_the_reason_is_told_once_and_without_the_path(tmp_path: Path, name: str, content: bytes, reason: str):
    (tmp_path / name).write_bytes(content)
    assert detail(tmp_path / name).lower() == reason


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.aiff", {"subtype": "PCM_16"}),
        ("a.flac", {"subtype": "PCM_16"}),
        ("a.ogg", {"subtype": "VORBIS"}),
        ("a.mp3", {"subtype": "MPEG_LAYER_III"}),
        *(
            (f"a.{kind}", {"format": kind.upper(), "subtype": "PCM_16"})
            for kind in ("rf64", "w64", "caf", "au")
        ),
    ],
)
def test_a_file_that_is_cut_anywhere_is_corrupt(tmp_path: Path, name: str, settings: dict[str, str]):
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    data = save(tmp_path / name, noise, **settings).read_bytes()
    assert not check([row(tmp_path / name)]).findings
    for share in (0.1, 0.5, 0.8 if name == "a.mp3" else 0.999):
        (tmp_path / name).write_bytes(data[: int(share * len(data))])
        said = detail(tmp_path / name)
        assert "cut off before its end" in said or name in ("a.flac", "a.ogg") or share == 0.1


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "")]
)
def test_two_sounds_in_one_file_are_not_read_as_one(tmp_path: Path, suffix: str, subtype: str):
    parts = [save(tmp_path / f"{i}.{suffix}", sine(2.0, 300.0 * i), subtype=subtype or None) for i in (1, 2)]
    assert not check([row(path) for path in parts]).findings
    (tmp_path / f"both.{suffix}").write_bytes(b"".join(path.read_bytes() for path in parts))
    assert detail(tmp_path / f"both.{suffix}").startswith("more than one sound: what begins at byte")


def test_a_length_that_is_unknown_or_not_there(tmp_path: Path):
    for total in (0, 2**36 - 1):
        path = save(tmp_path / f"{total}.flac", subtype="PCM_16")
        packed = int.from_bytes(path.read_bytes()[18:26])
        changed(path, 18, ((packed >> 36 << 36) | total).to_bytes(8))
        if total:
            with pytest.raises(AudioLDMError, match="is cut off: 16000 of 68719476735 samples"):
                decode(path, 16000)
        else:
            assert torch.equal(decode(path, 16000, start=0.5, seconds=0.25), decode(path, 16000)[8000:12000])
            assert check([row(path)]).rows[0].seconds == 1.0
    path = save(tmp_path / "b.w64", format="W64", subtype="PCM_16")
    for size in (2**40, 2**63 - 1, 2**64 - 1):
        changed(path, path.read_bytes().index(b"data\xf3\xac\xd3\x11") + 16, size.to_bytes(8, "little"))
        assert detail(path) == "cut off before its end."
    path = save(tmp_path / "pipe.wav", subtype="PCM_16")
    changed(changed(path, path.read_bytes().index(b"data") + 4, b"\xff" * 4), 4, b"\xff" * 4)
    assert not check([row(path)]).findings, "a WAV from a pipe states no size"


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_rate_that_no_sound_has_is_named(tmp_path: Path, rate: int):
    path = changed(save(tmp_path / "a.wav", subtype="PCM_16"), 24, rate.to_bytes(4, "little"))
    assert detail(path) == f"its rate is {rate} Hz."


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_with_flipped_bytes_is_named(tmp_path: Path, subtype: str):
    rng = np.random.default_rng(0)
    path = save(tmp_path / "a.ogg", 0.1 * rng.standard_normal(80_000), subtype=subtype)
    assert not check([row(path)]).findings
    for place in rng.integers(4000, path.stat().st_size, 40):
        changed(path, int(place), bytes([path.read_bytes()[place] ^ 0xFF]))
    assert "damaged at byte" in detail(path) or "malformed" in detail(path)


def test_channels_that_cancel_are_told_and_not_lost(tmp_path: Path):
    left = sine(1.0)
    path = save(tmp_path / "anti.wav", np.stack([left, -0.9 * left], 1))
    with pytest.warns(AudioLDMWarning, match="cancel each other"):
        wave = decode(path, 16000)
    assert torch.equal(wave, torch.from_numpy(left))
    with opened(path) as file:
        assert torch.equal(mono(torch.cat([torch.from_numpy(block) for block in file.blocks()]))[0], wave)
    report = check([row(path)])
    assert report.counts() == {"antiphase": 1} and len(report.rows) == 1
    assert report.rows[0].loudness == pytest.approx(loudness(wave, 16000), abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = decode(save(tmp_path / "wide.wav", np.stack([left, 0.0 * left, left], 1)), 16000)
    assert torch.allclose(wide, torch.from_numpy(left) * 2 / 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_reach_no_training(tmp_path: Path, value: float):
    wave = sine()
    wave[-1] = value
    path = save(tmp_path / "a.wav", np.stack([sine(), wave], 1))
    with pytest.raises(AudioLDMError, match=r"a\.wav has samples that are not finite"):
        load(row(path), 16000)
    with pytest.raises(AudioLDMError, match=r"b\.wav holds no sound from 0 s on"):
        load(row(save(tmp_path / "b.wav", np.zeros(0, np.float32))), 16000)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "mp3 in.wav"])
def test_what_only_ffmpeg_reads(tmp_path: Path, name: str, monkeypatch):
    source, codec = save(tmp_path / "a.wav", sine(2.0), subtype="PCM_16"), ["-c:a", "libmp3lame"]
    command = ["ffmpeg", "-v", "error", "-i", source, *(codec if "mp3" in name else []), tmp_path / name]
    subprocess.run(command, check=True)
    assert check([row(tmp_path / name)]).rows[0].seconds == pytest.approx(2.0, abs=0.2)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    monkeypatch.setenv("PATH", "")
    assert "ffmpeg" in detail(tmp_path / name) and "not installed" in detail(tmp_path / name)


@needs_ffmpeg
def test_a_play_list_reads_no_other_file(tmp_path: Path):
    save(tmp_path / "secret.wav")
    for text in (
        f"#EXTM3U\n#EXTINF:1,\nfile://{tmp_path}/secret.wav\n",
        "ffconcat version 1.0\nfile secret.wav\n",
    ):
        (tmp_path / "list.m4a").write_text(text)
        with pytest.raises(AudioLDMError, match=r"list\.m4a"):
            decode(tmp_path / "list.m4a", 16000)


def test_a_name_that_is_no_utf8_and_an_odd_line_end_come_back(tmp_path: Path):
    path = tmp_path / b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    save(tmp_path / "a.wav").rename(path)
    rows = check([Row(str(path), ("a\u2028b\x85c",))]).rows
    assert read(write(rows, tmp_path / "m.jsonl")) == rows and decode(path, 16000).shape == (16000,)


@pytest.mark.slow
def test_an_hour_is_checked_in_a_gibibyte(tmp_path: Path):
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 48000, 2, "PCM_16") as file:
        minute = (0.1 * np.random.default_rng(0).standard_normal((48000 * 60, 2))).astype(np.float32)
        for _ in range(60):
            file.write(minute)
    code = "import resource, sys; from audioldm.datasets.check import check\n"
    code += "from audioldm.datasets.manifest import Row\n"
    code += "assert not check([Row(sys.argv[1], ('x',))]).findings\n"
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) < 1.0
