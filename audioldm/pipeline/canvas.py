"""A sound on a model's latent grid, and how an edit of it begins.   C channels, T latent frames, F bins, N samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from torch import Tensor

from audioldm.batch import Condition
from audioldm.components import Components, SamplingOptions
from audioldm.diffusion import edit
from audioldm.errors import AudioLDMError
from audioldm.pipeline import longform
from audioldm.pipeline.conditions import Conditions, encode, sound_condition
from audioldm.pipeline.guidance import GuidanceConfig
from audioldm.pipeline.run import OnStep, Run
from audioldm.pipeline.spans import Span
from audioldm.signal.level import peak_of
from audioldm.signal.splice import splice

PEAK, MAX_GAIN = 0.5, 20.0
"""The level that the models learned at (``signal.level.normalise_peak``)."""
FADE = 0.03
"""Seconds of cross-fade outside a region."""

Prompt = str | Condition | Sequence[Span]
"""Words, a condition of one row, or words over time."""
Regions = Sequence[tuple[float, float]]
"""(from, to) in seconds."""


class EditOptions(SamplingOptions, total=False):
    """What every edit takes beside its own settings; what is None or left out comes from the model's ``defaults``."""

    seed: int
    guidance_config: GuidanceConfig | None
    on_step: OnStep | None


@dataclass(frozen=True)
class Canvas:
    """A sound (N,) at the model's rate, brought to the level that the model knows, and its latent (1, C, T, F)."""

    parts: Components
    latent: Tensor
    samples: int
    gain: float
    mean: float

    @classmethod
    def of(cls, parts: Components, wave: Tensor) -> Canvas:
        """Encode ``wave`` (N,).   Raises AudioLDMError for an empty or not finite one, ValueError for another shape."""
        if wave.ndim != 1:
            raise ValueError(f"an edit takes one mono wave (N,), not {tuple(wave.shape)}.")
        if wave.numel() == 0 or not bool(wave.isfinite().all()):
            raise AudioLDMError("The sound to edit is empty or not finite.", "Give another file.")
        mean = float(wave.mean())
        gain = PEAK / max(peak_of(wave - mean), PEAK / MAX_GAIN)
        latent = longform.encode(parts, (wave - mean) * gain)
        return cls(parts, latent, wave.shape[0], gain, mean)

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.samples / self.parts.spec.rate

    @property
    def frames(self) -> int:
        """Latent frames, with those that only fill the grid."""
        return self.latent.shape[2]

    def mask(self, regions: Regions) -> Tensor:
        """(T, 1) on the model's device; frames beyond the sound's end are as its last one."""
        mask = edit.time_mask(regions, self.frames, self.parts.spec.seconds_per_latent)
        last = self.parts.spec.latent_frames(self.seconds)
        mask[last:] = mask[last - 1]
        return mask.to(self.latent)

    def raw(self, latent: Tensor, *, refine_phase: int) -> Tensor:
        """A latent to (N,) as the model gives it."""
        return longform.decode(self.parts, latent, seconds=self.seconds, refine_phase=refine_phase)[0]

    def decode(self, latent: Tensor, *, refine_phase: int) -> Tensor:
        """A latent of this canvas to (N,) at the level of the sound that came in."""
        return self.raw(latent, refine_phase=refine_phase) / self.gain + self.mean

    def roundtrip(self, *, refine_phase: int) -> Tensor:
        """What is left of the sound (N,) after the codec alone."""
        return self.decode(self.latent, refine_phase=refine_phase)

    def spliced(self, latent: Tensor, regions: Regions, *, refine_phase: int) -> Tensor:
        """``latent`` decoded inside the regions, the round trip outside (the decoder's attention moves it a little)."""
        edited = self.decode(latent, refine_phase=refine_phase)
        places = samples_of(self.parts, regions)
        base, fade = self.roundtrip(refine_phase=refine_phase), self.parts.spec.samples(FADE)
        return splice(base, edited, places, fade=fade, power=False)

    def run(self, **options: Unpack[EditOptions]) -> Run:
        """The run of an edit: the seed's noise is the one that generation would draw."""
        seed = options.pop("seed", 0)
        guidance, on_step = options.pop("guidance_config", None), options.pop("on_step", None)
        settings = self.parts.defaults.merged(**options)
        return Run.of(self.parts, settings, self.latent.shape[1:], [seed], guidance, on_step)


def conditions_of(run: Run, prompt: Prompt, wave: Tensor | None = None) -> Conditions:
    """What a run is conditioned on; for an empty prompt the sound ``wave`` itself, if there is one."""
    if prompt == "" and wave is not None:
        prompt = sound_condition(run.parts, wave)
    if isinstance(prompt, str | Condition):
        return encode(run.parts, [prompt], run.settings.negative)
    return encode(run.parts, [""], run.settings.negative, prompt)


def filled(run: Run, conditions: Conditions, latent: Tensor, mask: Tensor, *, rounds: int = 1) -> Tensor:
    """``latent`` (1, C, T, F) with its masked part sampled anew; a mask of all ones is generation."""
    x = edit.noised(latent, mask, float(run.sigmas[0]), run.noise())
    inside = edit.inpaint(run.denoiser(conditions), latent, mask)
    return mask * run.sample(inside, x, rounds=rounds) + (1 - mask) * latent


def check_strength(strength: float) -> None:
    """Raise AudioLDMError for a strength outside [0, 1]."""
    if not 0 <= strength <= 1:
        raise AudioLDMError(f"strength={strength:g} is not in 0 to 1.", "0 keeps the sound, 1 ignores it.")


def check_regions(regions: Regions, seconds: float) -> None:
    """Raise AudioLDMError for regions that are empty or lie outside the sound."""
    if not regions:
        raise AudioLDMError("There is no region to make anew.", "Give --from and --to in seconds.")
    for begin, end in regions:
        if not 0 <= begin < end:
            raise AudioLDMError(f"region {begin:g}-{end:g} s is empty.", "Give --from below --to.")
        if begin >= seconds:
            raise AudioLDMError(
                f"region {begin:g}-{end:g} s begins after the sound's {seconds:g} s.",
                "Use audioldm edit continue.",
            )


def samples_of(parts: Components, regions: Regions) -> list[tuple[int, int]]:
    """Regions in samples of the model's rate."""
    return [(parts.spec.samples(begin), parts.spec.samples(end)) for begin, end in regions]
