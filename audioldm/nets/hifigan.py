"""The vocoder: transformers' SpeechT5HifiGan, HiFi-GAN's generator (arXiv:2010.05646).   B batch, T frames, F bins."""

from collections.abc import Sequence
from math import prod

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

    An odd rate with an even kernel gives extra samples (160 T + 32 for the published shape); they come off both ends,
    which keeps the frames aligned with the front end that the vocoder was trained on.
    """
    if mel.dim() != 4 or mel.shape[1] != 1:
        raise ValueError(f"mel must be (B, 1, T, F), got {tuple(mel.shape)}")
    wave = vocoder(mel[:, 0])
    wave = wave[:, None] if wave.dim() == 2 else wave
    extra = wave.shape[-1] - mel.shape[-2] * prod(vocoder.config.upsample_rates)
    return nnf.pad(wave, (-(extra // 2), -(extra - extra // 2)))
