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
    """Mel to waveform, of ``HifiGanSizes``.   Defaults: AudioLDM's 16 kHz vocoder, 55.27 M parameters.

    With ``mel_mean`` and ``mel_std`` the input is normalised inside the net (its own ``mean`` and ``scale`` buffers).
    """
    shape, normalise = HifiGanSizes(**sizes), mel_mean is not None and mel_std is not None
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=shape.mels,
            sampling_rate=shape.rate,
            upsample_initial_channel=shape.channels,
            upsample_rates=list(shape.upsample),
            upsample_kernel_sizes=list(shape.upsample_kernels),
            resblock_kernel_sizes=list(shape.kernels),
            resblock_dilation_sizes=[list(dilation) for dilation in shape.dilations],
            normalize_before=normalise,
        )
    )
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

    Without gradients HiFi-GAN runs as ``generate``; its extra samples (32 for the published shape) come off both ends.
    """
    if mel.dim() != 4 or mel.shape[1] != 1:
        raise ValueError(f"mel must be (B, 1, T, F), got {tuple(mel.shape)}")
    if isinstance(vocoder, ISTFTVocoder):
        return vocoder(mel[:, 0])[:, None]
    wave = vocoder(mel[:, 0])[:, None] if torch.is_grad_enabled() else generate(vocoder, mel)
    extra = wave.shape[-1] - mel.shape[-2] * prod(vocoder.config.upsample_rates)
    return nnf.pad(wave, (-(extra // 2), -(extra - extra // 2)))


def generate(vocoder: SpeechT5HifiGan, mel: Tensor) -> Tensor:
    """The vocoder's function of a log-mel (B, 1, T, F), untrimmed (B, 1, N), as channels-last pictures of one row.

    The mean over the branches is taken in the next layer's weights: a leaky ReLU lets a positive factor through.
    """
    config = vocoder.config
    x = (mel[:, 0] - vocoder.mean) / vocoder.scale if config.normalize_before else mel[:, 0]
    x = flat(vocoder.conv_pre, x[:, None].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
    branches, share = len(config.resblock_kernel_sizes), 1.0
    for stage, layer in enumerate(vocoder.upsampler):
        x = flat(layer, x, share, config.leaky_relu_slope)
        total = None
        for block in vocoder.resblocks[stage * branches : (stage + 1) * branches]:
            total = residual(block, x, total)
        x, share = x if total is None else total, 1 / branches
    # torch's own slope, as the reference has it
    return flat(vocoder.conv_post, x, share, 0.01).tanh()[:, :, 0]


def residual(block: Any, x: Tensor, total: Tensor | None) -> Tensor:
    """One of HiFi-GAN's residual blocks on (B, C, 1, T), in memory of its own; with ``total`` the two's sum."""
    for first, second in zip(block.convs1, block.convs2, strict=True):
        inside = flat(first, x, slope=block.leaky_relu_slope)
        x = flat(second, inside, slope=block.leaky_relu_slope, plus=x)
    return x if total is None else total.add_(x)


def flat(
    layer: nn.Conv1d | nn.ConvTranspose1d,
    x: Tensor,
    factor: float = 1.0,
    slope: float = 1.0,
    plus: Tensor | None = None,
) -> Tensor:
    """A 1-d layer on (B, C, 1, T) after a leaky ReLU of ``slope``, its input ``factor`` times; plus ``plus``."""
    weight = layer.weight[:, :, None] if factor == 1 else layer.weight[:, :, None] * factor
    weight = weight.contiguous(memory_format=torch.channels_last)
    stride, padding, dilation = (1, *layer.stride), (0, *layer.padding), (1, *layer.dilation)
    x = x if slope == 1 else nnf.leaky_relu(x, slope)
    if isinstance(layer, nn.ConvTranspose1d):
        return nnf.conv_transpose2d(x, weight, layer.bias, stride, padding, dilation=dilation)
    y = nnf.conv2d(x, weight, layer.bias, stride, padding, dilation)
    return y if plus is None else y.add_(plus)
