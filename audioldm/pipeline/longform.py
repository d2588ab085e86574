"""Sound longer than the model's own window, prompts over time, and loops: memory is that of one window.

B batch, C channels, T latent frames, F bins, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.control.steer import window_at
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.windows import blend, plateau, shares_of, starts, windowed
from audioldm.nets.unet import multiple_of
from audioldm.nets.vae import encode as encode_mel
from audioldm.pipeline.spans import Span
from audioldm.signal.mel import log_mel

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

FADE = 0.5
"""Seconds over which neighbouring prompts of a schedule cross-fade."""


def window_frames(pipe: AudioLDM) -> int:
    """Latent frames that the U-Net sees at once: the length that the model was made for."""
    return pipe.spec.latent_frames(pipe.defaults["seconds"], multiple_of(pipe.unet))


def loop_frames(pipe: AudioLDM, seconds: float) -> int:
    """Latent frames of a loop: ``seconds`` to the nearest frame, at least what the U-Net needs."""
    return max(multiple_of(pipe.unet), round(seconds / pipe.spec.seconds_per_latent))


def over_time(
    pipe: AudioLDM,
    parts: Sequence[Denoiser],
    frames: int,
    *,
    shares: Tensor | None = None,
    loop: bool = False,
) -> Denoiser:
    """One denoiser for ``frames`` latent frames from one per prompt; ``shares`` (P, frames) says which counts when."""
    multiple = multiple_of(pipe.unet)
    window = min(window_frames(pipe), frames // multiple * multiple if loop else frames)
    shares = torch.ones(1, frames) if shares is None else shares
    return windowed(
        parts, shares, window=window, circular=loop, inside=lambda begin: window_at(begin, frames)
    )


def span_shares(pipe: AudioLDM, spans: Sequence[Span], frames: int) -> Tensor:
    """How much each span counts in every latent frame (P, frames)."""
    return shares_of([(s.begin, s.end) for s in spans], frames, pipe.spec.seconds_per_latent, FADE)


def tile_weights(window: int, scale: int) -> tuple[Tensor, int]:
    """(weights of a window of the codec, its stride): a sixteenth of context at each end, ramps of an eighth."""
    context, ramp = window * scale // 16, window * scale // 8
    return plateau(window * scale, context, ramp), max(1, window * 3 // 4)


@torch.no_grad()
def encode(pipe: AudioLDM, wave: Tensor) -> Tensor:
    """Wave (N,) to the scaled latent (1, C, T, F) of its posterior's mean, silence added up to whole latent frames."""
    frames = pipe.spec.latent_frames(wave.shape[-1] / pipe.spec.rate, multiple_of(pipe.unet))
    size = pipe.spec.stride * pipe.spec.hop
    padded = nnf.pad(wave.float(), (0, frames * size - wave.shape[-1]))
    window = min(frames, window_frames(pipe))
    weights, stride = tile_weights(window, 1)
    begins = starts(frames, window, stride)

    def part(begin: int) -> Tensor:
        mel = mel_between(pipe, padded, begin * size, (begin + window) * size)
        return encode_mel(pipe.vae, mel.to(pipe.device, pipe.dtype))[0].float()

    whole = part(0) if len(begins) == 1 else blend(frames, begins, weights, part, dim=2)
    return whole * pipe.vae.config.scaling_factor


def mel_between(pipe: AudioLDM, wave: Tensor, begin: int, end: int) -> Tensor:
    """The log-mel (1, 1, T, F) of samples [begin, end) as it is within the whole ``wave`` (N,)."""
    hop = pipe.spec.hop
    extra = -(-pipe.spec.n_fft // hop) * hop
    first, last = max(0, begin - extra), min(wave.shape[-1], end + extra)
    mel = log_mel(wave[None, None, first:last], pipe.spec)
    return mel[:, :, (begin - first) // hop : (end - first) // hop]


@torch.no_grad()
def decode(
    pipe: AudioLDM, latent: Tensor, *, seconds: float, refine_phase: int, loop: bool = False
) -> Tensor:
    """Scaled latent (B, C, T, F) to waves (B, N), a window at a time where T is longer than one, or in a circle."""
    frames = latent.shape[2]
    if frames <= window_frames(pipe) and not loop:
        return pipe.decode(latent, seconds=seconds, refine_phase=refine_phase)
    window = window_frames(pipe)
    scale = pipe.spec.stride * pipe.spec.hop
    weights, stride = tile_weights(window, scale)
    # a circle that is shorter than a window is gone round as often as the window needs; what overlaps is the same sound
    begins = starts(frames, min(window, frames), min(stride, max(1, frames // 2)), circular=loop)

    def part(begin: int) -> Tensor:
        index = (torch.arange(window, device=latent.device) + begin) % frames
        length = window * scale / pipe.spec.rate
        return pipe.decode(latent[:, :, index], seconds=length, refine_phase=refine_phase)

    return blend(frames, begins, weights, part, dim=-1, scale=scale)[:, : pipe.spec.samples(seconds)]
