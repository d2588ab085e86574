"""Edits in frequency: what lies above a cutoff, and what is too much in a band.   wave (N,) at ``pipe.spec.rate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.diffusion import edit
from audioldm.errors import AudioLDMError
from audioldm.pipeline import longform
from audioldm.pipeline.canvas import Canvas, Prompt, Run, check_strength, filled
from audioldm.signal.mel import filterbank
from audioldm.signal.splice import attenuate, bandwidth, crossover

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.draws import OnStep

CLEAN = "noise, hiss, hum"
"""What ``denoise`` avoids."""
FULL = 0.95
"""Share of the model's band from which a sound counts as full."""
LARGEST_STEP = 12.0
"""dB by which the new band may be brought to the level of the old one."""
QUANTILE_TO_MEAN = 6 / 8.686
"""6 dB in nepers."""
DEEPEST = 26 / 8.686
"""26 dB in nepers: what spectral subtraction turns a band down by at most; deeper cuts leave musical noise."""


def upscale(
    pipe: AudioLDM,
    wave: Tensor,
    prompt: Prompt = "",
    *,
    cutoff: float | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """Super-resolution: the band above ``cutoff`` Hz (found in the spectrum if None) is made, the band below is kept.

    Latent bins that lie wholly below the cutoff are known (AudioLDM, arXiv:2301.12503 sec. 3.4).   The result's low
    band is the input's own, sample for sample through one crossover; the new band's level continues the old one's.
    """
    cutoff = found_cutoff(pipe, wave) if cutoff is None else cutoff
    if not 0 < cutoff < pipe.spec.fmax:
        raise AudioLDMError(
            f"cutoff={cutoff:g} Hz is not between 0 and the model's {pipe.spec.fmax:g} Hz.", "Choose another."
        )
    run, canvas = Run(pipe, prompt, seed, settings, on_step), Canvas.of(pipe, wave)
    first = bands_below(pipe, cutoff) // pipe.spec.stride
    mask = edit.band_mask(first, canvas.latent.shape[-1]).to(canvas.latent)
    made = canvas.decode(filled(run, canvas.latent, mask), refine_phase=run.refine_phase)
    return crossover(wave.float(), made * continued_gain(pipe, wave, made, cutoff), cutoff, pipe.spec.rate)


def denoise(
    pipe: AudioLDM,
    wave: Tensor,
    prompt: Prompt = "",
    *,
    strength: float = 0.0,
    resynthesise: bool = False,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """Turn noise down: first what is always there, then what the model does not believe in under ``prompt``.

    The steady part (``steady_noise``) is taken off each band.   SDEdit away from the words CLEAN then gives a cleaner
    mel, and where a band of it is quieter than the round trip, the sound is turned down.   Phases stay, nothing is
    added; ``resynthesise`` gives the model's sound instead.   Strength 0 is the first half alone, and
    the default: `audioldm evaluate edits` says whether a model earns more.
    """
    check_strength(strength)
    settings = {**settings, "negative": settings.get("negative") or CLEAN}
    own = mel_of(pipe, wave.float())
    gated = attenuate(wave.float(), without(own, steady_noise(own)), own, pipe.spec)
    run, canvas = Run(pipe, prompt, seed, settings, on_step), Canvas.of(pipe, gated)
    sigmas = edit.tail(run.grid(), edit.start_level(pipe.schedule, strength))
    if len(sigmas) < 2:
        return canvas.roundtrip(refine_phase=run.refine_phase) if resynthesise else gated
    noise = run.noise(canvas.latent)
    latent = run.sample(
        run.denoiser(canvas.frames, sigmas), canvas.latent + sigmas[0] * noise(), sigmas, noise
    )
    clean = canvas.decode(latent, refine_phase=run.refine_phase)
    if resynthesise:
        return clean
    before = canvas.roundtrip(refine_phase=run.refine_phase)
    return attenuate(gated, mel_of(pipe, clean), mel_of(pipe, before), pipe.spec)


def steady_noise(mel: Tensor, *, quiet: float = 0.1) -> Tensor:
    """The log-mel (1, 1, 1, F) of what never stops: the ``quiet`` quantile of each band over time.

    The noise's own power fluctuates: its mean is above that quantile, by 9.8 dB at a tenth for one bin of white noise
    and less for a band of many.   6 dB are added, as minimum statistics does (Martin 2001).
    """
    return mel.quantile(quiet, dim=2, keepdim=True) + QUANTILE_TO_MEAN


def without(mel: Tensor, noise: Tensor) -> Tensor:
    """A log-mel with the power of ``noise`` taken off, at most by DEEPEST.   Boll 1979 (spectral subtraction)."""
    left = ((2 * mel).exp() - (2 * noise).exp()).clamp(min=1e-12).log() / 2
    return torch.maximum(left, mel - DEEPEST)


def mel_of(pipe: AudioLDM, wave: Tensor) -> Tensor:
    """The log-mel (1, 1, T, F) of a wave (N,), with silence up to a whole frame and to the least a frame needs."""
    size = max(pipe.spec.frames(wave.shape[0] / pipe.spec.rate) * pipe.spec.hop, pipe.spec.n_fft)
    return longform.mel_between(pipe, nnf.pad(wave, (0, size - wave.shape[0])), 0, size)


def bands_below(pipe: AudioLDM, hertz: float) -> int:
    """Mel bands that lie wholly below ``hertz``."""
    bank = filterbank(pipe.spec)
    first = round(hertz / pipe.spec.rate * pipe.spec.n_fft)
    return int((bank[:, first:].sum(1) == 0).sum())


def found_cutoff(pipe: AudioLDM, wave: Tensor) -> float:
    """Where the sound's band ends, in Hz.   Raises AudioLDMError where it has all of the model's band."""
    edge = bandwidth(wave, pipe.spec.rate)
    if edge >= FULL * pipe.spec.fmax:
        raise AudioLDMError(
            f"The sound reaches {edge:.0f} Hz: it has the model's whole band.",
            "Give --cutoff in Hz to remake what is above.",
        )
    return edge


def continued_gain(pipe: AudioLDM, wave: Tensor, made: Tensor, cutoff: float) -> float:
    """The factor that brings ``made`` to the level of ``wave`` in the octave below ``cutoff``, at most LARGEST_STEP."""
    last = bands_below(pipe, cutoff)
    first = min(bands_below(pipe, cutoff / 2), last - 1)
    asked, given = (mel_of(pipe, w)[..., first:last].exp().square().mean().sqrt() for w in (wave, made))
    edge = 10 ** (LARGEST_STEP / 20)
    return float((asked / given).clamp(1 / edge, edge))
