"""Clips drawn from their seeds, in batches, and once more where one came out silent.   B batch, N samples."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from math import ceil
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.components import Components
from audioldm.control.micro import MicroControl
from audioldm.errors import AudioLDMError
from audioldm.pipeline.run import OnStep

SILENT = 0.02
"""Peak below which a clip counts as silent: 28 dB below the 0.5 that sounds have in training."""
STRIDE = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: the small seeds that people choose do not meet those of further draws"""
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

    A silent clip is drawn again at most ``retry_silent`` times, from seeds that follow from its own.
    """

    @wraps(generate)
    def call(
        parts: Components,
        prompts: str | Condition | Sequence[str | Condition],
        *,
        seeds: Sequence[int],
        batch_size: int | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Tensor:
        prompts = [prompts] * len(seeds) if isinstance(prompts, str | Condition) else prompts
        check_draws(prompts, seeds, batch_size)
        size = batch_size or largest_batch(parts, len(prompts))
        waves, rows, batches = torch.empty(0), list(range(len(seeds))), 0
        for attempt in range(1 + retries(parts, options.get("retry_silent"))):
            total = batches + ceil(len(rows) / size)
            for start in range(0, len(rows), size):
                group = rows[start : start + size]
                report = partial(batch_step, on_step, batches, total)
                texts = [prompts[row] for row in group]
                draws = [seed_of(seeds[row], attempt) for row in group]
                batch = generate(parts, texts, seeds=draws, on_step=report, **options)
                waves = waves if len(waves) else batch.new_zeros(len(seeds), batch.shape[1])
                waves[group] = batch
                batches += 1
            rows = silent(waves)
        return waves

    return cast(Call, call)


def batch_step(on_step: OnStep | None, before: int, batches: int, step: int, steps: int) -> None:
    if on_step is not None:
        on_step(before * steps + step, batches * steps)


def largest_batch(parts: Components, clips: int) -> int:
    """On the CPU 1: kernels round differently for other sizes, and a seed gives the same bytes beside any others."""
    return 1 if parts.device.type == "cpu" else clips


def retries(parts: Components, retry_silent: int | None) -> int:
    """How often a silent clip is drawn again; under controls, which may ask for silence, never."""
    controlled = any(not isinstance(control, MicroControl) for control in parts.controls)
    return 0 if controlled else parts.defaults.merged(retry_silent=retry_silent).retry_silent


def check_draws(prompts: Sequence[str | Condition], seeds: Sequence[int], batch_size: int | None) -> None:
    """Raise AudioLDMError where prompts and seeds are not as many, or a number is out of range."""
    if len(prompts) != len(seeds) or not prompts:
        why = f"{len(prompts)} prompts but {len(seeds)} seeds."
        raise AudioLDMError(why, "Give one seed for each prompt.")
    if wrong := [seed for seed in seeds if not 0 <= seed < MOST_SEEDS]:
        raise AudioLDMError(f"seed={wrong[0]} is not a seed.", "Use 0 or more, below 2^62.")
    if batch_size is not None and batch_size < 1:
        raise AudioLDMError(f"batch_size={batch_size} is not a number of clips.", "Use 1 or more.")
