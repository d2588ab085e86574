"""Clips drawn from their seeds, in batches, and once more where one came out silent.   B batch, N samples."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

OnStep = Callable[[int, int], None]
"""(steps done, steps in all)"""
Draw = Callable[[list[int], list[int], OnStep | None], Tensor]
"""(places of clips, their seeds, on_step) -> waves (B, N)"""
SILENT = 0.02
"""Peak below which a clip counts as silent: 28 dB below the 0.5 that sounds have in training."""
STRIDE = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio: the small seeds that people choose do not meet those of further draws"""


def silent(waves: Tensor) -> list[int]:
    """Rows of waves (B, N) that hold nothing to hear.

    >>> silent(torch.tensor([[0.0, 0.01], [0.3, -0.2]]))
    [0]
    """
    return (waves.abs().amax(dim=1) < SILENT).nonzero()[:, 0].tolist()


def seed_of(seed: int, attempt: int) -> int:
    """The seed of a further draw of the clip that has ``seed``, one that can be asked for; attempt 0 is ``seed``.

    >>> seed_of(7, 0), seed_of(7, 1) == seed_of(7, 2)
    (7, False)
    """
    return seed if attempt == 0 else (seed + attempt * STRIDE) % 2**62


def resample_silent(
    draw: Draw, seeds: Sequence[int], *, size: int, retry_silent: int, on_step: OnStep | None = None
) -> Tensor:
    """Waves (B, N) of all ``seeds``, ``size`` at a time.

    A small model places a short sound now and then nowhere in its window.   Such a clip is drawn again, at most
    ``retry_silent`` times, from seeds that follow from its own, so that it is the same alone and among others.   What
    is still silent after that stays so.
    """
    waves, rows, batches = torch.empty(0), list(range(len(seeds))), 0
    for attempt in range(retry_silent + 1):
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        total = batches + len(parts)
        for part in parts:

            def report(done: int, steps: int, before: int = batches, total: int = total) -> None:
                if on_step is not None:
                    on_step(before * steps + done, total * steps)

            made = draw(part, [seed_of(seeds[row], attempt) for row in part], report)
            if not len(waves):
                waves = made.new_zeros(len(seeds), made.shape[1])
            waves[part] = made
            batches += 1
        rows = silent(waves)
        if not rows:
            break
    return waves
