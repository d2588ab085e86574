"""Discriminators: of waveforms (HiFi-GAN's multi-period, UnivNet's multi-resolution) and of mels (PatchGAN).

Each returns a list of (logits, features) pairs, one a sub-discriminator.   B batch, N samples, T frames, F bins.
"""

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.nn.utils.parametrizations import weight_norm

from audioldm.batch import Condition
from audioldm.nets.pictures import convolve
from audioldm.nets.unet import LatentUNet, net_call

Outputs = list[tuple[Tensor, list[Tensor]]]
SLOPE = 0.1  # leaky ReLU of HiFi-GAN


def _run(layers: Any, last: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    features = []
    for layer in layers:
        _, x = convolve(layer, x, slope=SLOPE, keep=False)
        features.append(x)
    return convolve(last, x)[0], features


class Period(nn.Module):
    """Folds the wave at ``period`` and looks along time only.   HiFi-GAN (arXiv:2010.05646) sec. 2.3."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, width, width * 4, width * 8, width * 8]
        layers = [nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList(map(weight_norm, layers))
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, N) to logits (B, 1, n, period) and features."""
        short = -wave.shape[-1] % self.period
        folded = nnf.pad(wave, (0, short), mode="reflect").unflatten(-1, (-1, self.period))
        return _run(self.layers, self.last, folded)


class Resolution(nn.Module):
    """Looks at the spectrogram of one window size.   UnivNet (arXiv:2106.07889) sec. 2.2.

    ``phases`` shows it real and imaginary parts instead of magnitudes (EnCodec, arXiv:2210.13438 sec. 3.4), whose
    magnitudes are square roots of what they were, so that quiet partials are seen beside loud ones.
    """

    window: Tensor

    def __init__(self, n_fft: int, width: int, *, phases: bool = False) -> None:
        super().__init__()
        self.n_fft, self.phases = n_fft, phases
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        ends = ((1 + phases, 1), (width, 2), (width, 2), (width, 2))
        layers = [nn.Conv2d(channels, width, (3, 9), (1, stride), (1, 4)) for channels, stride in ends]
        self.layers = nn.ModuleList(map(weight_norm, layers))
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, N) to logits (B, 1, frames, bins/8) and features."""
        with torch.autocast(wave.device.type, enabled=False):
            window = self.window.to(torch.promote_types(self.window.dtype, torch.float32))
            sizes: dict[str, Any] = {"n_fft": self.n_fft, "hop_length": self.n_fft // 4, "window": window}
            values = torch.stft(wave[:, 0].to(window), **sizes, return_complex=True).transpose(1, 2)
            picture = torch.view_as_real(values).permute(0, 3, 1, 2) if self.phases else values.abs()[:, None]
            if self.phases:
                picture = picture * (picture.square().sum(1, keepdim=True) + 1e-4) ** -0.25
        return _run(self.layers, self.last, picture)


class WaveDiscriminator(nn.Module):
    """All periods and all resolutions at once; ``phases`` shows them complex spectra instead of magnitudes."""

    def __init__(
        self, *, periods: Sequence[int] = (2, 3, 5, 7, 11), resolutions: Sequence[int] = (512, 1024, 2048),
        period_width: int = 32, resolution_width: int = 32, phases: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        folded = [Period(period, period_width) for period in periods]
        seen = [Resolution(n_fft, resolution_width, phases=phases) for n_fft in resolutions]
        self.parts = nn.ModuleList([*folded, *seen])

    def forward(self, wave: Tensor) -> Outputs:
        """(B, 1, N) to one (logits, features) a part."""
        return [part(wave) for part in self.parts]


class PatchDiscriminator(nn.Module):
    """PatchGAN on a log-mel: each logit is of one patch.   Isola et al. 2017 (arXiv:1611.07004) sec. 3.2.2."""

    def __init__(self, *, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        widths = [1] + [width * min(2**i, 8) for i in range(depth + 1)]
        sizes = zip(widths, widths[1:], [2] * depth + [1], strict=False)
        self.layers = nn.ModuleList(weight_norm(nn.Conv2d(a, b, 4, s, 1)) for a, b, s in sizes)
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, mel: Tensor) -> Outputs:
        """(B, 1, T, F) to a list with one (logits, features)."""
        return [_run(self.layers, self.last, mel)]


class LatentDiscriminator(nn.Module):
    """A copy of a U-Net up to its middle, with a head: logits (B, P) of P places there, under the condition.

    Novack et al. 2025 (ARC, arXiv:2505.08175) sec. 3.3; Sauer et al. 2024 (LADD, arXiv:2403.12015).
    """

    def __init__(self, unet: LatentUNet) -> None:
        super().__init__()
        width = unet.config.block_out_channels[-1]
        self.encoder: Any = deepcopy(unet).requires_grad_(True)
        self.encoder.up_blocks, self.encoder.conv_norm_out = nn.ModuleList(), None
        self.encoder.conv_out = nn.Identity()
        last = (nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 1, 1))
        self.head = nn.Sequential(nn.GroupNorm(1, width), nn.SiLU(), *last)

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Noised latents (B, C, T, F) at times (B,) -> (B, P)."""
        # all of its channels: they are features here, not a noise and its variance
        logits: Tensor = self.head(net_call(self.encoder, variance=True)(x, t, condition))
        return logits.flatten(1)
