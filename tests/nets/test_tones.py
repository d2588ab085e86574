"""Tones that a mel speaks of: their frequencies, levels and phases."""

import math

import pytest
import torch

from audioldm.nets.istft_vocoder import advance, bands, lobe, prior, scrambled, tones
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec

SPEC = AudioSpec()


def sine(hertz: float, seconds: float = 2.0, level: float = 0.3) -> torch.Tensor:
    time = torch.arange(round(seconds * SPEC.rate), dtype=torch.float64) / SPEC.rate
    return (level * torch.sin(2 * math.pi * hertz * time)).float()[None, None]


def band_of(hertz: float) -> int:
    return int((bands(SPEC, torch.device("cpu")).hertz - hertz).abs().argmin())


@pytest.mark.parametrize("hertz", [137.0, 440.0, 1234.5, 3333.0, 5200.7])
def test_a_tone_is_found_where_it_is_and_its_phase_goes_on_at_its_own_rate(hertz: float):
    track = tones(LogMel(SPEC)(sine(hertz))[:, 0], SPEC)
    band = band_of(hertz)
    measured = track.hertz[0, 20:180, band]
    assert (measured - hertz).abs().max() < max(0.004 * hertz, 1.0)
    turned = (track.turns[0, 120, band] - track.turns[0, 20, band]) % 1
    wanted = track.hertz[0, 21:121, band].double().sum() * SPEC.hop / SPEC.rate % 1
    assert abs((turned - wanted + 0.5) % 1 - 0.5) < 1e-3


def test_a_tones_spectrum_is_its_own_in_place_and_level():
    wave = sine(1000.0)
    mel = LogMel(SPEC)(wave)[:, 0]
    values = lobe(tones(mel, SPEC), SPEC).exp()[0, 100]
    real = torch.stft(wave[0, 0], 1024, 160, window=torch.hann_window(1024), return_complex=True).abs()[
        :, 100
    ]
    assert values.argmax() == real.argmax() == 64
    assert torch.allclose(values[62:67], real[62:67], rtol=0.05, atol=1.0)


def test_the_prior_has_the_mels_bands_and_no_negative_bin():
    wave = 0.1 * torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0)) + sine(700.0, 1.0)
    mel = LogMel(SPEC)(wave)[:, 0]
    value = prior(mel, SPEC).exp()
    again = (value @ bands(SPEC, mel.device).bank.T).clamp(min=SPEC.floor).log()
    assert (again - mel).abs().mean() < 0.05


def test_phases_of_all_frames_at_once_are_those_of_one_frame_after_the_other():
    rng = torch.Generator().manual_seed(1)
    top = torch.randint(0, 8, (2, 37, 8), generator=rng)
    step = torch.rand(2, 37, 8, generator=rng, dtype=torch.float64)
    first = torch.rand(2, 8, generator=rng, dtype=torch.float64)
    fast = advance(top, step, first)
    phase = first
    for frame in range(37):
        phase = phase.gather(1, top[:, frame]) + step[:, frame].gather(1, torch.arange(8).expand(2, -1))
        assert ((fast[:, frame] - phase + 0.5) % 1 - 0.5).abs().max() < 1e-9


def test_scrambled_numbers_look_uniform_and_independent():
    numbers = scrambled(torch.arange(100_000))
    assert abs(float(numbers.mean()) - 0.5) < 0.005 and abs(float(numbers.var()) - 1 / 12) < 0.002
    assert abs(float(torch.corrcoef(numbers.unfold(0, 2, 1).T)[0, 1])) < 0.01
    assert numbers[:2].tolist() == scrambled(torch.arange(2)).tolist()
