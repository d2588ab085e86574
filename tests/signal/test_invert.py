"""Griffin-Lim: a mel's own sound comes back, and a phase refinement brings a wrong loudness to the mel's."""

import pytest
import torch

from audioldm.signal.invert import fitted, griffin_lim, refine_phase, spectrum
from audioldm.signal.mel import log_mel
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]


@pytest.fixture
def wave() -> torch.Tensor:
    time = torch.arange(16000) / SPEC.rate
    noise = 0.05 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    return (0.4 * torch.sin(2 * torch.pi * (300 + 900 * time) * time) + noise)[None, None]


def test_more_rounds_come_closer_and_the_length_is_whole(wave: torch.Tensor):
    mel = log_mel(wave, SPEC)

    def distance(rounds: int) -> float:
        made = griffin_lim(mel, SPEC, iterations=rounds, generator=torch.Generator().manual_seed(1))
        assert made.shape == wave.shape
        return float((log_mel(made, SPEC) - mel).abs().mean())

    assert distance(32) < distance(0) / 2
    assert distance(32) < 0.25  # nepers; one just hears 0.12


def polished(dull: torch.Tensor, mel: torch.Tensor, rounds: int) -> torch.Tensor:
    return refine_phase(dull, mel, SPEC, rounds=rounds, generator=torch.Generator().manual_seed(0))


def test_a_polish_repairs_the_loudness_of_bands(wave: torch.Tensor):
    mel = log_mel(wave, SPEC)
    dull = torch.nn.functional.avg_pool1d(wave, 5, stride=1, padding=2)
    errors = [(log_mel(made, SPEC) - mel).abs().mean() for made in (dull, polished(dull, mel, 8))]
    assert errors[1] < errors[0] / 2
    rival = griffin_lim(mel, SPEC, iterations=32, generator=torch.Generator().manual_seed(1))
    assert errors[1] < (log_mel(rival, SPEC) - mel).abs().mean()


def test_a_polish_leaves_silence_silent(wave: torch.Tensor):
    """A vocoder hisses where its mel lies at the floor; a window away from the sound nothing of it is left."""
    half = wave.shape[-1] // 2
    wave = torch.cat([wave[..., :half], torch.zeros_like(wave[..., half:])], dim=-1)
    hiss = 1e-4 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(2))
    made = polished(wave + hiss, log_mel(wave, SPEC), 4)
    away = half + SPEC.n_fft
    assert not made[..., away:].any()
    assert made[..., :half].square().mean() > 0.5 * wave[..., :half].square().mean()


def test_a_polish_is_the_same_alone_and_in_a_batch(wave: torch.Tensor):
    both = torch.cat([wave, wave.flip(-1)])
    mels = log_mel(both, SPEC)
    together = polished(both, mels, 3)
    alone = polished(both[1:], mels[1:], 3)
    # sums in another order; three rounds let a rounding of a nearly silent bin's phase grow
    assert (together[1:] - alone).abs().max() < 1e-3 * alone.abs().max()


def test_magnitudes_that_fit_keep_their_fine_structure(wave: torch.Tensor):
    mel = log_mel(wave, SPEC)
    own = spectrum(wave[:, 0], SPEC).abs()
    inner = (
        ...,
        slice(1, -1),
        slice(4, -4),
    )  # 0 Hz and half the rate lie in no band; a mel reflects at its ends
    same, louder = (fitted(factor * own, mel, SPEC, 5) for factor in (1, 0.1))
    for made in (same, louder):
        assert (made[inner] - own[inner]).norm() < 1e-3 * own[inner].norm()
    assert not louder[:, 1:-1].isnan().any() and not louder[:, [0, -1]].any()
