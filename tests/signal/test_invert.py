"""Griffin-Lim: a mel's own sound comes back, and a polish brings a wrong loudness to the mel's."""

import pytest
import torch

from audioldm.signal.invert import griffin_lim, linear_magnitude
from audioldm.signal.mel import log_mel
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]


@pytest.fixture
def wave() -> torch.Tensor:
    time = torch.arange(16000) / SPEC.rate
    noise = 0.05 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    return (0.4 * torch.sin(2 * torch.pi * (300 + 900 * time) * time) + noise)[None, None]


def test_magnitudes_have_the_mels_bands(wave: torch.Tensor):
    from audioldm.signal.mel import filterbank

    mel = log_mel(wave, SPEC)
    bands = filterbank(SPEC) @ linear_magnitude(mel, SPEC)
    error = (bands.transpose(1, 2) - mel[:, 0].exp()).norm() / mel.exp().norm()
    assert error < 0.1  # negative parts of the pseudo-inverse are cut off


def test_more_rounds_come_closer_and_the_length_is_whole(wave: torch.Tensor):
    mel = log_mel(wave, SPEC)

    def distance(rounds: int) -> float:
        made = griffin_lim(mel, SPEC, iterations=rounds, generator=torch.Generator().manual_seed(1))
        assert made.shape == wave.shape
        return float((log_mel(made, SPEC) - mel).abs().mean())

    assert distance(32) < distance(0) / 2
    assert distance(32) < 0.25  # nepers; one just hears 0.12


def test_a_polish_repairs_the_loudness_of_bands(wave: torch.Tensor):
    mel = log_mel(wave, SPEC)
    dull = torch.nn.functional.avg_pool1d(wave, 5, stride=1, padding=2)
    before = (log_mel(dull, SPEC) - mel).abs().mean()
    after = (log_mel(griffin_lim(mel, SPEC, iterations=8, start=dull), SPEC) - mel).abs().mean()
    assert after < before / 2


def test_the_same_generator_gives_the_same_sound(wave: torch.Tensor):
    mel = log_mel(wave, SPEC)
    a, b = (
        griffin_lim(mel, SPEC, iterations=2, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(a, b)
