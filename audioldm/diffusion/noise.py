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


def draw(
    shape: Sequence[int], generators: Sequence[Generator], *, device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal noise (B, *shape), row i from generator i; drawn in float32 on the CPU, then moved."""
    rows = [torch.randn(tuple(shape), generator=generator) for generator in generators]
    return torch.stack(rows).to(device)


@dataclass(frozen=True)
class PerSample:
    """A noise source for samplers: each call draws the next noise of every sample.   shape: that of one sample."""

    generators: Sequence[Generator]
    shape: Sequence[int]
    device: torch.device | str = "cpu"

    def __call__(self) -> Tensor:
        return draw(self.shape, self.generators, device=self.device)
