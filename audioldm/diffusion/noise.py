"""Noise that belongs to a sample and not to its place in a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

Noise = Callable[[], Tensor]  # () -> (B, ...) standard normal, new at each call


class PerSample:
    """Each call draws the next noise (B, *shape): row i from a generator that began at seeds[i], float32 on the CPU."""

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        self.generators = [Generator().manual_seed(seed) for seed in seeds]
        self.shape, self.device = tuple(shape), device

    def __call__(self) -> Tensor:
        rows = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(rows).to(self.device)
