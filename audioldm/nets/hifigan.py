"""The vocoder: transformers' SpeechT5HifiGan, HiFi-GAN's generator (arXiv:2010.05646).   B batch, T frames, F bins."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.nets.pictures import convolve


@dataclass(frozen=True)
class HifiGanSizes:
    """The sizes of HiFi-GAN's generator, ``prod(upsample)`` samples a frame; AudioLDM's 16 kHz vocoder as it stands."""

    mels: int = 64
    rate: int = 16000
    channels: int = 1024
    upsample: Sequence[int] = (5, 4, 2, 2, 2)
    upsample_kernels: Sequence[int] = (16, 16, 8, 4, 4)
    kernels: Sequence[int] = (3, 7, 11)
    dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))


def build_hifigan(
    *, mel_mean: float | None = None, mel_std: float | None = None, **sizes: Any
) -> SpeechT5HifiGan:
    """Mel to waveform, of ``HifiGanSizes`` (AudioLDM's: 55.27 M); with mean and std the net normalises its input."""
    shape, normalise = HifiGanSizes(**sizes), mel_mean is not None and mel_std is not None
    config = SpeechT5HifiGanConfig(
        model_in_dim=shape.mels, sampling_rate=shape.rate, upsample_initial_channel=shape.channels,
        upsample_rates=list(shape.upsample), upsample_kernel_sizes=list(shape.upsample_kernels),
        resblock_kernel_sizes=list(shape.kernels), normalize_before=normalise,
        resblock_dilation_sizes=[list(dilation) for dilation in shape.dilations],
    )  # fmt: skip
    vocoder = SpeechT5HifiGan(config)
    # transformers starts every weight at 0.01, from which narrow nets hardly move
    for layer in vocoder.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            layer.reset_parameters()
    if normalise:
        vocoder.mean.fill_(mel_mean)
        vocoder.scale.fill_(mel_std)
    return vocoder


def vocode(vocoder: SpeechT5HifiGan | ISTFTVocoder, mel: Tensor) -> Tensor:
    """Log-mel (B, 1, T, F) to a waveform (B, 1, T * hop), trimmed or padded evenly to exactly one hop a frame.

    HiFi-GAN runs as ``generate``, but for gradients on a CPU; its extra samples (32 as published) come off both ends.
    """
    if mel.dim() != 4 or mel.shape[1] != 1:
        raise ValueError(f"mel must be (B, 1, T, F), got {tuple(mel.shape)}")
    if isinstance(vocoder, ISTFTVocoder):
        return vocoder(mel[:, 0])[:, None]
    reference = torch.is_grad_enabled() and not mel.is_cuda
    wave = vocoder(mel[:, 0])[:, None] if reference else generate(vocoder, mel)
    extra = wave.shape[-1] - mel.shape[-2] * prod(vocoder.config.upsample_rates)
    return nnf.pad(wave, (-(extra // 2), -(extra - extra // 2)))


def generate(vocoder: SpeechT5HifiGan, mel: Tensor) -> Tensor:
    """The vocoder's function of a log-mel (B, 1, T, F), untrimmed (B, 1, N), as channels-last pictures of one row.

    The mean over the branches is taken in the next layer's weights: a leaky ReLU lets a positive factor through.
    """
    config = vocoder.config
    x = (mel[:, 0] - vocoder.mean) / vocoder.scale if config.normalize_before else mel[:, 0]
    x = x[:, None].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    slopes = [config.leaky_relu_slope] * len(vocoder.upsampler)
    _, x = convolve(vocoder.conv_pre, x, slope=slopes[0], keep=False)
    branches, share = len(config.resblock_kernel_sizes), 1.0
    # the last slope is torch's own, as the reference has it
    for stage, (layer, after) in enumerate(zip(vocoder.upsampler, [*slopes[1:], 0.01], strict=True)):
        both = convolve(layer, x, factor=share, slope=slopes[0])
        blocks, share = vocoder.resblocks[stage * branches : (stage + 1) * branches], 1 / branches
        x = residual(blocks, *both, slope=slopes[0], after=after)
    # bfloat16 would leave a wave 8 bits
    with torch.autocast(x.device.type, enabled=False):
        return convolve(vocoder.conv_post, x.to(vocoder.conv_post.weight), factor=share)[0].tanh()[:, :, 0]


def residual(blocks: Any, x: Tensor, active: Tensor, *, slope: float, after: float) -> Tensor:
    """Of (B, C, 1, T) and its leaky ReLU: the sum of HiFi-GAN's residual blocks, its leaky ReLU of slope ``after``."""
    total: tuple[Tensor, ...] = ()
    for block in blocks:
        y, inside = x, active
        *pairs, (first, second) = zip(block.convs1, block.convs2, strict=True)
        for one, two in pairs:
            y, inside = convolve(two, convolve(one, inside, slope=slope, keep=False)[1], y, slope=slope)
        _, inside = convolve(first, inside, slope=slope, keep=False)
        last = block is blocks[-1]
        y, inside = convolve(second, inside, y, *total, slope=after if last else 1.0, keep=not last)
        total = (y,)
    return inside
