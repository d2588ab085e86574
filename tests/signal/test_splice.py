"""Joins leave what they should alone, to the sample."""

import pytest
import torch
from torch import Generator

from audioldm.signal import splice as joins
from audioldm.signal.mel import log_mel
from audioldm.spec import AudioSpec

SPEC = AudioSpec()


def noise(samples, seed=0):
    return torch.randn(samples, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("power", [True, False])
def test_outside_the_cross_fade_every_sample_is_the_base(power):
    base, edited = noise(1000), noise(1000, 1)
    out = joins.splice(base, edited, [(200, 300), (305, 400)], fade=20, power=power)
    assert torch.equal(out[:180], base[:180]) and torch.equal(out[420:], base[420:])
    assert torch.equal(out[200:300], edited[200:300]) and torch.equal(out[305:400], edited[305:400])
    assert not torch.equal(out[180:200], base[180:200])


def test_fades_keep_power_or_amplitude():
    one = torch.ones(1000)
    assert torch.allclose(joins.splice(one, one, [(400, 600)], fade=100, power=False), one)
    base, edited = noise(200_000), noise(200_000, 1)
    out = joins.splice(base, edited, [(0, 1)], fade=199_998, power=True)
    assert out.square().mean() == pytest.approx(1.0, abs=0.02)  # 200,000 draws: 3 sigma are 0.01


def test_a_region_may_be_everything_or_nothing():
    base, edited = noise(50), noise(50, 1)
    assert torch.equal(joins.splice(base, edited, [(0, 50)], fade=5), edited)
    assert torch.equal(joins.splice(base, edited, [], fade=5), base)


@pytest.mark.parametrize("cutoff", [1000.0, 2000.0, 4000.0])
def test_crossover_keeps_the_low_band_of_one_and_the_high_of_the_other(cutoff):
    low, high = noise(16000), noise(16000, 1)
    out = joins.crossover(low, high, cutoff, 16000)
    spectra = [torch.fft.rfft(wave * torch.hann_window(16000)).abs() for wave in (out, low, high)]
    edge = int(cutoff)  # bins of 1 Hz; the filter's transition is 200 Hz to either side
    for band, own in ((slice(20, edge - 200), spectra[1]), (slice(edge + 200, None), spectra[2])):
        assert (spectra[0][band] - own[band]).abs().max() < 1e-3 * own.max()
    assert torch.allclose(joins.crossover(low, low, cutoff, 16000), low)


def test_bandwidth_finds_where_a_sound_was_cut():
    wave = noise(32000)
    assert joins.bandwidth(wave, 16000) > 7900
    assert joins.bandwidth(joins.lowpass(wave, 3000, 16000), 16000) == pytest.approx(3000, abs=250)
    assert joins.bandwidth(torch.zeros(100), 16000) == 0


def test_attenuate_only_turns_down_and_only_where_it_should():
    wave = noise(16000)
    own = log_mel(wave[None, None], SPEC)
    assert torch.allclose(joins.attenuate(wave, own, own, SPEC), wave, atol=1e-4), (
        "no change where mels agree"
    )
    assert torch.allclose(joins.attenuate(wave, own + 3, own, SPEC), wave, atol=1e-4), "never up"
    quiet = own.clone()
    quiet[..., 32:] -= 3  # 26 dB down in the upper bands
    out = log_mel(joins.attenuate(wave, quiet, own, SPEC)[None, None], SPEC)
    change = (out - own).mean((0, 1, 2))
    assert change[:28].abs().max() < 0.15
    assert change[38:].max() < -1.5
