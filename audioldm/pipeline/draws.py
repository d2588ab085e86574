"""Clips drawn from their seeds, in batches, and once more where one came out silent.   B batch, N samples."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from math import ceil
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.components import Components
from audioldm.control.controls import MicroControl
from audioldm.errors import AudioLDMError
from audioldm.pipeline.run import OnStep

SILENT = 0.02  # peak below which a clip counts as silent: 28 dB below the 0.5 that sounds have in training
STRIDE = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: small seeds do not meet those of further draws
MOST_SEEDS = 2**62

Call = TypeVar("Call", bound=Callable[..., Tensor])


def silent(waves: Tensor) -> list[int]:
    """Rows of waves (B, N) that hold nothing to hear."""
    return (waves.abs().amax(dim=1) < SILENT).nonzero()[:, 0].tolist()


def seed_of(seed: int, attempt: int) -> int:
    """The seed of a further draw of the clip that has ``seed``, one that can be asked for; attempt 0 is ``seed``."""
    return seed if attempt == 0 else (seed + attempt * STRIDE) % MOST_SEEDS


def resample_silent(generate: Call) -> Call:
    """Let ``generate``, a model's call for one batch, make any number of clips, and draw silent ones again.

    A silent clip is drawn again at most ``retry_silent`` times, from seeds that follow from its own; under controls,
    which may ask for silence, never.   Raises AudioLDMError where prompts and seeds are not as many, or out of range.
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
                waves = waves if len(waves) else batch.new_zeros(len(seeds), batch.shape[1])
                waves[group] = batch
                batches += 1
            rows = silent(waves)
        return waves

    return cast(Call, call)


def check_draws(prompts: Sequence[str | Condition], seeds: Sequence[int], batch_size: int | None) -> None:
    if len(prompts) != len(seeds) or not prompts:
        raise AudioLDMError(f"{len(prompts)} prompts but {len(seeds)} seeds.", "Give each prompt a seed.")
    if wrong := [seed for seed in seeds if not 0 <= seed < MOST_SEEDS]:
        raise AudioLDMError(f"seed={wrong[0]} is not a seed.", "Use 0 or more, below 2^62.")
    if batch_size is not None and batch_size < 1:
        raise AudioLDMError(f"batch_size={batch_size} is not a number of clips.", "Use 1 or more.")
