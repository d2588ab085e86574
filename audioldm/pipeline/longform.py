"""Sound longer than the model's own window, and loops: memory is that of one window.   T latent frames, N samples."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.components import Components
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.windows import blend, plateau, starts, windowed
from audioldm.nets.unet import multiple_of
from audioldm.nets.vae import encode as encode_mel
from audioldm.signal.mel import log_mel


def window_frames(parts: Components) -> int:
    """Latent frames that the U-Net sees at once: the length that the model was made for."""
    return parts.spec.latent_frames(parts.defaults.seconds, multiple_of(parts.unet))


def loop_frames(parts: Components, seconds: float) -> int:
    """Latent frames of a loop: ``seconds`` to the nearest frame, at least what the U-Net needs."""
    return max(multiple_of(parts.unet), round(seconds / parts.spec.seconds_per_latent))


def over_time(
    parts: Components, denoisers: Sequence[Denoiser], frames: int, *,
    shares: Tensor | None = None, loop: bool = False,
) -> Denoiser:  # fmt: skip
    """One denoiser for ``frames`` latent frames from one per prompt; ``shares`` (P, frames) says which counts when."""
    multiple = multiple_of(parts.unet)
    window = min(window_frames(parts), frames // multiple * multiple if loop else frames)
    if len(denoisers) == 1 and frames <= window and not loop:
        return denoisers[0]
    shares = torch.ones(1, frames) if shares is None else shares
    return windowed(denoisers, shares, window=window, circular=loop)


def tiles(frames: int, window: int, *, loop: bool = False) -> list[int]:
    """First latent frames of the windows that the codec decodes."""
    # a circle that is shorter than a window is gone round as often as the window needs; what overlaps is the same sound
    return starts(frames, min(window, frames), max(1, min(window * 3 // 4, frames // 2)), circular=loop)


@torch.no_grad()
def encode(parts: Components, wave: Tensor) -> Tensor:
    """Wave (N,) to the scaled latent (1, C, T, F) of its posterior's mean, silence added up to whole latent frames."""
    frames = parts.spec.latent_frames(len(wave) / parts.spec.rate, multiple_of(parts.unet))
    size, window = parts.spec.stride * parts.spec.hop, min(frames, window_frames(parts))
    padded = nnf.pad(wave.float(), (0, frames * size - len(wave)))

    def part(begin: int) -> Tensor:
        mel = mel_between(parts, padded, begin * size, (begin + window) * size)
        return encode_mel(parts.vae, mel.to(parts.device, parts.dtype))[0].float()

    begins = starts(frames, window, max(1, window * 3 // 4))
    whole = part(0) if len(begins) == 1 else blend(frames, begins, plateau(window), part, dim=2)
    return whole * parts.vae.config.scaling_factor


def mel_between(parts: Components, wave: Tensor, begin: int, end: int) -> Tensor:
    """The log-mel (1, 1, T, F) of samples [begin, end) as it is within the whole ``wave`` (N,)."""
    hop = parts.spec.hop
    extra = -(-parts.spec.n_fft // hop) * hop
    first, last = max(0, begin - extra), min(len(wave), end + extra)
    mel = log_mel(wave[None, None, first:last], parts.spec)
    return mel[:, :, (begin - first) // hop : (end - first) // hop]


@torch.no_grad()
def decode(
    parts: Components, latent: Tensor, *, seconds: float | None, refine_phase: int, loop: bool = False
) -> Tensor:
    """Scaled latent (B, C, T, F) to waves (B, N) of ``seconds`` (None: all), in windows or in a circle."""
    frames, window, scale = latent.shape[2], window_frames(parts), parts.spec.stride * parts.spec.hop
    seconds = frames * parts.spec.seconds_per_latent if seconds is None else seconds
    if frames <= window and not loop:
        return parts.decode(latent, seconds=seconds, refine_phase=refine_phase)

    def part(begin: int) -> Tensor:
        index = (torch.arange(window, device=latent.device) + begin) % frames
        length = window * scale / parts.spec.rate
        return parts.decode(latent[:, :, index], seconds=length, refine_phase=refine_phase)

    wave = blend(frames, tiles(frames, window, loop=loop), plateau(window * scale), part, dim=-1, scale=scale)
    return wave[:, : parts.spec.samples(seconds)]
