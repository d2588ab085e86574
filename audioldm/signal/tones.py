"""What a mel says of tones: where they are, how strong, and phases that go on from frame to frame.

A net that sees one frame like the next makes one frame like the next: without a clock it can only make tones at
multiples of the hop rate.   Here is the clock.   B batch, T frames, F mel bins, K = n_fft/2+1 frequency bins.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import log

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.signal.mel import filterbank
from audioldm.spec import AudioSpec

LOBE_FLOOR = 1e-4
"""Of a tone's peak: what its spectrum is taken to be far from it."""


@dataclass(frozen=True)
class Bands:
    """The filterbank as tables in float32."""

    bank: Tensor
    """(F, K)"""
    share: Tensor
    """(K,) what all bands together weigh a bin with"""
    hertz: Tensor
    """(F,) where each triangle has its top"""
    height: Tensor
    """(F,) how high it is"""
    nearest: Tensor
    """(K,) the band whose top is nearest to a bin"""


@lru_cache(maxsize=8)
def bands(spec: AudioSpec, device: torch.device) -> Bands:
    """The tables of a spec, on a device; kept, since a recorded or compiled net may copy nothing to it."""
    with torch.inference_mode(False), torch.no_grad():
        points = slaney_points(spec)
        bank = filterbank(spec).float()
        bins = torch.arange(spec.n_fft // 2 + 1) * (spec.rate / spec.n_fft)
        nearest = (bins[:, None] - points[None, 1:-1]).abs().argmin(1)
        tables = (bank, bank.sum(0).clamp(min=1e-8), points[1:-1], 2 / (points[2:] - points[:-2]), nearest)
        return Bands(*(table.to(device) for table in tables))


def slaney_points(spec: AudioSpec) -> Tensor:
    """Feet and tops of the triangles in Hz, (F + 2,): evenly spaced on Slaney's mel scale.

    >>> slaney_points(AudioSpec())[[0, 1, -1]].round().tolist()
    [0.0, 46.0, 8000.0]
    """

    def mel(hertz: float) -> float:
        return 15 + 27 * log(hertz / 1000) / log(6.4) if hertz >= 1000 else hertz * 3 / 200

    points = torch.linspace(mel(spec.fmin), mel(spec.fmax), spec.mels + 2, dtype=torch.float64)
    hertz = torch.where(points < 15, points * 200 / 3, 1000 * ((points - 15) * (log(6.4) / 27)).exp())
    return hertz.float()


@dataclass(frozen=True)
class Tones:
    """The tone that governs each band, (B, T, F) each: the nearest band uphill that is louder than both neighbours."""

    hertz: Tensor
    magnitude: Tensor
    """sum of its |STFT| over the bins"""
    turns: Tensor
    """its phase at the frame's centre in turns of 2 pi, modulo 1"""


@torch.no_grad()
def tones(mel: Tensor, spec: AudioSpec, first: Tensor | None = None) -> Tones:
    """Tones of a log-mel (B, T, F) in float32; ``first`` (B, F) or (F,) are the turns before the first frame.

    The triangles divided by their heights are hat functions, which reproduce straight lines: so the mean of three
    tops, weighed with the bands, is the frequency of a tone that stands alone, exactly.   All bands of one hill share
    one phase, which goes on from where the hill's top was a frame ago (a phase vocoder's identity phase locking:
    Laroche & Dolson 1999).   That recursion, phase_t[m] = phase_(t-1)[top_t[m]] + hertz_t[m] hop / rate, composes, so
    log2(T) rounds give all frames at once.
    """
    table = bands(spec, mel.device)
    hats = mel.float().exp() / table.height
    smooth = nnf.pad(hats.transpose(1, 2), (1, 1), mode="replicate").transpose(1, 2)
    smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 4
    sides = nnf.pad(smooth, (1, 1))
    lower, upper = sides[..., :-2], sides[..., 2:]
    index = torch.arange(spec.mels, device=mel.device)
    top = (
        index + (upper > torch.maximum(smooth, lower)).long() - (lower > torch.maximum(smooth, upper)).long()
    )
    for _ in range((spec.mels - 1).bit_length()):
        top = top.gather(-1, top)
    moment = nnf.pad(smooth * table.hertz, (1, 1))
    hertz = (moment[..., :-2] + moment[..., 1:-1] + moment[..., 2:]) / (lower + smooth + upper)
    hertz = hertz.gather(-1, top)
    sides = nnf.pad(hats, (1, 1))
    magnitude = (sides[..., :-2] + hats + sides[..., 2:]).gather(-1, top)
    start = scrambled(index) if first is None else first
    turns = advance(top, hertz * (spec.hop / spec.rate), start.expand(len(mel), -1))
    return Tones(hertz, magnitude, turns)


def advance(top: Tensor, step: Tensor, first: Tensor) -> Tensor:
    """phase_t[m] = phase_(t-1)[top_t[m]] + step_t[m] modulo 1, (B, T, F), from ``first`` (B, F)."""
    step, distance = step.frac(), 1
    while distance < top.shape[1]:
        late = top[:, distance:]
        longer = step[:, :-distance].gather(-1, late) + step[:, distance:]
        step = torch.cat([step[:, :distance], longer.frac()], dim=1)
        top = torch.cat([top[:, :distance], top[:, :-distance].gather(-1, late)], dim=1)
        distance *= 2
    return (first[:, None].expand_as(step).gather(-1, top) + step).frac()


def scrambled(number: Tensor) -> Tensor:
    """Whole numbers to fractions in [0, 1) that look random and are the same on every machine."""
    x = number & 0x7FFFFFFF
    for factor, shift in ((0x2C1B3C6D, 12), (0x297A2D39, 15), (0x5F356495, 13)):
        x = ((x ^ (x >> shift)) * factor + 0x3C6EF372) & 0x7FFFFFFF
    return ((x ^ (x >> 16)) & 0xFFFFFF).float() / 2**24


def lobe(mel_tones: Tones, spec: AudioSpec) -> Tensor:
    """Log-magnitude (B, T, K) that the bins would have if each band's tone were alone: a Hann window's main lobe."""
    table = bands(spec, mel_tones.hertz.device)
    bins = torch.arange(spec.n_fft // 2 + 1, device=mel_tones.hertz.device)
    away = bins - mel_tones.hertz[..., table.nearest] * (spec.n_fft / spec.rate)
    inside = (1 - away.square()).abs()
    shape = torch.where(inside < 1e-3, 0.5, torch.sinc(away) / inside.clamp(min=1e-3))
    level = mel_tones.magnitude[..., table.nearest].clamp(min=1e-9).log() - log(2)  # a lobe's bins sum to two
    return level + shape.abs().clamp(min=LOBE_FLOOR).log()


def prior(mel: Tensor, spec: AudioSpec, rounds: int = 6) -> Tensor:
    """Log of non-negative magnitudes (B, T, K) with about the bands of a log-mel (B, T, F), in float32.

    FreeV (arXiv:2406.08196) takes the pseudo-inverse, which is negative beside every tone; this is the multiplicative
    update of Lee & Seung 2001 (as ``signal.invert.fitted``) from a flat spectrum: the first round interpolates, each
    further one sharpens.
    """
    target = mel.float().exp()
    value = torch.ones_like(bands(spec, mel.device).share).expand(*mel.shape[:-1], -1)
    for _ in range(rounds):
        value = value * gains(value, target, spec)
    return value.clamp(min=1e-7).log()


def gains(magnitude: Tensor, target: Tensor, spec: AudioSpec) -> Tensor:
    """What to multiply magnitudes (B, T, K) with so that their bands come near ``target`` (B, T, F), in float32.

    Bins of no band get 0.
    """
    table = bands(spec, target.device)
    with torch.autocast(target.device.type, enabled=False):
        return target / (magnitude @ table.bank.T).clamp(min=1e-9) @ table.bank / table.share
