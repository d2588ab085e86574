"""A vocoder that works at the hop rate and ends in an inverse STFT.   B batch, T frames, F mel bins, K bins, C width.

The body is Vocos' (arXiv:2306.00814), ConvNeXt blocks; its losses are HiFi-GAN's (arXiv:2010.05646).   As FreeV
(arXiv:2406.08196) it only corrects what the mel already says (``signal.tones``): a spectrum of noise and one of tones,
between which it chooses bin by bin, and phases that go on from frame to frame, which it may follow or leave.
"""

from math import pi

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.nets.folder import register
from audioldm.signal.invert import energies, inverse
from audioldm.signal.tones import Tones, bands, gains, lobe, prior, scrambled, tones
from audioldm.spec import SPECS

MEAN, STD = -4.63, 2.74
"""AudioLDM's log-mels"""
LOUDEST = 7.0
"""Log-magnitude of a full-scale tone is 5.5."""
HEADS = 6
"""A bin's share of tones, its correction, and two complex numbers: along the tone's phase, and beside it."""


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


@register
class ISTFTVocoder(ModelMixin, ConfigMixin):
    """Log-mel to waveform, exactly one hop a frame, a function of the mel alone.

    Defaults: the embedded model's, 11.9 M parameters.   ``noise`` channels of fixed pseudo-random numbers (of the
    frame's index) are what noise is made from.   Spectra of noise that are drawn frame by frame do not fit together, so
    that a sound made from them has other magnitudes: ``corrections`` rounds scale those of the sound to the mel.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        spec: str = "16k_64",
        width: int = 448,
        hidden: int = 1344,
        depth: int = 8,
        kernel: int = 7,
        noise: int = 32,
        corrections: int = 1,
    ) -> None:
        super().__init__()
        self.spec = SPECS[spec]
        self.side = kernel // 2 * depth + 1 + (1 + corrections) * (self.spec.n_fft // self.spec.hop + 1)
        bins = self.spec.n_fft // 2 + 1
        self.read_bands = nn.Conv1d(4 * self.spec.mels + noise, width, 3, padding=1)
        self.read_bins = nn.Linear(2 * bins, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, hidden, kernel, 1 / depth) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, HEADS * bins)
        with torch.no_grad():
            self.head.weight.mul_(0.5)
            start = torch.tensor(
                [-1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
            )  # mostly noise's spectrum, the tones' phases
            self.head.bias.copy_(start.repeat_interleave(bins))

    def forward(self, mel: Tensor, seed: Tensor | None = None) -> Tensor:
        """Log-mel (B, T, F) to a wave (B, T * hop).

        ``seed`` (B,) of whole numbers varies the first phases and the noise from row to row, as training does; without
        it they are always the same.
        """
        track, noise = self.sources(mel, seed)
        return self.decode(mel, track, noise)

    def vocode(self, mel: Tensor, *, chunk: int) -> Tensor:
        """Log-mel (B, T, F) to a wave (B, T * hop), the net's part in pieces of ``chunk`` frames: the same sound."""
        frames, hop = mel.shape[1], self.spec.hop
        if frames <= chunk + 2 * self.side:
            return self(mel)
        track, noise = self.sources(mel, None)
        wave = mel.new_empty(len(mel), frames * hop)
        for begin in range(0, frames, chunk):
            end = min(begin + chunk, frames)
            first, last = max(0, begin - self.side), min(frames, end + self.side)
            part = slice(first, last)
            tone = Tones(track.hertz[:, part], track.magnitude[:, part], track.turns[:, part])
            piece = self.decode(mel[:, part], tone, noise[:, part])
            wave[:, begin * hop : end * hop] = piece[:, (begin - first) * hop : (end - first) * hop]
        return wave

    def sources(self, mel: Tensor, seed: Tensor | None) -> tuple[Tones, Tensor]:
        """The tones of all frames, whose phases need every frame before, and noise (B, T, channels) in -1..1."""
        bins, channels = self.spec.mels, self.config.noise
        row = mel.new_zeros(1, 1, dtype=torch.long) if seed is None else seed[:, None] * 0x1F35
        first = scrambled(torch.arange(bins, device=mel.device) + row * bins)
        index = torch.arange(mel.shape[1] * channels, device=mel.device).view(-1, channels)
        noise = 2 * scrambled(index + row[:, :, None] * 0x10001 + 0x155555) - 1
        return tones(mel, self.spec, first), noise.expand(len(mel), -1, -1)

    def decode(self, mel: Tensor, track: Tones, noise: Tensor) -> Tensor:
        """A wave (B, T * hop) from mels and sources of the same frames."""
        rough, sharp = prior(mel, self.spec), lobe(track, self.spec)
        gate, more, *ways = self.net(mel, track, noise, rough, sharp).float().chunk(HEADS, dim=-1)
        loud = rough + gate.sigmoid() * (sharp - rough) + more
        loud = loud.clamp(max=LOUDEST).exp()
        angle = 2 * pi * track.turns[..., bands(self.spec, mel.device).nearest]
        cos, sin = angle.cos(), angle.sin()
        real = ways[0] * cos - ways[1] * sin + ways[2]
        imag = ways[0] * sin + ways[1] * cos + ways[3]
        loud = loud * (real.square() + imag.square() + 1e-6).rsqrt()
        loud = torch.cat([loud[..., 0::2, None], -nnf.pad(loud[..., 1::2, None], (0, 0, 0, 1))], -1).flatten(
            -2
        )
        loud = loud[..., : real.shape[-1]]  # phases are told at a frame's centre, n_fft / 2 after its begin
        values = torch.complex(loud * real, loud * imag)
        wave = inverse(values.transpose(1, 2), self.spec, mel.shape[1] * self.spec.hop)
        for _ in range(self.config.corrections):
            wave = self.corrected(wave, mel)
        return wave.to(mel)

    def corrected(self, wave: Tensor, mel: Tensor) -> Tensor:
        """``wave`` (B, N) with its magnitudes scaled towards the mel (B, T, F); its phases stay, silence is silent."""
        pad = self.spec.pad
        mode = "reflect" if wave.shape[-1] > pad else "constant"
        padded = nnf.pad(wave[:, None], (pad, pad), mode=mode)[:, 0]
        window = torch.hann_window(self.spec.win, device=wave.device)
        values = torch.stft(
            padded,
            self.spec.n_fft,
            self.spec.hop,
            self.spec.win,
            window=window,
            center=False,
            return_complex=True,
        )
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
        with torch.autocast(
            mel.device.type, enabled=False
        ):  # a log-magnitude in bfloat16 is some percent off
            return self.head(self.norm_out(x.to(kind)))
