"""What every edit stands on: a sound on the model's latent grid, and a run of the sampler over it.

C channels, T latent frames, F bins, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.diffusion import edit
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.inversion import ddim_invert
from audioldm.diffusion.noise import PerSample
from audioldm.diffusion.noise import seeds as generators
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.pipeline import longform
from audioldm.pipeline.guide import GuidanceConfig
from audioldm.pipeline.spans import Span
from audioldm.signal.level import peak_of

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.draws import OnStep

PEAK, MAX_GAIN = 0.5, 20.0
"""The level that the models learned at (``signal.level.normalise_peak``)."""

Prompt = str | Condition | Sequence[Span]
"""What the U-Net is told: words, an embedding, or words over time."""


@dataclass(frozen=True)
class Canvas:
    """A sound (N,) at the model's rate, brought to the level that the model knows, and its latent (1, C, T, F)."""

    pipe: AudioLDM
    latent: Tensor
    samples: int
    gain: float
    mean: float

    @classmethod
    def of(cls, pipe: AudioLDM, wave: Tensor) -> Canvas:
        """Encode ``wave`` (N,).   Raises AudioLDMError for an empty or not finite one, ValueError for another shape."""
        if wave.ndim != 1:
            raise ValueError(f"an edit takes one mono wave (N,), not {tuple(wave.shape)}.")
        if wave.numel() == 0 or not bool(wave.isfinite().all()):
            raise AudioLDMError("The sound to edit is empty or not finite.", "Give another file.")
        mean = float(wave.mean())
        gain = PEAK / max(peak_of(wave - mean), PEAK / MAX_GAIN)
        latent = longform.encode(pipe, (wave - mean) * gain)
        return cls(pipe, latent, wave.shape[0], gain, mean)

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.samples / self.pipe.spec.rate

    @property
    def frames(self) -> int:
        """Latent frames, with those that only fill the grid."""
        return self.latent.shape[2]

    def mask(self, regions: Sequence[tuple[float, float]]) -> Tensor:
        """(T, 1) on the model's device; frames beyond the sound's end are as its last one."""
        step = self.pipe.spec.seconds_per_latent
        mask = edit.time_mask(regions, self.frames, step)
        last = self.pipe.spec.latent_frames(self.seconds)
        mask[last:] = mask[last - 1]
        return mask.to(self.latent)

    def decode(self, latent: Tensor, *, refine_phase: int) -> Tensor:
        """A latent of this canvas to (N,) at the level of the sound that came in."""
        return self.raw(latent, refine_phase=refine_phase) / self.gain + self.mean

    def raw(self, latent: Tensor, *, refine_phase: int) -> Tensor:
        """A latent to (N,) as the model gives it."""
        return longform.decode(self.pipe, latent, seconds=self.seconds, refine_phase=refine_phase)[0]

    def roundtrip(self, *, refine_phase: int) -> Tensor:
        """What is left of the sound (N,) after the codec alone."""
        return self.decode(self.latent, refine_phase=refine_phase)


@dataclass(frozen=True)
class Run:
    """One use of the sampler: its settings (those of ``AudioLDM.__call__``), its seed, what it is told.

    Raises TypeError for an unknown setting.
    """

    pipe: AudioLDM
    prompt: Prompt
    seed: int
    settings: dict[str, Any]
    on_step: OnStep | None = None
    chosen: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        known = {"refine_phase": 0, "negative": "", "guide": GuidanceConfig(), **self.pipe.defaults}
        if unknown := self.settings.keys() - known.keys() - {"seconds"}:
            raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}; known: {', '.join(known)}.")
        given = {key: value for key, value in self.settings.items() if value is not None}
        object.__setattr__(self, "chosen", {**known, **given})

    @property
    def refine_phase(self) -> int:
        """Rounds of Griffin-Lim after the vocoder."""
        return int(self.chosen["refine_phase"])

    def grid(self) -> Tensor:
        """The noise levels from the noisiest down (n + 1,)."""
        grid = choose(GRIDS, self.chosen["grid"], "grid")
        return grid(self.pipe.schedule, self.chosen["steps"]).float()  # on the CPU: no step waits to read it

    def noise(self, latent: Tensor) -> PerSample:
        """The seed's noise, shaped as ``latent`` (1, C, T, F): the one that generation would draw."""
        return PerSample(generators([self.seed]), latent.shape[1:], device=self.pipe.device)

    def told(self, prompt: Prompt) -> Condition:
        """Words or an embedding as a condition."""
        return prompt if isinstance(prompt, Condition) else self.pipe.encode_text([str(prompt)])

    def guided(self, prompt: Prompt, sigmas: Tensor) -> Denoiser:
        """The denoiser of one prompt under the run's guidance; ``sigmas`` is the grid that it will be used on."""
        empty = self.pipe.encode_text([self.chosen["negative"]])
        guide: GuidanceConfig = self.chosen["guide"]
        return guide.steer(self.pipe, self.told(prompt), empty, self.chosen["guidance"], sigmas)

    def denoiser(self, frames: int, sigmas: Tensor) -> Denoiser:
        """The denoiser of the run's prompt, or of its prompts over time, for any number of frames."""
        if isinstance(self.prompt, str | Condition):
            return longform.over_time(self.pipe, [self.guided(self.prompt, sigmas)], frames)
        shares = longform.span_shares(self.pipe, self.prompt, frames)
        parts = [self.guided(span.prompt, sigmas) for span in self.prompt]
        return longform.over_time(self.pipe, parts, frames, shares=shares)

    def sample(
        self, denoise: Denoiser, x: Tensor, sigmas: Tensor, noise: PerSample, *, rounds: int = 1
    ) -> Tensor:
        """From ``x`` at sigmas[0] down the grid; a grid of one level is no step.   ``rounds`` > 1 is RePaint's."""
        if len(sigmas) < 2:
            return x
        sampler, steps = choose(SAMPLERS, self.chosen["sampler"], "sampler"), (len(sigmas) - 1) * rounds
        count = iter(range(1, steps + 1))

        def report(*_: Any) -> None:
            done = next(count, steps)  # solvers with inner steps report more often
            if self.on_step is not None:
                self.on_step(done, steps)

        def run(x: Tensor, sigmas: Tensor) -> Tensor:
            return sampler(denoise, x, sigmas, noise=noise, on_step=report)

        x = run(x, sigmas) if rounds == 1 else edit.repaint(run, x, sigmas, noise=noise, rounds=rounds)
        return (
            x * self.pipe.schedule.alpha_of(sigmas[-1]).float()
        )  # as generation: published grids end above 0

    def generate(self, like: Tensor) -> Tensor:
        """A latent from noise alone, shaped as ``like``: what generation gives with this seed."""
        noise, sigmas = self.noise(like), self.grid()
        return self.sample(self.denoiser(like.shape[2], sigmas), noise() * sigmas[0], sigmas, noise)

    def invert(self, latent: Tensor, sigmas: Tensor, source: Prompt) -> Tensor:
        """The noisy latent at sigmas[0] that DDIM under ``source``, unguided, would bring to ``latent``."""
        denoise = longform.over_time(self.pipe, [self.pipe.denoiser(self.told(source))], latent.shape[2])
        return ddim_invert(denoise, latent, sigmas, rounds=1)


def check_strength(strength: float) -> None:
    """Refuse a strength outside [0, 1]."""
    if not 0 <= strength <= 1:
        raise AudioLDMError(f"strength={strength:g} is not in 0 to 1.", "0 keeps the sound, 1 ignores it.")


def check_regions(regions: Sequence[tuple[float, float]], seconds: float) -> None:
    """Refuse regions that are empty or lie outside the sound."""
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


def filled(run: Run, known: Tensor, mask: Tensor, *, rounds: int = 1) -> Tensor:
    """``known`` (1, C, T, F) with its masked part sampled anew; a mask of all ones is generation."""
    noise, sigmas = run.noise(known), run.grid()
    x = edit.noised(known, mask, float(sigmas[0]), noise())
    inside = edit.inpaint(run.denoiser(known.shape[2], sigmas), known, mask)
    made = run.sample(inside, x, sigmas, noise, rounds=rounds)
    return mask * made + (1 - mask) * known


@torch.no_grad()
def own_embedding(pipe: AudioLDM, wave: Tensor) -> Condition:
    """What the U-Net is told for a sound (N,) without words: its CLAP embedding, with the empty prompt's tokens."""
    empty = pipe.encode_text([""])
    if empty.film is None:
        return empty
    return replace(empty, film=pipe.clap.embed_audio(wave[None, None].float(), pipe.spec.rate).to(empty.film))
