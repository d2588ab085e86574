"""One use of the sampler, and one for many clips.   B batch, C channels, T latent frames, F bins, N samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from math import ceil
from typing import Any

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.components import Components, Sampling, warn_of_student, warn_of_unused
from audioldm.control.controls import MicroControl
from audioldm.diffusion import edit
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.noise import PerSample
from audioldm.diffusion.prediction import Denoiser
from audioldm.diffusion.samplers import SAMPLERS, ddim_invert
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import multiple_of
from audioldm.pipeline.conditions import Conditions
from audioldm.pipeline.guidance import GuidanceConfig
from audioldm.pipeline.longform import loop_frames, over_time

OnStep = Callable[[int, int], None]  # (steps done, steps in all)
SILENT = 0.02  # peak below which a clip counts as silent: 28 dB below the 0.5 that sounds have in training
STRIDE = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: small seeds do not meet those of further draws
MOST_SEEDS = 2**62


@dataclass(frozen=True)
class Run:
    """Settings, noise, grid, guidance and progress of one use of the sampler."""

    parts: Components
    settings: Sampling
    noise: PerSample  # of every clip, from its own seed; each is shaped (C, T, F)
    sigmas: Tensor  # the grid (steps + 1,), descending, on the CPU: no step waits to read it
    guidance: GuidanceConfig
    on_step: OnStep

    @classmethod
    def of(
        cls, parts: Components, seeds: Sequence[int], *, shape: Sequence[int] | None = None, loop: bool = False,
        guidance_config: GuidanceConfig | None = None, on_step: OnStep | None = None, **options: Any,
    ) -> "Run":  # fmt: skip
        """A run over latents (C, T, F), one a seed; ``options`` are fields of ``Sampling``.   Raises AudioLDMError."""
        guidance, settings = guidance_config or GuidanceConfig(), parts.defaults.merged(**options)
        guidance.check(sampler=settings.sampler, scale=settings.guidance, negative=settings.negative)
        warn_of_unused(settings.negative, settings.guidance)
        warn_of_student(parts.defaults, settings)
        choose(SAMPLERS, settings.sampler, "sampler")
        sigmas = choose(GRIDS, settings.grid, "grid")(parts.schedule, settings.steps)
        channels, frames, bins = parts.spec.latent_shape(settings.seconds, multiple_of(parts.unet))
        shape = shape or (channels, loop_frames(parts, settings.seconds) if loop else frames, bins)
        noise = PerSample(seeds, shape, parts.device)
        return cls(parts, settings, noise, sigmas, guidance, on_step or (lambda *_: None))

    def start(self) -> Tensor:
        """Noise (B, C, T, F) at the grid's first level."""
        return self.noise() * self.sigmas[0].float()

    def tail(self, strength: float) -> Tensor:
        """The part of the grid from ``strength`` of the schedule's time down; one level for strength 0."""
        return edit.tail(self.sigmas, edit.start_level(self.parts.schedule, strength))

    def noised(self, latent: Tensor, sigmas: Tensor) -> Tensor:
        """A known latent with noise of the first level, where SDEdit begins; itself where there is no step to take."""
        return latent + sigmas[0].float() * self.noise() if len(sigmas) > 1 else latent

    def denoiser(
        self, conditions: Conditions, *, loop: bool = False, sigmas: Tensor | None = None,
        wrap: Callable[[Denoiser], Denoiser] = lambda denoise: denoise,
    ) -> Denoiser:  # fmt: skip
        """The guided net under ``conditions`` on ``sigmas`` of the grid, for any length; ``wrap`` goes around it."""
        grid = self.sigmas if sigmas is None else sigmas
        steer = partial(self.guidance.steer, self.parts, scale=self.settings.guidance, sigmas=grid)
        guided = [wrap(steer(condition, conditions.empty)) for condition in conditions.rows]
        return over_time(self.parts, guided, self.noise.shape[1], shares=conditions.shares, loop=loop)

    def sample(self, denoise: Denoiser, x: Tensor, sigmas: Tensor | None = None, rounds: int = 1) -> Tensor:
        """From ``x`` at the grid's first level to a scaled latent, every step ``rounds`` times (RePaint)."""
        levels = (self.sigmas if sigmas is None else sigmas).float()
        if len(levels) < 2:
            return x
        sampler, steps = choose(SAMPLERS, self.settings.sampler, "sampler"), (len(levels) - 1) * rounds
        count = iter(range(1, steps + 1))  # solvers with inner steps report more often
        watch = {"noise": self.noise, "on_step": lambda *_: self.on_step(next(count, steps), steps)}
        run = partial(sampler, denoise, **watch)
        x = run(x, levels) if rounds == 1 else edit.repaint(run, x, levels, noise=self.noise, rounds=rounds)
        return x * self.parts.schedule.alpha_of(self.sigmas[-1]).float()  # 1 unless the grid ends above 0

    def invert(self, latent: Tensor, condition: Condition, sigmas: Tensor) -> Tensor:
        """The noisy latent at sigmas[0] that DDIM under ``condition``, unguided, would bring to ``latent``."""
        if len(sigmas) < 2:
            return latent
        denoise = over_time(self.parts, [self.parts.denoiser(condition)], latent.shape[2])
        return ddim_invert(denoise, latent, sigmas.float(), rounds=1)


def silent(waves: Tensor) -> list[int]:
    """Rows of waves (B, N) that hold nothing to hear."""
    return (waves.abs().amax(dim=1) < SILENT).nonzero()[:, 0].tolist()


def seed_of(seed: int, attempt: int) -> int:
    """The seed of a further draw of the clip that has ``seed``, one that can be asked for; attempt 0 is ``seed``."""
    return seed if attempt == 0 else (seed + attempt * STRIDE) % MOST_SEEDS


def resample_silent(generate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let ``generate``, a model's call for one batch, make any number of clips, and draw silent ones again.

    A silent clip is drawn at most ``retry_silent`` times, from seeds that follow from its own; under controls, which
    may ask for silence, once.   Raises AudioLDMError.
    """

    @wraps(generate)
    def call(
        parts: Components, prompts: str | Condition | Sequence[str | Condition], *, seeds: Sequence[int],
        batch_size: int | None = None, on_step: OnStep | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        prompts = [prompts] * len(seeds) if isinstance(prompts, str | Condition) else prompts
        check_draws(prompts, seeds, batch_size)
        # on the CPU kernels round differently for other sizes, and a seed gives the same bytes beside any others
        size = batch_size or (1 if parts.device.type == "cpu" else len(prompts))
        retries = parts.defaults.merged(retry_silent=options.get("retry_silent")).retry_silent
        retries *= all(isinstance(control, MicroControl) for control in parts.controls)

        def report(before: int, batches: int, step: int, steps: int) -> None:
            if on_step is not None:
                on_step(before * steps + step, batches * steps)

        waves, rows, batches = torch.empty(0), list(range(len(seeds))), 0
        for attempt in range(1 + retries):
            total = batches + ceil(len(rows) / size)
            for start in range(0, len(rows), size):
                group = rows[start : start + size]
                draws = [seed_of(seeds[row], attempt) for row in group]
                texts, steps = [prompts[row] for row in group], partial(report, batches, total)
                batch = generate(parts, texts, seeds=draws, on_step=steps, **options)
                if len(group) < len(seeds):
                    waves = waves if len(waves) else batch.new_zeros(len(seeds), batch.shape[1])
                    waves[group] = batch
                else:
                    waves = batch
                batches += 1
            rows = silent(waves) if attempt < retries else []
        return waves

    return call


def check_draws(prompts: Sequence[str | Condition], seeds: Sequence[int], batch_size: int | None) -> None:
    if len(prompts) != len(seeds) or not prompts:
        raise AudioLDMError(f"{len(prompts)} prompts but {len(seeds)} seeds.", "Give each prompt a seed.")
    if wrong := [seed for seed in seeds if not 0 <= seed < MOST_SEEDS]:
        raise AudioLDMError(f"seed={wrong[0]} is not a seed.", "Use 0 or more, below 2^62.")
    if batch_size is not None and batch_size < 1:
        raise AudioLDMError(f"batch_size={batch_size} is not a number of clips.", "Use 1 or more.")
