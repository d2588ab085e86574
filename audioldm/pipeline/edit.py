"""Edits of a sound with a text-to-sound model: ``wave`` (N,) at the model's rate in, a wave out, any length.

Every edit takes ``EditOptions``: a seed, a guidance configuration, and the settings of ``Sampling``.   What an edit
keeps is the input after the VAE, the vocoder and the phase refinement (its round trip); ``sounds.splice_into`` puts the
untouched original back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.components import Components
from audioldm.diffusion import edit
from audioldm.diffusion.prediction import Denoiser
from audioldm.errors import AudioLDMError
from audioldm.pipeline import longform
from audioldm.pipeline.canvas import (
    FADE,
    Canvas,
    EditOptions,
    Prompt,
    Regions,
    check_regions,
    check_strength,
    conditions_of,
    filled,
    samples_of,
)
from audioldm.pipeline.conditions import sound_condition
from audioldm.signal.mel import filterbank
from audioldm.signal.splice import attenuate, bandwidth, crossover, splice

NOISE_PROMPT = "noise, hiss, hum"
"""What ``denoise`` steers away from."""
FULL = 0.95
"""Share of the model's band from which a sound counts as full."""
LARGEST_STEP = 12.0
"""dB by which the new band may be brought to the level of the old one."""
QUANTILE_TO_MEAN = 6 / 8.686
"""6 dB in nepers."""
DEEPEST = 26 / 8.686
"""26 dB in nepers: what spectral subtraction turns a band down by at most; deeper cuts leave musical noise."""


def transfer(
    parts: Components,
    wave: Tensor,
    prompt: Prompt,
    *,
    strength: float = 0.5,
    invert: bool = False,
    source: str = "",
    regions: Regions | None = None,
    **options: Unpack[EditOptions],
) -> Tensor:
    """Make ``wave`` sound like ``prompt``: add noise up to ``strength``, denoise under the prompt.   SDEdit, 2022.

    Strength 0 is the round trip, 1 is generation.   ``invert`` finds the sound's own noise under ``source`` by DDIM
    (Song et al. 2021) instead of adding new noise, and keeps more of it; strength 1 then still knows the sound.
    ``regions`` leaves the rest as it is.
    """
    check_strength(strength)
    canvas = Canvas.of(parts, wave)
    run = canvas.run(**options)
    conditions, rounds = conditions_of(run, prompt), run.settings.refine_phase
    if strength == 1 and not invert and regions is None:
        return canvas.raw(run.sample(run.denoiser(conditions), run.start()), refine_phase=rounds)
    sigmas = run.tail(strength)
    denoise = run.denoiser(conditions, sigmas=sigmas)
    if invert:
        x = run.invert(canvas.latent, conditions_of(run, source).rows[0], sigmas)
    else:
        x = run.noised(canvas.latent, sigmas)
    if regions is None:
        return canvas.decode(run.sample(denoise, x, sigmas), refine_phase=rounds)
    check_regions(regions, canvas.seconds)
    inside = edit.inpaint(denoise, canvas.latent, canvas.mask(regions))
    return canvas.spliced(run.sample(inside, x, sigmas), regions, refine_phase=rounds)


def inpaint(
    parts: Components,
    wave: Tensor,
    prompt: Prompt,
    *,
    regions: Regions,
    rounds: int = 1,
    **options: Unpack[EditOptions],
) -> Tensor:
    """Make ``regions`` anew so that they fit the rest, which comes back as its round trip.   RePaint, 2022.

    ``rounds`` > 1 takes every step so often (calls of the net grow as much).   Regions that are the whole sound give
    what generation gives.
    """
    canvas = Canvas.of(parts, wave)
    run = canvas.run(**options)
    check_regions(regions, canvas.seconds)
    mask = canvas.mask(regions)
    latent = filled(run, conditions_of(run, prompt), canvas.latent, mask, rounds=rounds)
    if bool((mask == 1).all()):
        return canvas.raw(latent, refine_phase=run.settings.refine_phase)
    return canvas.spliced(latent, regions, refine_phase=run.settings.refine_phase)


def outpaint(
    parts: Components,
    wave: Tensor,
    prompt: Prompt,
    *,
    before: float = 0.0,
    after: float = 0.0,
    rounds: int = 1,
    **options: Unpack[EditOptions],
) -> Tensor:
    """Let the sound begin ``before`` seconds earlier and go on ``after`` seconds longer.

    The encoder is given the sound mirrored at its ends instead of a sudden silence; the mirror is then made anew.
    """
    if min(before, after) < 0 or before + after == 0:
        raise AudioLDMError(f"before={before:g} and after={after:g} add nothing.", "Use more than 0 seconds.")
    rate, head, end = parts.spec.rate, parts.spec.samples(before), parts.spec.samples(after)
    canvas = Canvas.of(parts, mirrored(wave, head, end))
    run = canvas.run(**options)
    new = [(0.0, before), (before + wave.shape[0] / rate, (head + wave.shape[0] + end) / rate)]
    regions = [region for region in new if region[1] > region[0]]
    latent = filled(run, conditions_of(run, prompt), canvas.latent, canvas.mask(regions), rounds=rounds)
    refine_phase, fade = run.settings.refine_phase, parts.spec.samples(FADE)
    base = nnf.pad(Canvas.of(parts, wave).roundtrip(refine_phase=refine_phase), (head, end))
    edited = canvas.decode(latent, refine_phase=refine_phase)
    return splice(base, edited, samples_of(parts, regions), fade=fade, power=False)


def vary(
    parts: Components,
    wave: Tensor,
    prompt: Prompt = "",
    *,
    strength: float = 0.6,
    regions: Regions | None = None,
    **options: Unpack[EditOptions],
) -> Tensor:
    """Another take of the same sound: SDEdit under the sound's own CLAP embedding, or under ``prompt``."""
    prompt = sound_condition(parts, wave) if prompt == "" else prompt
    return transfer(parts, wave, prompt, strength=strength, regions=regions, **options)


def morph(
    parts: Components,
    first: Tensor,
    second: Tensor,
    prompts: tuple[Prompt, Prompt] = ("", ""),
    *,
    at: float | None = 0.5,
    strength: float = 0.6,
    **options: Unpack[EditOptions],
) -> Tensor:
    """The sound at ``at`` (0 first, 1 second) between two, as long as the shorter; None goes from one to the other.

    Both are inverted to the level of ``strength`` under their own prompt (or CLAP embedding), mixed there on the great
    arc, and denoised under both prompts, each counting by its share (the prompt path).
    """
    check_strength(strength)
    if at is not None and not 0 <= at <= 1:
        raise AudioLDMError(f"at={at:g} is not in 0 to 1.", "0 is the first sound, 1 the second.")
    length = min(first.shape[-1], second.shape[-1])
    canvases = [Canvas.of(parts, wave[:length]) for wave in (first, second)]
    run = canvases[0].run(**options)
    sigmas, frames = run.tail(strength), canvases[0].frames
    path = torch.linspace(0, 1, frames) if at is None else torch.full((frames,), at)
    noisy, denoisers = list[Tensor](), list[Denoiser]()
    for canvas, prompt, wave in zip(canvases, prompts, (first, second), strict=True):
        condition = conditions_of(run, prompt, wave[:length])
        noisy.append(run.invert(canvas.latent, condition.rows[0], sigmas))
        denoisers.append(run.guided(condition.rows[0], condition.empty, sigmas))
    both = longform.over_time(parts, denoisers, frames, shares=torch.stack([1 - path, path]))
    x = edit.slerp(noisy[0], noisy[1], path[:, None].to(noisy[0]))
    raw = canvases[0].raw(run.sample(both, x, sigmas), refine_phase=run.settings.refine_phase)
    share = nnf.interpolate(path[None, None], length, mode="linear", align_corners=True)[0, 0]
    return raw / (canvases[0].gain ** (1 - share) * canvases[1].gain ** share)


def mix(
    parts: Components,
    waves: Sequence[Tensor],
    prompt: Prompt = "",
    *,
    gains: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None,
    strength: float = 0.0,
    **options: Unpack[EditOptions],
) -> Tensor:
    """The sum of sounds, each at its gain (dB) and offset (seconds); ``strength`` above 0 renders it as one scene."""
    gains, offsets = gains or [0.0] * len(waves), offsets or [0.0] * len(waves)
    if not len(waves) == len(gains) == len(offsets):
        raise AudioLDMError(
            f"{len(waves)} sounds, {len(gains)} gains and {len(offsets)} offsets.",
            "Give one of each per sound.",
        )
    begins = [parts.spec.samples(offset) for offset in offsets]
    total = torch.zeros(max(begin + wave.shape[0] for begin, wave in zip(begins, waves, strict=True)))
    for begin, wave, gain in zip(begins, waves, gains, strict=True):
        total[begin : begin + wave.shape[0]] += wave * 10 ** (gain / 20)
    return total if strength == 0 else vary(parts, total, prompt, strength=strength, **options)


def upscale(
    parts: Components,
    wave: Tensor,
    prompt: Prompt = "",
    *,
    cutoff: float | None = None,
    **options: Unpack[EditOptions],
) -> Tensor:
    """Super-resolution: the band above ``cutoff`` Hz (read off the spectrum if None) is made, the band below is kept.

    Latent bins that lie wholly below the cutoff are known (AudioLDM, arXiv:2301.12503 sec. 3.4).   The result's low
    band is the input's own, sample for sample through one crossover; the new band's level continues the old one's.
    """
    cutoff = band_edge(parts, wave) if cutoff is None else cutoff
    if not 0 < cutoff < parts.spec.fmax:
        raise AudioLDMError(
            f"cutoff={cutoff:g} Hz is not between 0 and the model's {parts.spec.fmax:g} Hz.",
            "Choose another.",
        )
    canvas = Canvas.of(parts, wave)
    run = canvas.run(**options)
    first = bands_below(parts, cutoff) // parts.spec.stride
    mask = edit.band_mask(first, canvas.latent.shape[-1]).to(canvas.latent)
    latent = filled(run, conditions_of(run, prompt), canvas.latent, mask)
    high = canvas.decode(latent, refine_phase=run.settings.refine_phase)
    return crossover(wave.float(), high * continued_gain(parts, wave, high, cutoff), cutoff, parts.spec.rate)


def denoise(
    parts: Components,
    wave: Tensor,
    prompt: Prompt = "",
    *,
    strength: float = 0.0,
    resynthesise: bool = False,
    **options: Unpack[EditOptions],
) -> Tensor:
    """Turn noise down: first what is always there, then what the model does not believe in under ``prompt``.

    The steady part (``steady_noise``) is taken off each band.   SDEdit away from NOISE_PROMPT then gives a cleaner mel,
    and where a band of it is quieter than the round trip, the sound is turned down.   Phases stay, nothing is added;
    ``resynthesise`` gives the model's sound instead.   Strength 0 is the first half alone, and the default:
    `recipes.embedded.release_checks.edits` says whether a model earns more.
    """
    check_strength(strength)
    guidance = options.get("guidance_config")
    if guidance is None or guidance.weak is None:  # which steers away from the weak model instead
        options["negative"] = options.get("negative") or NOISE_PROMPT
    mel = mel_of(parts, wave.float())
    gated = attenuate(wave.float(), without(mel, steady_noise(mel)), mel, parts.spec)
    canvas = Canvas.of(parts, gated)
    run = canvas.run(**options)
    refine_phase = run.settings.refine_phase
    sigmas = run.tail(strength)
    if len(sigmas) < 2:
        return canvas.roundtrip(refine_phase=refine_phase) if resynthesise else gated
    denoiser = run.denoiser(conditions_of(run, prompt), sigmas=sigmas)
    latent = run.sample(denoiser, run.noised(canvas.latent, sigmas), sigmas)
    clean = canvas.decode(latent, refine_phase=refine_phase)
    if resynthesise:
        return clean
    before = canvas.roundtrip(refine_phase=refine_phase)
    return attenuate(gated, mel_of(parts, clean), mel_of(parts, before), parts.spec)


def steady_noise(mel: Tensor, *, quiet: float = 0.1) -> Tensor:
    """The log-mel (1, 1, 1, F) of what never stops: the ``quiet`` quantile of each band over time.

    The noise's own power fluctuates: its mean is above that quantile, by 9.8 dB at a tenth for one bin of white noise
    and less for a band of many.   6 dB are added, as minimum statistics does (Martin 2001).
    """
    return mel.quantile(quiet, dim=2, keepdim=True) + QUANTILE_TO_MEAN


def without(mel: Tensor, noise: Tensor) -> Tensor:
    """A log-mel with the power of ``noise`` taken off, at most by DEEPEST.   Boll 1979 (spectral subtraction)."""
    rest = ((2 * mel).exp() - (2 * noise).exp()).clamp(min=1e-12).log() / 2
    return torch.maximum(rest, mel - DEEPEST)


def mel_of(parts: Components, wave: Tensor) -> Tensor:
    """The log-mel (1, 1, T, F) of a wave (N,), with silence up to a whole frame and to the least a frame needs."""
    size = max(parts.spec.frames(wave.shape[0] / parts.spec.rate) * parts.spec.hop, parts.spec.n_fft)
    return longform.mel_between(parts, nnf.pad(wave, (0, size - wave.shape[0])), 0, size)


def bands_below(parts: Components, hertz: float) -> int:
    """Mel bands that lie wholly below ``hertz``."""
    first = round(hertz / parts.spec.rate * parts.spec.n_fft)
    return int((filterbank(parts.spec)[:, first:].sum(1) == 0).sum())


def band_edge(parts: Components, wave: Tensor) -> float:
    """Where the sound's band ends, in Hz.   Raises AudioLDMError where it has all of the model's band, or none."""
    edge = bandwidth(wave, parts.spec.rate)
    if edge <= 0:
        raise AudioLDMError("The sound is silent: it has no band to continue.", "Give one that can be heard.")
    if edge >= FULL * parts.spec.fmax:
        raise AudioLDMError(
            f"The sound reaches {edge:.0f} Hz: it has the model's whole band.",
            "Give --cutoff in Hz to remake what is above.",
        )
    return edge


def continued_gain(parts: Components, wave: Tensor, high: Tensor, cutoff: float) -> float:
    """The factor that brings ``high`` to the level of ``wave`` in the octave below ``cutoff``, at most LARGEST_STEP."""
    last = bands_below(parts, cutoff)
    first = min(bands_below(parts, cutoff / 2), last - 1)
    target, level = (mel_of(parts, w)[..., first:last].exp().square().mean().sqrt() for w in (wave, high))
    edge = 10 ** (LARGEST_STEP / 20)
    return float((target / level).clamp(1 / edge, edge))


def mirrored(wave: Tensor, head: int, end: int) -> Tensor:
    """``wave`` (N,) with ``head`` and ``end`` samples of its mirror images before and after it."""
    place = torch.arange(-head, wave.shape[0] + end) % (2 * wave.shape[0])
    return wave[torch.where(place < wave.shape[0], place, 2 * wave.shape[0] - 1 - place)]
