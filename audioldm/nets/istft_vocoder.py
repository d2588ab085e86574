"""A vocoder that works at the hop rate and ends in an inverse STFT.   B batch, T frames, F mel bins, K bins, C width.

Vocos' body (arXiv:2306.00814), HiFi-GAN's losses (arXiv:2010.05646).   As FreeV (arXiv:2406.08196) it only corrects
what the mel says: a spectrum of noise and one of tones, between which it chooses, and phases that go on.
"""

from functools import lru_cache
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.nets.folder import Component
from audioldm.signal.invert import energies, inverse
from audioldm.signal.mel import MEAN, STD, filterbank, spectrum
from audioldm.spec import SPECS, AudioSpec

LOUDEST = 7.0  # Log-magnitude of a full-scale tone is 5.5.
HEADS = 6
"""A bin's share of tones, its correction, and two complex numbers: along the tone's phase, and beside it."""
LOBE_FLOOR = 1e-4  # Of a tone's peak: what its spectrum is taken to be far from it.

# A net that sees one frame like the next makes one frame like the next: without a clock it can only make tones at
# multiples of the hop rate.   ``tones`` is the clock.


class Bands(NamedTuple):
    """The filterbank as tables in float32."""

    bank: Tensor  # (F, K)
    share: Tensor  # (K,) what all bands together weigh a bin with
    hertz: Tensor  # (F,) where each triangle has its top
    height: Tensor  # (F,) how high it is
    nearest: Tensor  # (K,) the band whose top is nearest to a bin


@lru_cache(maxsize=8)
def bands(spec: AudioSpec, device: torch.device) -> Bands:
    """The tables of a spec (triangles even on Slaney's mel scale), kept: a recorded net may copy nothing there."""

    def mel(hertz: float) -> float:
        return 15 + 27 * log(hertz / 1000) / log(6.4) if hertz >= 1000 else hertz * 3 / 200

    with torch.inference_mode(False), torch.no_grad():
        even = torch.linspace(mel(spec.fmin), mel(spec.fmax), spec.mels + 2, dtype=torch.float64)
        points = torch.where(even < 15, even * 200 / 3, 1000 * ((even - 15) * (log(6.4) / 27)).exp()).float()
        bank = filterbank(spec).float()
        bins = torch.arange(spec.n_fft // 2 + 1) * (spec.rate / spec.n_fft)
        nearest = (bins[:, None] - points[None, 1:-1]).abs().argmin(1)
        tables = (bank, bank.sum(0).clamp(min=1e-8), points[1:-1], 2 / (points[2:] - points[:-2]), nearest)
        return Bands(*(table.to(device) for table in tables))


class Tones(NamedTuple):
    """The tone that governs each band, (B, T, F) each: the nearest band uphill that is louder than both neighbours."""

    hertz: Tensor
    magnitude: Tensor  # sum of its |STFT| over the bins
    turns: Tensor  # its phase at the frame's centre in turns of 2 pi, modulo 1


@torch.no_grad()
def tones(mel: Tensor, spec: AudioSpec, first: Tensor | None = None) -> Tones:
    """Tones of a log-mel (B, T, F) in float32; ``first`` (B, F) or (F,) are the turns before the first frame.

    Triangles divided by their heights reproduce straight lines: the mean of three tops, weighed with the bands, is the
    frequency of a tone that stands alone.   A hill's bands share one phase, which goes on from where its top was before
    (identity phase locking: Laroche & Dolson 1999); that recursion composes, so log2(T) rounds give all frames.
    """
    table = bands(spec, mel.device)
    hats = mel.float().exp() / table.height
    smooth = nnf.pad(hats.transpose(1, 2), (1, 1), mode="replicate").transpose(1, 2)
    smooth = (smooth[:, :-2] + 2 * smooth[:, 1:-1] + smooth[:, 2:]) / 4
    sides = nnf.pad(smooth, (1, 1))
    lower, upper = sides[..., :-2], sides[..., 2:]
    index = torch.arange(spec.mels, device=mel.device)
    uphill, downhill = upper > torch.maximum(smooth, lower), lower > torch.maximum(smooth, upper)
    top = index + uphill.long() - downhill.long()
    for _ in range((spec.mels - 1).bit_length()):
        top = top.gather(-1, top)
    moment = nnf.pad(smooth * table.hertz, (1, 1))
    hertz = (moment[..., :-2] + moment[..., 1:-1] + moment[..., 2:]) / (lower + smooth + upper)
    hertz = hertz.gather(-1, top)
    sides = nnf.pad(hats, (1, 1))
    magnitude = (sides[..., :-2] + hats + sides[..., 2:]).gather(-1, top)
    start = scrambled(index) if first is None else first
    return Tones(hertz, magnitude, advance(top, hertz * (spec.hop / spec.rate), start.expand(len(mel), -1)))


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

    Lee & Seung's multiplicative update (2001) from a flat spectrum; FreeV's pseudo-inverse is negative beside tones.
    """
    target = mel.float().exp()
    value = torch.ones_like(bands(spec, mel.device).share).expand(*mel.shape[:-1], -1)
    for _ in range(rounds):
        value = value * gains(value, target, spec)
    return value.clamp(min=1e-7).log()


def gains(magnitude: Tensor, target: Tensor, spec: AudioSpec) -> Tensor:
    """Factors of magnitudes (B, T, K) that bring their bands near ``target`` (B, T, F), in float32; 0 in no band."""
    table = bands(spec, target.device)
    with torch.autocast(target.device.type, enabled=False):
        return target / (magnitude @ table.bank.T).clamp(min=1e-9) @ table.bank / table.share


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution over time, then two linear layers frame by frame.   ConvNeXt (arXiv:2201.03545)."""

    def __init__(self, width: int, hidden: int, kernel: int, scale: float) -> None:
        super().__init__()
        self.depth = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.narrow = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same."""
        y = self.norm(self.depth(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * self.narrow(nnf.gelu(self.widen(y)))


class ISTFTVocoder(Component):
    """Log-mel to waveform, exactly one hop a frame, a function of the mel alone.   Defaults: 11.9 M parameters.

    Noise comes from ``noise`` channels of fixed pseudo-random numbers; ``corrections`` rounds scale it to the mel.
    """

    def __init__(
        self, spec: str = "16k_64", width: int = 448, hidden: int = 1344, depth: int = 8, kernel: int = 7,
        noise: int = 32, corrections: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.spec = SPECS[spec]
        bins = self.spec.n_fft // 2 + 1
        self.read_bands = nn.Conv1d(4 * self.spec.mels + noise, width, 3, padding=1)
        self.read_bins = nn.Linear(2 * bins, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, hidden, kernel, 1 / depth) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, HEADS * bins)
        with torch.no_grad():
            self.head.weight.mul_(0.5)
            # mostly noise's spectrum, the tones' phases
            self.head.bias.copy_(torch.tensor([-1.0, 0.0, 1.0, 0.0, 0.0, 0.0]).repeat_interleave(bins))

    def forward(self, mel: Tensor, seed: Tensor | None = None) -> Tensor:
        """Log-mel (B, T, F) to a wave (B, T * hop); ``seed`` (B,) varies the noise and first phases from row to row."""
        track, noise = self.sources(mel, seed)
        values = torch.complex(*self.bins(mel, track, noise))
        wave = inverse(values.transpose(1, 2), self.spec, mel.shape[1] * self.spec.hop)
        for _ in range(self.config.corrections):
            wave = self.corrected(wave, mel)
        return wave.to(mel)

    def sources(self, mel: Tensor, seed: Tensor | None) -> tuple[Tones, Tensor]:
        """The tones of all frames, whose phases need every frame before, and noise (B, T, channels) in -1..1."""
        bins, channels = self.spec.mels, self.config.noise
        row = mel.new_zeros(1, 1, dtype=torch.long) if seed is None else seed[:, None] * 0x1F35
        first = scrambled(torch.arange(bins, device=mel.device) + row * bins)
        index = torch.arange(mel.shape[1] * channels, device=mel.device).view(-1, channels)
        noise = 2 * scrambled(index + row[:, :, None] * 0x10001 + 0x155555) - 1
        return tones(mel, self.spec, first), noise.expand(len(mel), -1, -1)

    def bins(self, mel: Tensor, track: Tones, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The spectrum's real and imaginary parts, (B, T, K) each, from mels and sources of the same frames."""
        rough, sharp = prior(mel, self.spec), lobe(track, self.spec)
        gate, more, *ways = self.net(mel, track, noise, rough, sharp).float().chunk(HEADS, dim=-1)
        loud = rough + gate.sigmoid() * (sharp - rough) + more
        loud = loud.clamp(max=LOUDEST).exp()
        angle = 2 * pi * track.turns[..., bands(self.spec, mel.device).nearest]
        cos, sin = angle.cos(), angle.sin()
        real = ways[0] * cos - ways[1] * sin + ways[2]
        imag = ways[0] * sin + ways[1] * cos + ways[3]
        loud = loud * (real.square() + imag.square() + 1e-6).rsqrt()
        # phases are those at a frame's centre, n_fft / 2 after its begin
        pairs = [loud[..., 0::2, None], -nnf.pad(loud[..., 1::2, None], (0, 0, 0, 1))]
        loud = torch.cat(pairs, -1).flatten(-2)[..., : real.shape[-1]]
        return loud * real, loud * imag

    def corrected(self, wave: Tensor, mel: Tensor) -> Tensor:
        """``wave`` (B, N) with its magnitudes scaled towards the mel (B, T, F); its phases stay, silence is silent."""
        mode = "reflect" if wave.shape[-1] > self.spec.pad else "constant"
        values = spectrum(wave, self.spec, mode=mode)
        target = energies(mel.float(), self.spec)
        values = values * gains(values.abs().transpose(1, 2), target, self.spec).transpose(1, 2)
        return inverse(values, self.spec, wave.shape[-1])

    def net(self, mel: Tensor, track: Tones, noise: Tensor, rough: Tensor, sharp: Tensor) -> Tensor:
        """What each bin's six numbers are, (B, T, 6 K)."""
        table, kind = bands(self.spec, mel.device), self.norm_in.weight.dtype
        angle = 2 * pi * track.turns
        within = ((track.hertz - table.hertz) * table.height).clamp(-3, 3)
        level = (mel.float() - MEAN) / STD
        x = torch.cat([level, within, angle.cos(), angle.sin(), noise], dim=-1).to(kind)
        x = self.read_bands(x.transpose(1, 2)).transpose(1, 2)
        x = self.norm_in(x + self.read_bins((torch.cat([rough, sharp], dim=-1) / STD).to(kind)))
        for block in self.blocks:
            x = block(x)
        # a log-magnitude in bfloat16 is some percent off
        with torch.autocast(mel.device.type, enabled=False):
            return self.head(self.norm_out(x.to(kind)))
