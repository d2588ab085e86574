"""Which rows come when: every random draw of a data set follows from (seed, draw number, index).

Buckets: a batch holds clips of like length, so that 2 to 30 s train together and little is padding; the idea of SDXL's
multi-aspect training (Podell et al. 2023 sec. 2.3), in time.   A batch of long clips has fewer.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Generator
from torch.utils.data import Sampler

from audioldm.errors import AudioLDMError


@dataclass(frozen=True)
class Place:
    """Where an endless stream of batches begins, and this process among all that share it."""

    start: int = 0
    rank: int = 0
    world: int = 1


BEGIN = Place()


def generator(seed: int, number: int, index: int, *, device: torch.device | str = "cpu") -> Generator:
    """A fresh generator for one item."""
    digest = hashlib.blake2b(f"{seed}/{number}/{index}".encode(), digest_size=8).digest()
    return Generator(device).manual_seed(int.from_bytes(digest) >> 1)


def draw(count: int, rng: Generator) -> int:
    """A whole number from 0 to count - 1."""
    return int(torch.randint(count, (), generator=rng))


def bucket_of(seconds: float | None, buckets: Sequence[float]) -> int:
    """The shortest bucket that holds ``seconds``; longer clips go to the longest and are cropped."""
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] <= 0:
        hint = "Give seconds above 0, the shortest first."
        raise AudioLDMError(f"buckets={list(buckets)} are no lengths.", hint)
    length = buckets[-1] if seconds is None else seconds
    return next((place for place, most in enumerate(buckets) if length <= most), len(buckets) - 1)


def batch_sizes(buckets: Sequence[float], seconds_a_batch: float) -> dict[int, int]:
    """How many clips of each bucket make a batch of about ``seconds_a_batch`` seconds."""
    if seconds_a_batch < buckets[-1]:
        what = f"seconds_a_batch={seconds_a_batch:g} is less than one clip of {buckets[-1]:g} s."
        raise AudioLDMError(what, "Use more.")
    return {place: int(seconds_a_batch / size + 1e-9) for place, size in enumerate(buckets)}


class BucketDraws(Sampler[list[tuple[int, int]]]):
    """Batches of (row, draw number) of one bucket each, without end from ``start`` on; batch k follows from (seed, k).

    ``ids`` is each row's bucket and ``sizes`` a bucket's batch size.   Each pass shows every row once, buckets in mixed
    order; a bucket's last batch of a pass is smaller.   Of ``world`` processes each takes its part of a batch of
    ``sizes * world``; if that is too small for all, its rows are dealt again from its beginning.
    """

    def __init__(
        self, ids: Sequence[int], sizes: Mapping[int, int], *, seed: int, place: Place = BEGIN,
        shuffle: bool = True, passes: int | None = None,
    ) -> None:  # fmt: skip
        self.rows = {b: [row for row, other in enumerate(ids) if other == b] for b in sorted(set(ids))}
        self.sizes, self.seed, self.place = dict(sizes), seed, place
        self.shuffle, self.passes = shuffle, passes
        self.steps = sum(-(-len(rows) // (sizes[bucket] * place.world)) for bucket, rows in self.rows.items())
        self.plan: tuple[int, list[list[int]]] | None = None

    def batch(self, k: int) -> list[int]:
        number, place = divmod(k, self.steps)
        if self.plan is None or self.plan[0] != number:
            self.plan = number, self.batches(number)
        rows = self.plan[1][place]
        each = -(-len(rows) // self.place.world)
        return [rows[(self.place.rank * each + i) % len(rows)] for i in range(each)]

    def batches(self, number: int) -> list[list[int]]:
        """The batches of pass ``number``, for all processes together."""

        def mixed(items: list[Any], index: int) -> list[Any]:
            order = torch.randperm(len(items), generator=generator(self.seed, number, index)).tolist()
            return [items[i] for i in order] if self.shuffle else items

        out = list[list[int]]()
        for bucket, rows in self.rows.items():
            order, size = mixed(rows, bucket), self.sizes[bucket] * self.place.world
            out += [order[first : first + size] for first in range(0, len(order), size)]
        return mixed(out, -1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for k in count(self.place.start) if self.passes is None else range(self.place.start, len(self)):
            yield [(row, k // self.steps) for row in self.batch(k)]

    def __len__(self) -> int:
        """Batches of all passes; an endless stream has no length, and a trainer must not think that it ends."""
        if self.passes is None:
            raise TypeError("BucketDraws without passes has no end")
        return self.passes * self.steps
