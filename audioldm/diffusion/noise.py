"""Noise that belongs to a sample and not to its place in a batch: one generator each, drawn on the CPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

Noise = Callable[[], Tensor]
"""() -> (B, ...) standard normal, new at each call."""


def seeds(numbers: Sequence[int]) -> list[Generator]:
    """One CPU generator per sample, each at its own seed."""
    return [Generator().manual_seed(number) for number in numbers]


@dataclass(frozen=True)
class PerSample:
    """Each call draws the next noise (B, *shape) in float32, row i from generator i, and moves it to ``device``."""

    generators: Sequence[Generator]
    shape: Sequence[int]
    device: torch.device | str = "cpu"

    def __call__(self) -> Tensor:
        rows = [torch.randn(tuple(self.shape), generator=generator) for generator in self.generators]
        return torch.stack(rows).to(self.device)
