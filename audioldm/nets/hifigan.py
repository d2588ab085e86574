"""The vocoder: transformers' SpeechT5HifiGan, HiFi-GAN's generator (arXiv:2010.05646).   B batch, T frames, F bins."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig


def build_hifigan(
    *,
    mels: int = 64,
    rate: int = 16000,
    channels: int = 1024,
    upsample: Sequence[int] = (5, 4, 2, 2, 2),
    upsample_kernels: Sequence[int] = (16, 16, 8, 4, 4),
    kernels: Sequence[int] = (3, 7, 11),
    dilations: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    mel_mean: float | None = None,
    mel_std: float | None = None,
) -> SpeechT5HifiGan:
    """Mel to waveform, ``prod(upsample)`` samples a frame.   Defaults: AudioLDM's 16 kHz vocoder, 55.27 M parameters.

    With ``mel_mean`` and ``mel_std`` the input is normalised inside the net (its own ``mean`` and ``scale`` buffers).
    """
    normalise = mel_mean is not None and mel_std is not None
    vocoder = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=mels,
            sampling_rate=rate,
            upsample_initial_channel=channels,
            upsample_rates=list(upsample),
            upsample_kernel_sizes=list(upsample_kernels),
            resblock_kernel_sizes=list(kernels),
            resblock_dilation_sizes=[list(d) for d in dilations],
            normalize_before=normalise,
        )
    )
    for (
        layer
    ) in vocoder.modules():  # transformers starts every weight at 0.01, from which narrow nets hardly move
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            layer.reset_parameters()
    if normalise:
        vocoder.mean.fill_(mel_mean)
        vocoder.scale.fill_(mel_std)
    return vocoder


def vocode(vocoder: SpeechT5HifiGan, mel: Tensor) -> Tensor:
    """Log-mel (B, 1, T, F) to a waveform (B, 1, T * hop), trimmed or padded evenly to exactly one hop a frame.

    Without gradients it runs ``generate``, which is the same function sooner.

    An odd rate with an even kernel gives extra samples (160 T + 32 for the published shape); they come off both ends,
    which keeps the frames aligned with the front end that the vocoder was trained on.
    """
    if mel.dim() != 4 or mel.shape[1] != 1:
        raise ValueError(f"mel must be (B, 1, T, F), got {tuple(mel.shape)}")
    wave = vocoder(mel[:, 0])[:, None] if torch.is_grad_enabled() else generate(vocoder, mel)
    extra = wave.shape[-1] - mel.shape[-2] * prod(vocoder.config.upsample_rates)
    return nnf.pad(wave, (-(extra // 2), -(extra - extra // 2)))


def generate(vocoder: SpeechT5HifiGan, mel: Tensor) -> Tensor:
    """The vocoder's own function of a log-mel (B, 1, T, F), untrimmed (B, 1, N), computed as pictures one row high.

    Convolutions over time read channels-last memory as it is; as one-dimensional ones they copy it to and fro.   The
    mean over the branches is taken in the next layer's weights: a leaky ReLU lets a positive factor through.
    """
    config = vocoder.config
    x = (mel[:, 0] - vocoder.mean) / vocoder.scale if config.normalize_before else mel[:, 0]
    x = flat(vocoder.conv_pre, x[:, None].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last))
    branches, share = len(config.resblock_kernel_sizes), 1.0
    for stage, layer in enumerate(vocoder.upsampler):
        x = flat(layer, nnf.leaky_relu(x, config.leaky_relu_slope), share)
        total = None
        for block in vocoder.resblocks[stage * branches : (stage + 1) * branches]:
            part = residual(block, x)
            total = part if total is None else total.add_(part)
        x, share = total, 1 / branches
    return flat(vocoder.conv_post, nnf.leaky_relu_(x), share).tanh()[:, :, 0]


def residual(block: nn.Module, x: Tensor) -> Tensor:
    """One of HiFi-GAN's residual blocks on (B, C, 1, T), in memory of its own."""
    for first, second in zip(block.convs1, block.convs2, strict=True):
        inside = flat(first, nnf.leaky_relu(x, block.leaky_relu_slope))
        x = flat(second, nnf.leaky_relu_(inside, block.leaky_relu_slope)).add_(x)
    return x


def flat(layer: nn.Conv1d | nn.ConvTranspose1d, x: Tensor, factor: float = 1.0) -> Tensor:
    """A one-dimensional layer on (B, C, 1, T); its input counts ``factor`` times."""
    weight = layer.weight[:, :, None] if factor == 1 else layer.weight[:, :, None] * factor
    weight = weight.contiguous(memory_format=torch.channels_last)
    stride, padding, dilation = (1, *layer.stride), (0, *layer.padding), (1, *layer.dilation)
    if isinstance(layer, nn.ConvTranspose1d):
        return nnf.conv_transpose2d(x, weight, layer.bias, stride, padding, dilation=dilation)
    return nnf.conv2d(x, weight, layer.bias, stride, padding, dilation)
