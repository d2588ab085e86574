"""Crops of a bank of sounds: at their levels, at other speeds, by weight, with gains."""

import pytest
import torch

from recipes.embedded.sound_bank import SoundBank, gained, mixed, notes


def tone(hertz: float, samples: int, level: float = 0.3) -> torch.Tensor:
    return (level * 32767 * torch.sin(2 * torch.pi * hertz * torch.arange(samples) / 16000)).to(torch.int16)


def bank() -> SoundBank:
    held = SoundBank(200_000, 4, "cpu")
    loud = torch.cat([tone(500, 16000), tone(500, 16000, 0.003)])  # a clip whose end is 40 dB softer
    held.add([loud], [1.0])
    return held


def test_a_crop_keeps_the_level_that_it_has_in_its_clip():
    torch.manual_seed(0)
    crops = bank().crops(64, 8000, speeds=False)
    peaks = crops.abs().amax(1)
    assert float(peaks.max()) == pytest.approx(0.5, abs=0.01)  # the clip's peak
    assert int(((peaks > 0) & (peaks < 0.006)).sum()) > 5  # crops of its end stay 40 dB softer


def test_a_crop_at_another_speed_has_another_pitch_and_no_alias():
    torch.manual_seed(1)
    held = SoundBank(200_000, 4, "cpu")
    held.add([tone(7000, 64000)], [1.0])
    crops = held.crops(64, 8000, speeds=True)
    track = torch.fft.rfft(crops * torch.hann_window(8000)).abs()
    pitch = track.argmax(1) * 2.0
    scores = track.amax(1) > 50
    assert ((pitch[scores] - 7000).abs() < 5).float().mean() > 0.4  # as it is
    assert not ((pitch[scores] > 5000) & (pitch[scores] < 5200)).any()  # nothing lower than three quarters
    assert (pitch[scores] < 6900).any()


def test_clips_are_drawn_by_weight_and_may_come_later():
    torch.manual_seed(2)
    held = bank()
    held.add([tone(2000, 32000)], [3.0])
    crops = held.crops(400, 4000, speeds=False)
    track = torch.fft.rfft(crops * torch.hann_window(4000)).abs()
    later = (track.argmax(1) - 500).abs() < 3
    assert 0.68 < float(later.float().mean()) < 0.82


def test_gains_reach_forty_decibels_down_and_silence_comes():
    torch.manual_seed(3)
    wave = torch.full((2000, 10), 0.5)
    level = gained(wave).abs().amax(1)
    assert float(level.max()) < 0.5 * 10 ** (5.01 / 20)
    assert 0.01 < float((level == 0).float().mean()) < 0.035
    assert 0.0049 < float(level[level > 0].min()) < 0.01
    assert not torch.equal(mixed(torch.randn(8, 10), chance=1.0), wave[:8])


def test_notes_are_finite_and_at_the_peak():
    torch.manual_seed(4)
    output = notes(16, 16640, 16000, "cpu")
    assert bool(output.isfinite().all()) and float(output.abs().max()) == pytest.approx(0.5, abs=1e-3)
