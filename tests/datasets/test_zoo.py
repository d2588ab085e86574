"""Headers that lie, containers that are cut, channels that cancel: each is read right or named, in little memory."""

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
from sounds import save, sine

from audioldm.datasets import decode as decoding
from audioldm.datasets.check import check
from audioldm.datasets.decode import decode, mono, opened, read_mono, resample
from audioldm.datasets.loudness import Loudness, loudness
from audioldm.datasets.manifest import Row, read, write
from audioldm.datasets.store import load
from audioldm.errors import AudioLDMError, AudioLDMWarning

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def row(path: Path) -> Row:
    return Row(str(path), ("a sound",))


def flac_of_length(path: Path, total: int) -> Path:
    """A FLAC file of a second whose header states ``total`` samples."""
    soundfile.write(path, sine(), 16000)
    data = bytearray(path.read_bytes())
    packed = int.from_bytes(data[18:26], "big")
    data[18:26] = ((packed >> 36 << 36) | total).to_bytes(8, "big")
    path.write_bytes(data)
    return path


def test_a_flac_of_unknown_length_is_read_to_its_end(tmp_path: Path):
    path = flac_of_length(tmp_path / "u.flac", 0)
    assert decode(path, 16000).shape == (16000,)
    assert torch.equal(decode(path, 16000, start=0.5, seconds=0.25), decode(path, 16000)[8000:12000])
    assert check([row(path)]).rows[0].seconds == 1.0


def test_a_length_of_hours_that_is_not_there_is_named(tmp_path: Path):
    path = flac_of_length(tmp_path / "big.flac", 2**36 - 1)
    with pytest.raises(AudioLDMError, match=r"big\.flac is cut off: 16000 of 68719476735 samples"):
        decode(path, 16000)
    assert check([row(path)]).counts() == {"corrupt": 1}
    data = bytearray(save(tmp_path / "b.w64", format="W64", subtype="PCM_16").read_bytes())
    place = data.index(b"data\xf3\xac\xd3\x11") + 16
    data[place : place + 8] = (2**40).to_bytes(8, "little")
    (tmp_path / "b.w64").write_bytes(data)
    with pytest.raises(AudioLDMError, match=r"b\.w64 is cut off"):
        decode(tmp_path / "b.w64", 16000)


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_a_rate_that_no_sound_has_is_named(tmp_path: Path, rate: int):
    data = bytearray(save(tmp_path / "a.wav", subtype="PCM_16").read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(AudioLDMError, match=f"its rate is {rate} Hz"):
        decode(tmp_path / "a.wav", 16000)
    assert check([row(tmp_path / "a.wav")]).counts() == {"corrupt": 1}


@pytest.mark.parametrize("kind", ["GSM610", "MS_ADPCM", "IMA_ADPCM", "MPEG_LAYER_III"])
def test_other_codecs_in_a_wav(tmp_path: Path, kind: str):
    if kind == "MPEG_LAYER_III":
        if shutil.which("ffmpeg") is None:
            pytest.skip("needs ffmpeg")
        source = save(tmp_path / "a.flac", sine(2.0), subtype="PCM_16")
        command = ["ffmpeg", "-v", "error", "-i", source, "-c:a", "libmp3lame", tmp_path / "a.wav"]
        subprocess.run(command, check=True)
    else:
        soundfile.write(tmp_path / "a.wav", sine(2.0), 16000, subtype=kind)
    report = check([row(tmp_path / "a.wav")])
    assert not report.findings and report.rows[0].seconds == pytest.approx(2.0, abs=0.2)
    wave = decode(tmp_path / "a.wav", 16000, start=0.5, seconds=0.5)
    assert wave.shape == (8000,) and wave.square().mean() > 0.1


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.wav", "RF64"), ("a.w64", "W64"), ("a.caf", "CAF"), ("a.aifc", "AIFF"), ("a.au", "AU")],
)
def test_wide_containers_whole_and_cut(tmp_path: Path, name: str, format: str):
    path = save(tmp_path / name, format=format, subtype="PCM_16")
    assert decode(path, 16000).shape == (16000,)
    assert not check([row(path)]).findings
    data = path.read_bytes()
    for share in (0.3, 0.9, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        assert check([row(path)]).counts() == {"corrupt": 1}, share


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_with_flipped_bytes_is_named(tmp_path: Path, subtype: str):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.ogg", 0.1 * rng.standard_normal(160_000), 16000, subtype=subtype)
    assert not check([row(tmp_path / "a.ogg")]).findings
    data = bytearray((tmp_path / "a.ogg").read_bytes())
    for place in rng.integers(4000, len(data), 40):
        data[place] ^= 0xFF
    (tmp_path / "a.ogg").write_bytes(data)
    (finding,) = check([row(tmp_path / "a.ogg")]).findings
    assert finding.kind == "corrupt" and (
        "damaged at byte" in finding.detail or "malformed" in finding.detail
    )


def test_channels_that_cancel_are_told_and_not_lost(tmp_path: Path):
    left = sine(1.0)
    path = save(tmp_path / "anti.wav", np.stack([left, -0.9 * left], 1))
    with pytest.warns(AudioLDMWarning, match="cancel each other"):
        wave = decode(path, 16000)
    assert torch.equal(wave, torch.from_numpy(left))
    with opened(path) as file:
        assert torch.equal(mono(torch.cat([torch.from_numpy(block) for block in file.blocks()])), wave)
    report = check([row(path)])
    assert report.counts() == {"antiphase": 1} and len(report.rows) == 1
    assert report.rows[0].loudness == pytest.approx(loudness(wave, 16000), abs=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = decode(save(tmp_path / "wide.wav", np.stack([left, 0.0 * left, left], 1)), 16000)
    assert torch.allclose(wide, torch.from_numpy(left) * 2 / 3)


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
@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.mka", "a.aac"])
def test_what_only_ffmpeg_reads(tmp_path: Path, name: str, monkeypatch):
    source = save(tmp_path / "a.wav", sine(2.0), subtype="PCM_16")
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, tmp_path / name], check=True)
    assert check([row(tmp_path / name)]).rows[0].seconds == pytest.approx(2.0, abs=0.2)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    assert check([row(tmp_path / name)]).counts() == {"corrupt": 1}
    monkeypatch.setenv("PATH", "")
    (finding,) = check([row(tmp_path / name)]).findings
    assert "ffmpeg" in finding.detail and "not installed" in finding.detail


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


def test_blocks_and_pieces_give_what_the_whole_gives(tmp_path: Path, monkeypatch):
    wave = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 0.1
    path = save(tmp_path / "a.wav", wave.numpy(), 44100)
    whole, level = resample(wave, 44100, 16000), loudness(wave, 44100)
    assert level == pytest.approx(float(audio.loudness(wave[None], 44100)), abs=1e-3)
    monkeypatch.setattr(decoding, "BLOCK", 1000)
    monkeypatch.setattr(decoding, "LONG", 50_000)
    monkeypatch.setattr("audioldm.datasets.loudness.PIECE_SECONDS", 1.0)
    assert torch.equal(read_mono(path)[0], wave)
    assert torch.allclose(decode(path, 16000), whole, atol=1e-6) and len(whole) == 72563
    meter = Loudness(44100)
    for part in wave.split(777):
        meter.add(part)
    assert meter.value() == pytest.approx(level, abs=1e-3)
    assert torch.allclose(
        resample(wave, 16000, 44100), audio.resample(wave, 160, 441, **decoding.RESAMPLE), atol=1e-6
    )


def test_a_name_that_is_no_utf8_and_an_odd_line_end_come_back(tmp_path: Path):
    path = tmp_path / b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    save(tmp_path / "a.wav").rename(path)
    rows = check([Row(str(path), ("a\u2028b\x85c",))]).rows
    assert read(write(rows, tmp_path / "m.jsonl")) == rows
    assert decode(path, 16000).shape == (16000,)


def test_a_part_of_no_length_or_place_is_named(tmp_path: Path):
    path = save(tmp_path / "a.wav")
    for start, seconds in ((float("nan"), None), (-1.0, None), (0.0, float("inf"))):
        with pytest.raises(AudioLDMError, match="no part begins"), opened(path) as file:
            list(file.blocks(start, seconds))
    assert decode(path, 16000, start=1e300).shape == (0,)


def test_a_sound_that_kills_its_process_is_named_and_the_others_stay(tmp_path: Path):
    (tmp_path / "killing.py").write_text(
        "import os\nfrom audioldm.datasets.manifest import Row\nfrom audioldm.datasets.parallel import each\n"
        "def work(row):\n    if 'killer' in row.path:\n        os._exit(9)\n    return row.path\n"
        "if __name__ == '__main__':\n"
        "    rows = [Row(name, ('x',)) for name in ('a', 'killer', 'b', 'c')]\n"
        "    print(*each(work, rows, processes=2), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "killing.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[::2] == ["a", "b"] and done.stdout.splitlines()[3] == "c"
    assert done.stdout.splitlines()[1].startswith("failed: killer (it ended the process")


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
    assert float(done.stdout) < 1.0
