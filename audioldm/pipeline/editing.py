"""Editing sound with a text-to-sound model: ``wave`` (N,) at ``pipe.spec.rate`` in, a wave out, any length.

Every edit takes ``seed``, ``on_step`` and the settings of ``AudioLDM.__call__`` (steps, sampler, grid, guidance,
negative, refine_phase); what is None comes from the model.   What stays is the input after the VAE, the vocoder and
the phase refinement (its round trip); ``sounds.splice_into`` puts the untouched original back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.diffusion import edit
from audioldm.errors import AudioLDMError
from audioldm.pipeline import longform
from audioldm.pipeline.bands import denoise, upscale
from audioldm.pipeline.canvas import (
    Canvas,
    Prompt,
    Run,
    check_regions,
    check_strength,
    filled,
    own_embedding,
)
from audioldm.signal.splice import splice

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.draws import OnStep

__all__ = [
    "continue_",
    "denoise",
    "inpaint",
    "mix",
    "morph",
    "outpaint",
    "transfer",
    "upscale",
    "vary",
]

Regions = Sequence[tuple[float, float]]
"""(from, to) in seconds."""
FADE = 0.03
"""Seconds of cross-fade outside a region."""


def transfer(
    pipe: AudioLDM,
    wave: Tensor,
    prompt: Prompt,
    *,
    strength: float = 0.5,
    invert: bool = False,
    source: str = "",
    regions: Regions | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """Make ``wave`` sound like ``prompt``: add noise up to ``strength``, denoise under the prompt.   SDEdit, 2022.

    Strength 0 is the round trip, 1 is generation.   ``invert`` finds the sound's own noise under ``source`` by DDIM
    (Song et al. 2021) instead of adding new noise, and keeps more of it; strength 1 then still knows the sound.
    ``regions`` leaves the rest as it is.
    """
    check_strength(strength)
    run, canvas = Run(pipe, prompt, seed, settings, on_step), Canvas.of(pipe, wave)
    if strength == 1 and not invert and regions is None:
        return canvas.raw(run.generate(canvas.latent), refine_phase=run.refine_phase)
    sigmas = edit.tail(run.grid(), edit.start_level(pipe.schedule, strength))
    noise, told = run.noise(canvas.latent), run.denoiser(canvas.frames, sigmas)
    if len(sigmas) < 2:
        x = canvas.latent
    elif invert:
        x = run.invert(canvas.latent, sigmas, source)
    else:
        x = canvas.latent + sigmas[0] * noise()
    if regions is None:
        return canvas.decode(run.sample(told, x, sigmas, noise), refine_phase=run.refine_phase)
    check_regions(regions, canvas.seconds)
    mask = canvas.mask(regions)
    latent = run.sample(edit.inpaint(told, canvas.latent, mask), x, sigmas, noise)
    return joined(canvas, latent, regions, refine_phase=run.refine_phase)


def inpaint(
    pipe: AudioLDM,
    wave: Tensor,
    prompt: Prompt,
    *,
    regions: Regions,
    rounds: int = 1,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """Make ``regions`` anew so that they fit the rest, which comes back as its round trip.   RePaint, 2022.

    ``rounds`` > 1 takes every step so often (calls of the net grow as much).   Regions that are the whole sound give
    what generation gives.
    """
    run, canvas = Run(pipe, prompt, seed, settings, on_step), Canvas.of(pipe, wave)
    check_regions(regions, canvas.seconds)
    mask = canvas.mask(regions)
    latent = filled(run, canvas.latent, mask, rounds=rounds)
    if bool((mask == 1).all()):
        return canvas.raw(latent, refine_phase=run.refine_phase)
    return joined(canvas, latent, regions, refine_phase=run.refine_phase)


def outpaint(
    pipe: AudioLDM,
    wave: Tensor,
    prompt: Prompt,
    *,
    before: float = 0.0,
    after: float = 0.0,
    rounds: int = 1,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """Let the sound begin ``before`` seconds earlier and go on ``after`` seconds longer.

    The encoder hears the sound mirrored at its ends instead of a sudden silence; the mirror is then made anew.
    """
    if min(before, after) < 0 or before + after == 0:
        raise AudioLDMError(f"before={before:g} and after={after:g} add nothing.", "Use more than 0 seconds.")
    head, end = pipe.spec.samples(before), pipe.spec.samples(after)
    total = head + wave.shape[0] + end
    run = Run(pipe, prompt, seed, settings, on_step)
    canvas = Canvas.of(pipe, mirrored(wave, head, end))
    new = [(0.0, before), (before + wave.shape[0] / pipe.spec.rate, total / pipe.spec.rate)]
    regions = [region for region in new if region[1] > region[0]]
    latent = filled(run, canvas.latent, canvas.mask(regions), rounds=rounds)
    base = nnf.pad(Canvas.of(pipe, wave).roundtrip(refine_phase=run.refine_phase), (head, end))
    return splice(base, canvas.decode(latent, refine_phase=run.refine_phase), samples_of(pipe, regions),
                  fade=pipe.spec.samples(FADE), power=False)  # fmt: skip


continue_ = outpaint
"""``audioldm edit continue``: outpaint with ``after`` only."""


def vary(
    pipe: AudioLDM,
    wave: Tensor,
    prompt: Prompt = "",
    *,
    strength: float = 0.6,
    regions: Regions | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """Another take of the same sound: SDEdit under the sound's own CLAP embedding, or under ``prompt``."""
    told = own_embedding(pipe, wave) if prompt == "" else prompt
    return transfer(
        pipe, wave, told, strength=strength, regions=regions, seed=seed, on_step=on_step, **settings
    )


def morph(
    pipe: AudioLDM,
    first: Tensor,
    second: Tensor,
    prompts: tuple[Prompt, Prompt] = ("", ""),
    *,
    at: float | None = 0.5,
    strength: float = 0.6,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """The sound at ``at`` (0 first, 1 second) between two, as long as the shorter; None goes from one to the other.

    Both are inverted to the level of ``strength`` under their own prompt (or CLAP embedding), mixed there on the great
    arc, and denoised under both prompts, each counting by its share (the prompt path).
    """
    check_strength(strength)
    if at is not None and not 0 <= at <= 1:
        raise AudioLDMError(f"at={at:g} is not in 0 to 1.", "0 is the first sound, 1 the second.")
    length = min(first.shape[-1], second.shape[-1])
    waves = [wave[:length] for wave in (first, second)]
    told = [own_embedding(pipe, w) if p == "" else p for w, p in zip(waves, prompts, strict=True)]
    run = Run(pipe, told[0], seed, settings, on_step)
    canvases = [Canvas.of(pipe, wave) for wave in waves]
    sigmas = edit.tail(run.grid(), edit.start_level(pipe.schedule, strength))
    frames = canvases[0].frames
    path = torch.linspace(0, 1, frames) if at is None else torch.full((frames,), at)
    noisy = [canvas.latent for canvas in canvases]
    if len(sigmas) > 1:
        noisy = [run.invert(canvas.latent, sigmas, p) for canvas, p in zip(canvases, told, strict=True)]
    parts = [run.guided(prompt, sigmas) for prompt in told]
    both = longform.over_time(pipe, parts, frames, shares=torch.stack([1 - path, path]))
    x = edit.slerp(noisy[0], noisy[1], path[:, None].to(noisy[0]))
    latent = run.sample(both, x, sigmas, run.noise(x))
    raw = canvases[0].raw(latent, refine_phase=run.refine_phase)
    share = nnf.interpolate(path[None, None], length, mode="linear", align_corners=True)[0, 0]
    return raw / (canvases[0].gain ** (1 - share) * canvases[1].gain ** share)


def mix(
    pipe: AudioLDM,
    waves: Sequence[Tensor],
    prompt: Prompt = "",
    *,
    gains: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    strength: float = 0.0,
    seed: int = 0,
    on_step: OnStep | None = None,
    **settings: Any,
) -> Tensor:
    """The sum of sounds, each at its gain (dB) and offset (seconds); ``strength`` above 0 renders it as one scene."""
    gains, offsets = gains or [0.0] * len(waves), offsets or [0.0] * len(waves)
    if not len(waves) == len(gains) == len(offsets):
        raise AudioLDMError(
            f"{len(waves)} sounds, {len(gains)} gains and {len(offsets)} offsets.",
            "Give one of each per sound.",
        )
    begins = [pipe.spec.samples(offset) for offset in offsets]
    total = torch.zeros(max(begin + wave.shape[0] for begin, wave in zip(begins, waves, strict=True)))
    for begin, wave, gain in zip(begins, waves, gains, strict=True):
        total[begin : begin + wave.shape[0]] += wave * 10 ** (gain / 20)
    if strength == 0:
        return total
    told = own_embedding(pipe, total) if prompt == "" else prompt
    return transfer(pipe, total, told, strength=strength, seed=seed, on_step=on_step, **settings)


def samples_of(pipe: AudioLDM, regions: Regions) -> list[tuple[int, int]]:
    """Regions in samples of the model's rate."""
    return [(pipe.spec.samples(begin), pipe.spec.samples(end)) for begin, end in regions]


def joined(canvas: Canvas, latent: Tensor, regions: Regions, *, refine_phase: int) -> Tensor:
    """The edited sound inside the regions, the round trip outside (the decoder's attention moves it a little)."""
    edited, base = (
        canvas.decode(latent, refine_phase=refine_phase),
        canvas.roundtrip(refine_phase=refine_phase),
    )
    fade = canvas.pipe.spec.samples(FADE)
    return splice(base, edited, samples_of(canvas.pipe, regions), fade=fade, power=False)


def mirrored(wave: Tensor, head: int, end: int) -> Tensor:
    """``wave`` (N,) with ``head`` and ``end`` samples of its mirror images before and after it."""
    place = torch.arange(-head, wave.shape[0] + end) % (2 * wave.shape[0])
    return wave[torch.where(place < wave.shape[0], place, 2 * wave.shape[0] - 1 - place)]
