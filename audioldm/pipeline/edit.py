"""Edits of a sound with a text-to-sound model: ``wave`` (N,) at the model's rate in, a wave out, any length.

Its options are a seed and those of ``run.Run``.   What an edit keeps is the input after VAE, vocoder, phase refinement
(its round trip); ``sounds.splice_into`` puts the original back.   C channels, T latent frames, F bins, N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.components import Components
from audioldm.diffusion import edit
from audioldm.errors import AudioLDMError
from audioldm.pipeline import longform
from audioldm.pipeline.conditions import Conditions, encode, sound_condition
from audioldm.pipeline.run import Run
from audioldm.pipeline.spans import Span
from audioldm.ranges import SHARE, Between
from audioldm.signal.mel import filterbank, log_mel
from audioldm.signal.splice import attenuate, bandwidth, crossover, splice

PEAK, MAX_GAIN = 0.5, 20.0  # the level that the models learned at (``signal.level.normalise_peak``)
FADE = 0.03  # seconds of cross-fade outside a region
NOISE_PROMPT = "noise, hiss, hum"  # what ``denoise`` steers away from
FULL = 0.95  # share of the model's band from which a sound counts as full
LARGEST_STEP = 10 ** (12 / 20)  # by which the new band may be brought to the level of the old one: 12 dB
QUANTILE_TO_MEAN = 6 / 8.686  # 6 dB in nepers
DEEPEST = 26 / 8.686  # 26 dB: what a band is turned down by at most; deeper cuts leave musical noise

Prompt = str | Condition | Sequence[Span]  # words, a condition of one row, or words over time
Regions = Sequence[tuple[float, float]]  # (from, to) in seconds


@dataclass(frozen=True)
class Canvas:
    """A sound (N,) at the model's rate, brought to the level that the model knows: its latent (1, C, T, F), its run."""

    run: Run
    latent: Tensor
    samples: int
    gain: float
    mean: float

    @staticmethod
    def of(
        parts: Components, wave: Tensor, run: Run | None = None, *, seed: int = 0, **options: Any
    ) -> "Canvas":
        """Encode ``wave`` (N,); the seed's noise is that of generation.   Raises AudioLDMError, ValueError."""
        if wave.ndim != 1:
            raise ValueError(f"an edit takes one mono wave (N,), not {tuple(wave.shape)}.")
        if wave.numel() == 0 or not bool(wave.isfinite().all()):
            raise AudioLDMError("The sound to edit is empty or not finite.", "Give another file.")
        mean = float(wave.mean())
        gain = PEAK / max(float((wave - mean).abs().max()), PEAK / MAX_GAIN)
        latent = longform.encode(parts, (wave - mean) * gain)
        run = run or Run.of(parts, [seed], shape=latent.shape[1:], **options)
        return Canvas(run, latent, wave.shape[0], gain, mean)

    def conditions(self, prompt: Prompt) -> Conditions:
        words, spans = (prompt, None) if isinstance(prompt, str | Condition) else ("", prompt)
        return encode(self.run.parts, [words], self.run.settings.negative, spans, frames=self.latent.shape[2])

    def mask(self, regions: Regions) -> Tensor:
        """(T, 1), 1 in ``regions``; frames beyond the sound's end are as its last one.   Raises AudioLDMError."""
        spec, seconds = self.run.parts.spec, self.samples / self.run.parts.spec.rate
        check_regions(regions, seconds)
        mask = edit.time_mask(regions, self.latent.shape[2], spec.seconds_per_latent)
        last = spec.latent_frames(seconds)
        mask[last:] = mask[last - 1]
        return mask.to(self.latent)

    def sampled(
        self, prompt: Prompt, x: Tensor, sigmas: Tensor | None = None,
        mask: Tensor | float = 1.0, rounds: int = 1,
    ) -> Tensor:  # fmt: skip
        """The latent that x at the first of ``sigmas`` becomes under ``prompt``, known where ``mask`` is 0."""
        denoise = self.run.denoiser(self.conditions(prompt), sigmas=sigmas)
        return self.run.sample(edit.inpaint(denoise, self.latent, mask), x, sigmas, rounds)

    def filled(self, prompt: Prompt, mask: Tensor | float = 1.0, rounds: int = 1) -> Tensor:
        """The latent with its masked part sampled anew; a mask of all ones is generation."""
        x = (1 - mask) * self.latent + float(self.run.sigmas[0]) * self.run.noise()
        return mask * self.sampled(prompt, x, None, mask, rounds) + (1 - mask) * self.latent

    def raw(self, latent: Tensor) -> Tensor:
        """A latent to (N,) as the model gives it."""
        seconds, rounds = self.samples / self.run.parts.spec.rate, self.run.settings.refine_phase
        return longform.decode(self.run.parts, latent, seconds=seconds, refine_phase=rounds)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """A latent to (N,) at the level of the sound that came in."""
        return self.raw(latent) / self.gain + self.mean

    def roundtrip(self) -> Tensor:
        """What is left of the sound (N,) after the codec alone."""
        return self.decode(self.latent)

    def spliced(self, latent: Tensor, regions: Regions, base: Tensor | None = None) -> Tensor:
        """``latent`` decoded inside the regions; outside ``base``, or the round trip (attention moves it a little)."""
        edited, spec = self.decode(latent), self.run.parts.spec
        places = [(spec.samples(begin), spec.samples(end)) for begin, end in regions]
        base = self.roundtrip() if base is None else base
        return splice(base, edited, places, fade=spec.samples(FADE), power=False)


def check_regions(regions: Regions, seconds: float) -> None:
    """Raise AudioLDMError for regions that are empty or lie outside the sound."""
    if not regions:
        raise AudioLDMError("There is no region to make anew.", "Give --from and --to in seconds.")
    for begin, end in regions:
        if not 0 <= begin < end:
            raise AudioLDMError(f"region {begin:g}-{end:g} s is empty.", "Give --from below --to.")
        if begin >= seconds:
            raise AudioLDMError(f"region {begin:g}-{end:g} s begins after the end.", "Use edit continue.")


def transfer(
    parts: Components, wave: Tensor, prompt: Prompt, *, strength: float = 0.5, invert: bool = False, source: str = "",
    regions: Regions | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """Make ``wave`` sound like ``prompt``: add noise up to ``strength``, denoise under the prompt.   SDEdit, 2022.

    Strength 0 is the round trip, 1 generation.   ``invert`` begins at the sound's own noise under ``source`` (DDIM).
    """
    SHARE.check("strength", strength)
    canvas = Canvas.of(parts, wave, **options)
    run = canvas.run
    if strength == 1 and not invert and regions is None:
        return canvas.raw(canvas.filled(prompt))
    sigmas = run.tail(strength)
    if invert:
        x = run.invert(canvas.latent, canvas.conditions(source).rows[0], sigmas)
    else:
        x = run.noised(canvas.latent, sigmas)
    latent = canvas.sampled(prompt, x, sigmas, 1.0 if regions is None else canvas.mask(regions))
    return canvas.decode(latent) if regions is None else canvas.spliced(latent, regions)


def inpaint(
    parts: Components, wave: Tensor, prompt: Prompt, *, regions: Regions, rounds: int = 1, **options: Any
) -> Tensor:
    """Make ``regions`` anew so that they fit the rest, every step ``rounds`` times.   Lugmayr et al. 2022 (RePaint)."""
    canvas = Canvas.of(parts, wave, **options)
    mask = canvas.mask(regions)
    latent = canvas.filled(prompt, mask, rounds)
    # the whole sound made anew is generation
    return canvas.raw(latent) if bool((mask == 1).all()) else canvas.spliced(latent, regions)


def outpaint(
    parts: Components, wave: Tensor, prompt: Prompt, *,
    before: float = 0.0, after: float = 0.0, rounds: int = 1, **options: Any,
) -> Tensor:  # fmt: skip
    """Let the sound begin ``before`` seconds earlier and go on ``after`` seconds longer."""
    if min(before, after) < 0 or before + after == 0:
        raise AudioLDMError(f"before={before:g} and after={after:g} add nothing.", "Use more than 0 seconds.")
    size, head, end = len(wave), parts.spec.samples(before), parts.spec.samples(after)
    # the encoder is given the sound mirrored at its ends instead of a sudden silence; the mirror is then made anew
    mirrored = torch.cat([wave, wave.flip(0)])[torch.arange(-head, size + end) % (2 * size)]
    canvas, rate = Canvas.of(parts, mirrored, **options), parts.spec.rate
    new = [(0.0, before), (before + size / rate, (head + size + end) / rate)]
    regions = [region for region in new if region[1] > region[0]]
    latent = canvas.filled(prompt, canvas.mask(regions), rounds)
    base = nnf.pad(Canvas.of(parts, wave, canvas.run).roundtrip(), (head, end))
    return canvas.spliced(latent, regions, base)


def vary(
    parts: Components, wave: Tensor, prompt: Prompt = "", *,
    strength: float = 0.6, regions: Regions | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """Another take of the same sound: SDEdit under the sound's own CLAP embedding, or under ``prompt``."""
    prompt = sound_condition(parts, wave) if prompt == "" else prompt
    return transfer(parts, wave, prompt, strength=strength, regions=regions, **options)


def morph(
    parts: Components, first: Tensor, second: Tensor, prompts: tuple[Prompt, Prompt] = ("", ""), *,
    at: float | None = 0.5, strength: float = 0.6, **options: Any,
) -> Tensor:  # fmt: skip
    """The sound at ``at`` (0 first, 1 second) between two, as long as the shorter; None goes from one to the other."""
    SHARE.check("strength", strength)
    SHARE.check("at", 0.0 if at is None else at)
    length = min(first.shape[-1], second.shape[-1])
    canvas = Canvas.of(parts, first[:length], **options)
    other, run, frames = Canvas.of(parts, second[:length], canvas.run), canvas.run, canvas.latent.shape[2]
    # both are inverted under their own prompt (or CLAP embedding), mixed on the great arc, and denoised under both
    sigmas = run.tail(strength)
    path = torch.linspace(0, 1, frames) if at is None else torch.full((frames,), at)
    pairs = zip((first[:length], second[:length]), prompts, strict=True)
    texts = [canvas.conditions(sound_condition(parts, w) if prompt == "" else prompt) for w, prompt in pairs]
    rows = tuple(conditions.rows[0] for conditions in texts)
    noisy = run.invert(canvas.latent, rows[0], sigmas), run.invert(other.latent, rows[1], sigmas)
    both = run.denoiser(Conditions(rows, texts[0].empty, torch.stack([1 - path, path])), sigmas=sigmas)
    x = edit.slerp(*noisy, path[:, None].to(noisy[0]))
    share = nnf.interpolate(path[None, None], length, mode="linear", align_corners=True)[0, 0]
    return canvas.raw(run.sample(both, x, sigmas)) / (canvas.gain ** (1 - share) * other.gain**share)


def mix(
    parts: Components, waves: Sequence[Tensor], prompt: Prompt = "", *, gains: Sequence[float] | None = None,
    offsets: Sequence[float] | None = None, strength: float = 0.0, **options: Any,
) -> Tensor:  # fmt: skip
    """The sum of sounds, each at its gain (dB) and offset (seconds); ``strength`` above 0 renders it as one scene."""
    gains, offsets = gains or [0.0] * len(waves), offsets or [0.0] * len(waves)
    if not len(waves) == len(gains) == len(offsets):
        counts = f"{len(waves)} sounds, {len(gains)} gains and {len(offsets)} offsets."
        raise AudioLDMError(counts, "Give one of each per sound.")
    begins = [parts.spec.samples(offset) for offset in offsets]
    total = torch.zeros(max(begin + wave.shape[0] for begin, wave in zip(begins, waves, strict=True)))
    for begin, wave, gain in zip(begins, waves, gains, strict=True):
        total[begin : begin + wave.shape[0]] += wave * 10 ** (gain / 20)
    return total if strength == 0 else vary(parts, total, prompt, strength=strength, **options)


def upscale(
    parts: Components, wave: Tensor, prompt: Prompt = "", *, cutoff: float | None = None, **options: Any
) -> Tensor:
    """Super-resolution: the band above ``cutoff`` Hz (read off the spectrum if None) is made, the band below is kept.

    Latent bins wholly below the cutoff are known (AudioLDM, arXiv:2301.12503 sec. 3.4); the result's low band is the
    input's own through one crossover, and the new band's level continues the old one's.
    """
    spec = parts.spec
    if cutoff is None:
        cutoff = bandwidth(wave, spec.rate)
        if cutoff <= 0:
            raise AudioLDMError("The sound is silent: it has no band to continue.", "Give another file.")
        if cutoff >= FULL * spec.fmax:
            hint = "Give --cutoff in Hz to remake what is above."
            raise AudioLDMError(f"The sound reaches {cutoff:.0f} Hz: it has the model's whole band.", hint)
    Between(0, spec.fmax, above=True).check("cutoff", cutoff)
    canvas = Canvas.of(parts, wave, **options)
    # the mel bands that lie wholly below
    bins = (round(hertz / spec.rate * spec.n_fft) for hertz in (cutoff, cutoff / 2))
    last, octave = (int((filterbank(spec)[:, edge:].sum(1) == 0).sum()) for edge in bins)
    mask = (torch.arange(canvas.latent.shape[-1]) >= last // spec.stride).to(canvas.latent)
    high = canvas.decode(canvas.filled(prompt, mask))
    # bring the new band to the level of the old one in the octave below the cutoff
    bands = slice(min(octave, last - 1), last)
    target, level = (mel_of(parts, w)[..., bands].exp().square().mean().sqrt() for w in (wave, high))
    gain = float((target / level).clamp(1 / LARGEST_STEP, LARGEST_STEP))
    return crossover(wave.float(), high * gain, cutoff, spec.rate)


def denoise(
    parts: Components, wave: Tensor, prompt: Prompt = "", *,
    strength: float = 0.0, resynthesise: bool = False, **options: Any,
) -> Tensor:  # fmt: skip
    """Turn noise down: first what is always there, then what the model does not believe in under ``prompt``.

    SDEdit away from NOISE_PROMPT gives a cleaner mel, and where a band of it is quieter than the round trip, the sound
    is turned down; phases stay, but ``resynthesise`` gives the model's sound.   Strength 0 is the first half alone.
    """
    SHARE.check("strength", strength)
    guidance = options.get("guidance_config")
    if guidance is None or guidance.weak is None:  # which steers away from the weak model instead
        options["negative"] = options.get("negative") or NOISE_PROMPT
    mel = mel_of(parts, wave.float())
    # the noise's mean is above its tenth quantile over time, by 9.8 dB for a bin and less for a band (Martin 2001)
    noise = mel.quantile(0.1, dim=2, keepdim=True) + QUANTILE_TO_MEAN
    # spectral subtraction (Boll 1979)
    rest = ((2 * mel).exp() - (2 * noise).exp()).clamp(min=1e-12).log() / 2
    gated = attenuate(wave.float(), torch.maximum(rest, mel - DEEPEST), mel, parts.spec)
    canvas = Canvas.of(parts, gated, **options)
    sigmas = canvas.run.tail(strength)
    if len(sigmas) < 2:
        return canvas.roundtrip() if resynthesise else gated
    clean = canvas.decode(canvas.sampled(prompt, canvas.run.noised(canvas.latent, sigmas), sigmas))
    if resynthesise:
        return clean
    return attenuate(gated, mel_of(parts, clean), mel_of(parts, canvas.roundtrip()), parts.spec)


def mel_of(parts: Components, wave: Tensor) -> Tensor:
    """The log-mel (1, 1, T, F) of a wave (N,), with silence up to a whole frame and to the least a frame needs."""
    size = max(parts.spec.frames(wave.shape[0] / parts.spec.rate) * parts.spec.hop, parts.spec.n_fft)
    return log_mel(nnf.pad(wave, (0, size - wave.shape[0]))[None, None], parts.spec)
