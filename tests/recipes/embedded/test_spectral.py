"""Distances of spectra and envelopes at points where they are known."""

import pytest
import torch
from torch import Generator

from recipes.embedded.release_checks import spectral


def noise(samples, seed=0):
    return torch.randn(samples, generator=Generator().manual_seed(seed))


def test_a_gain_is_its_decades_at_every_bin():
    wave = noise(32000)
    assert spectral.log_spectral_distance(wave, wave, rate=16000) == 0
    for gain in (0.1, 10.0, 0.5):
        expected = abs(2 * torch.tensor(gain).log10().item())
        assert spectral.log_spectral_distance(wave, gain * wave, rate=16000) == pytest.approx(
            expected, rel=1e-4
        )


def test_a_band_is_measured_by_itself():
    wave = noise(32000)
    spectrum = torch.fft.rfft(wave)
    spectrum[len(spectrum) // 2 :] *= 0.01  # the upper half of the band, 4 decades of power down
    cut = torch.fft.irfft(spectrum, n=32000)
    assert spectral.log_spectral_distance(wave, cut, rate=16000, high=3800) < 0.01
    assert spectral.log_spectral_distance(wave, cut, rate=16000, low=4200) == pytest.approx(4.0, rel=0.02)


def test_silence_counts_nowhere():
    half = torch.cat([noise(16384), torch.zeros(16384)])
    other = torch.cat([0.1 * noise(16384), 5 * noise(16384, 1)])
    # frames across the edge hold some of both
    assert spectral.log_spectral_distance(half, other, rate=16000) == pytest.approx(2.0, abs=0.2)
    assert spectral.log_spectral_distance(torch.zeros(9000), noise(9000), rate=16000) != 0  # nan
    with pytest.raises(ValueError, match="samples"):
        spectral.log_spectral_distance(half, other[1:], rate=16000)


def test_envelopes_correlate_whatever_the_sound():
    rate, time = 16000, torch.arange(32000) / 16000
    shape = 0.1 + (torch.sin(2 * torch.pi * 2 * time) > 0)
    a, b = shape * noise(32000), shape * torch.sin(2 * torch.pi * 500 * time)
    assert spectral.envelope_correlation(a, b, rate=rate) > 0.95
    assert spectral.envelope_correlation(a, b.roll(4000), rate=rate) < -0.9
    assert spectral.envelope_correlation(a, torch.zeros(32000), rate=rate) != 0  # nan


def test_distortion_is_that_of_orthogonal_noise_at_any_scale():
    truth, other = noise(1_000_000), noise(1_000_000, 1)
    other -= (other @ truth) / (truth @ truth) * truth
    for scale in (1.0, 0.1):
        ratio = spectral.signal_to_distortion(truth, scale * (truth + 0.1 * other))
        assert ratio == pytest.approx(20.0, abs=0.05)


@pytest.mark.parametrize("lengths", [(800, 16000), (16000, 800), (0, 0)])
def test_unequal_or_empty_waves_are_refused(lengths: tuple[int, int]) -> None:
    first, second = (torch.ones(n) for n in lengths)
    for measure in (
        lambda: spectral.log_spectral_distance(first, second, rate=16000),
        lambda: spectral.envelope_correlation(first, second, rate=16000),
        lambda: spectral.signal_to_distortion(first, second),
    ):
        with pytest.raises(ValueError, match="give equal lengths"):
            measure()
