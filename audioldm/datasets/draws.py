"""Every random draw of a data set follows from (seed, epoch, index)."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Generator


@dataclass(frozen=True)
class Place:
    """Where an endless stream of batches begins, and this process among all that share it."""

    start: int = 0
    rank: int = 0
    world: int = 1


BEGIN = Place()


def generator(seed: int, epoch: int, index: int, *, device: torch.device | str = "cpu") -> Generator:
    """A fresh generator for one item.

    >>> bool(torch.equal(torch.rand(2, generator=generator(0, 1, 2)), torch.rand(2, generator=generator(0, 1, 2))))
    True
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return Generator(device).manual_seed(int.from_bytes(digest) >> 1)


def draw(count: int, rng: Generator) -> int:
    """A whole number from 0 to count - 1."""
    return int(torch.randint(count, (), generator=rng))
