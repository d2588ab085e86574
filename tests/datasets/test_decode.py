"""Files to mono waves: every width and rate, one resampling, whole files only."""

import numpy as np
import pytest
import soundfile
import torch
from sounds import bad_sounds, save, sine

from audioldm.datasets.decode import decode, encode, resample
from audioldm.errors import AudioLDMError


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "FLOAT", 0),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_U8", 2**-7),
        ("a.flac", "PCM_16", 2**-15),
        ("a.aiff", "PCM_16", 2**-15),
    ],
)
def test_every_width_is_read_to_within_one_step_of_it(tmp_path, name, subtype, tolerance):
    path = save(tmp_path / name, sine(), subtype=subtype)
    assert torch.allclose(decode(path, 16000), torch.from_numpy(sine()), rtol=0, atol=tolerance)


def test_channels_are_averaged(tmp_path):
    left, right, third = np.full(100, 0.5), np.full(100, 0.25), np.full(100, 0.0)
    path = save(tmp_path / "three.wav", np.stack([left, right, third], axis=1))
    assert torch.allclose(decode(path, 16000), torch.full((100,), 0.25))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 44101])
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(tmp_path, rate):
    wave = decode(save(tmp_path / "tone.wav", sine(1.0, 1000.0, rate), rate), 16000)
    assert len(wave) == 16000
    inside = slice(1000, -1000)  # the filter's edges ring
    expected = torch.from_numpy(sine(1.0, 1000.0))
    # 44101 Hz uses a ratio that is 0.02 cents off: 1e-5 of 1000 periods is 0.07 rad at the end
    assert torch.allclose(wave[inside], expected[inside], atol=0.05 if rate == 44101 else 2e-4)


def test_what_cannot_be_kept_is_removed_and_not_folded_back():
    wave = resample(torch.from_numpy(sine(1.0, 9000.0, 44100)), 44100, 16000)
    assert wave[500:-500].abs().max() < 1e-4, (
        "9 kHz would come back at 7 kHz; the filter stops it by 75 dB or more"
    )


def test_resample_keeps_nothing_and_empties_alike():
    wave = torch.rand(10)
    assert resample(wave, 16000, 16000) is wave
    assert resample(torch.zeros(0), 44100, 16000).shape == (0,)
    assert resample(torch.ones(1), 44100, 16000).shape == (1,)


def test_a_part_is_the_same_as_the_part_of_the_whole(tmp_path):
    path = save(tmp_path / "a.wav", sine(2.0))
    assert torch.equal(decode(path, 16000, start=0.5, seconds=0.25), decode(path, 16000)[8000:12000])
    assert decode(path, 16000, start=1.75, seconds=9.0).shape == (4000,)
    assert decode(path, 16000, start=5.0).shape == (0,)


@pytest.mark.parametrize("kind", ["corrupt", "cut", "missing"])
def test_an_unreadable_file_is_named(tmp_path, kind):
    path = bad_sounds(tmp_path)[kind]
    with pytest.raises(AudioLDMError, match=path.name) as caught:
        decode(path, 16000)
    assert caught.value.code == 1


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_encode_decode_round_trip(tmp_path, suffix):
    wave = torch.from_numpy(sine())
    path = encode(tmp_path / "deep" / f"a.{suffix}", wave, 16000)
    assert soundfile.info(path).samplerate == 16000
    assert torch.allclose(decode(path, 16000), wave, rtol=0, atol=2**-15)  # 16 bit
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_ogg_can_be_written_and_read(tmp_path):
    path = encode(tmp_path / "a.ogg", torch.from_numpy(sine()), 16000)
    assert decode(path, 16000).shape == (16000,)


def test_a_failed_encode_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = encode(tmp_path / "a.wav", torch.from_numpy(sine()), 16000)
    before = path.read_bytes()
    # soundfile refuses a rate of 0 after the temporary file exists
    with pytest.raises(Exception, match=r".+"):
        encode(path, torch.zeros(10), 0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_encode_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(AudioLDMError, match="mp4"):
        encode(tmp_path / "a.mp4", torch.zeros(10), 16000)
    with pytest.raises(AudioLDMError, match="finite"):
        encode(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]), 16000)
    with pytest.raises(ValueError, match="mono"):
        encode(tmp_path / "a.wav", torch.zeros(1, 10), 16000)
    assert list(tmp_path.iterdir()) == []
