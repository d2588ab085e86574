"""A mel back to a waveform without a network, and phase refinement.   T frames, F mel bins, K = n_fft/2+1 bins."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as nnf

from audioldm.signal.mel import filterbank, spectrum
from audioldm.spec import AudioSpec

FIRST, LATER = 20, 3  # steps of ``fitted`` before the first round of a phase refinement, and in each
NOISE = 0.7  # share of noise that a phase refinement begins with
FLOOR = 0.5  # nepers above the log-mel's floor that still count as the floor: nets come that near to it
MOMENTUM = 0.99  # of a round's last change that the phases go on with: 0 is Griffin & Lim's step


def griffin_lim(
    mel: Tensor, spec: AudioSpec, *, iterations: int = 32, generator: Generator | None = None
) -> Tensor:
    """A waveform (B, 1, T * hop) with about the mel's magnitudes, from random phases.   Griffin & Lim 1984 eq. 16."""
    inverse_bank = torch.linalg.pinv(filterbank(spec).to(mel))
    magnitude = (inverse_bank @ mel[:, 0].exp().transpose(1, 2)).clamp(min=0)
    samples = mel.shape[-2] * spec.hop
    turns = torch.rand(magnitude.shape, generator=generator).to(mel)
    values = torch.polar(magnitude, 2 * torch.pi * turns)
    for _ in range(iterations):
        values = torch.polar(magnitude, spectrum(inverse(values, spec, samples), spec).angle())
    return inverse(values, spec, samples)[:, None]


def refine_phase(wave: Tensor, mel: Tensor, spec: AudioSpec, *, rounds: int, generator: Generator) -> Tensor:
    """A vocoder's wave (B, 1, T * hop) brought to the log-mel (B, 1, T, F) that it was made from.

    It begins at the wave and seven tenths of noise (one for all rows), each with the mel's loudness: tones keep the
    vocoder's phases, noise loses the periodic texture of a small vocoder.   A round fits the magnitudes to the mel and
    takes phases that go on as they changed last (Perraudin et al. 2013, alg. 1); 8 are enough to hear.
    """
    samples = mel.shape[-2] * spec.hop
    drawn = torch.randn(1, samples, generator=generator, device=generator.device).to(mel)

    def levelled(sound: Tensor, steps: int, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The sound with the mel's magnitudes and its own phases, gone on from those of ``before``; its spectrum."""
        values = spectrum(sound, spec)
        ahead = values if before is None else values + MOMENTUM * (values - before)
        magnitude = fitted(values.abs(), mel, spec, steps)
        return inverse(torch.polar(magnitude, ahead.angle()), spec, samples), values

    tones, noise = (levelled(sound, FIRST)[0] for sound in (wave[:, 0], drawn.expand(len(mel), -1)))
    sound, before = (1 - NOISE) * tones + NOISE * noise, None
    for _ in range(rounds):
        sound, before = levelled(sound, LATER, before)
    return sound[:, None]


def fitted(magnitude: Tensor, mel: Tensor, spec: AudioSpec, steps: int) -> Tensor:
    """Magnitudes (B, K, T) with a log-mel's bands (B, 1, T, F): m <- m * W'(target / W m) / W'1.   Lee & Seung 2001."""
    bank = filterbank(spec).to(mel)
    target, share = energies(mel, spec)[:, 0].transpose(1, 2), bank.sum(0)[:, None].clamp(min=1e-8)
    magnitude = magnitude.clamp(min=1e-7)
    for _ in range(steps):
        magnitude = magnitude * (bank.T @ (target / (bank @ magnitude).clamp(min=1e-7))) / share
    return magnitude


def energies(mel: Tensor, spec: AudioSpec) -> Tensor:
    """exp(mel) (..., T, F), but 0 where a log-mel lies at its floor, which would fill digital silence with hiss."""
    return mel.exp().masked_fill(mel < math.log(spec.floor) + FLOOR, 0.0)


def inverse(values: Tensor, spec: AudioSpec, samples: int) -> Tensor:
    """The wave (B, samples) whose spectrum is nearest to (B, K, T).   Griffin & Lim 1984 eq. 6."""
    window = torch.hann_window(spec.win, dtype=values.real.dtype, device=values.device)
    frames = torch.fft.irfft(values.transpose(1, 2), n=spec.n_fft) * window
    weight = window.square().expand(1, frames.shape[1], -1)
    size = (1, (frames.shape[1] - 1) * spec.hop + spec.n_fft)

    def overlap(parts: Tensor) -> Tensor:
        return nnf.fold(parts.transpose(1, 2), size, (1, spec.n_fft), stride=(1, spec.hop))[:, 0, 0]

    return (overlap(frames) / overlap(weight).clamp(min=1e-8))[:, spec.pad : spec.pad + samples]
