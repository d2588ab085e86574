"""A spliced file is the input's own samples, bit by bit, outside the cross-fades: any width, rate and channels."""

import io

import numpy as np
import pytest
import soundfile
import torch

from audioldm.errors import AudioLDMError
from audioldm.pipeline import sounds


def made(tmp_path, subtype, rate, channels, audio_format="wav", samples=30_000):
    draw = np.random.default_rng(0).uniform(-1, 1, (samples, channels))
    draw[100] = 1.0  # both ends of the scale
    draw[101] = -1.0
    path = tmp_path / f"in.{audio_format}"
    soundfile.write(path, draw, rate, subtype=subtype)
    return path


def back(data, kind):
    return soundfile.read(io.BytesIO(data), dtype=kind, always_2d=True)


@pytest.mark.parametrize(
    ("subtype", "audio_format"),
    [("PCM_U8", "wav"), ("PCM_16", "wav"), ("PCM_24", "wav"), ("PCM_32", "wav"), ("FLOAT", "wav"),
     ("DOUBLE", "wav"), ("PCM_16", "flac"), ("PCM_24", "flac"), ("PCM_S8", "flac")],
)  # fmt: skip
@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (8000, 1), (16000, 6)])
def test_untouched_samples_are_the_same_bits(tmp_path, subtype, audio_format, rate, channels):
    path = made(tmp_path, subtype, rate, channels, audio_format)
    sound = sounds.read(path)
    seconds = sound.seconds
    edited = 0.5 * torch.ones(round(seconds * 16000))
    region = (0.4 * seconds, 0.5 * seconds)
    out = sounds.splice_into(sound, edited, 16000, [region], fade=0.01)
    data, got = back(sounds.file_bytes(out, audio_format), sound.data.dtype.name)
    before, _ = soundfile.read(path, dtype=sound.data.dtype.name, always_2d=True)
    assert (got, data.shape) == (rate, before.shape)
    begin, end = (round(edge * rate) for edge in region)
    fade = round(0.01 * rate)
    assert np.array_equal(data[: begin - fade], before[: begin - fade])
    assert np.array_equal(data[end + fade :], before[end + fade :])
    inside = data[begin + rate // 100 : end - rate // 100] / (2.0**31 if data.dtype == np.int32 else 1)
    step = 2.0 ** -(sounds.BITS.get(subtype, 24) - 1)
    assert np.abs(inside - 0.5).max() <= step + 1e-4  # the resampler's ripple on a constant


@pytest.mark.parametrize("loudest", [0.9, 4.2])
def test_new_parts_beyond_full_scale_are_turned_down_and_not_cut_off(tmp_path, loudest):
    soundfile.write(tmp_path / "in.wav", np.zeros(16000), 16000, subtype="PCM_16")
    edited = loudest * torch.sin(2 * torch.pi * 200 * torch.arange(16000) / 16000)
    out = sounds.splice_into(sounds.read(tmp_path / "in.wav"), edited, 16000, [(0.2, 0.8)], fade=0.01)
    data, _ = back(sounds.file_bytes(out, "wav"), "float64")
    wanted = edited[3200:12800].double() * 10 ** (out.gain_db / 20)
    assert np.abs(data[3200:12800, 0] - wanted.numpy()).max() < 2e-4  # its form, not a cut one
    assert np.abs(data).max() < 1 and (out.gain_db == 0) == (loudest < 1)


def test_a_lossy_file_is_kept_as_it_decodes(tmp_path):
    time = np.arange(44100) / 44100
    soundfile.write(tmp_path / "in.ogg", 0.5 * np.sin(2 * np.pi * 440 * time), 44100)
    sound = sounds.read(tmp_path / "in.ogg")
    out = sounds.splice_into(sound, torch.zeros(16000), 16000, [(0.2, 0.3)], fade=0.01)
    data, _ = back(sounds.file_bytes(out, "wav"), "float32")
    before, _ = soundfile.read(tmp_path / "in.ogg", dtype="float32", always_2d=True)
    assert np.array_equal(data[:8000], before[:8000])
    assert np.abs(data[10000:12000]).max() == 0


def test_padding_is_silence_and_mono_is_the_mean(tmp_path):
    sound = sounds.read(made(tmp_path, "PCM_16", 8000, 2, samples=8000))
    longer = sound.padded(0.5, 0.25)
    assert longer.data.shape == (14000, 2)
    assert not longer.data[:4000].any() and not longer.data[12000:].any()
    assert np.array_equal(longer.data[4000:12000], sound.data)
    assert torch.allclose(sound.mono(8000), torch.from_numpy(sound.floats().mean(1)).float())
    assert len(sound.mono(16000)) == 16000


def test_more_or_less_than_an_edit_takes_is_refused_by_what_is_decoded(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "short.wav", np.full(400, 0.1), 16000)
    with pytest.raises(AudioLDMError, match=r"short\.wav has 0\.0250 s"):
        sounds.read(tmp_path / "short.wav")
    monkeypatch.setattr(sounds, "MOST_VALUES", 64_000)  # a minute of silence in 64 channels is a small file
    soundfile.write(tmp_path / "wide.flac", np.zeros((16001, 4)), 16000)
    with pytest.raises(AudioLDMError, match=r"wide\.flac has 1 s. Cut it to 1 s or less"):
        sounds.read(tmp_path / "wide.flac")


def test_what_is_no_sound_is_told(tmp_path):
    (tmp_path / "note.wav").write_text("hello")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "cut.flac", np.random.default_rng(0).normal(0, 0.1, 80_000), 8000)
    whole = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    for name, told in {"gone.wav": "not a file", "note.wav": "Cannot read", "none.wav": "no sound",
                       "cut.flac": r"cut off|Cannot read"}.items():  # fmt: skip
        with pytest.raises(AudioLDMError, match=told):
            sounds.read(tmp_path / name)
