"""Batches for training: an endless, seeded stream that can begin at any batch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from audioldm.datasets.audio_text import AudioText, weights
from audioldm.datasets.audio_text import collate as collate_waves
from audioldm.datasets.draws import generator
from audioldm.datasets.latents import LatentDataset, collate_latents, read_index
from audioldm.datasets.manifest import Row, read, refuse_leaks
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec


class Draws(Sampler[list[tuple[int, int]]]):
    """Batches of (row, draw number) from ``start`` on, without end; batch k depends on (seed, k) only.

    Without ``weights`` one pass after the other goes through all rows, each in a new order, so every row is seen once a
    pass; with them each batch draws rows by their chance.   Of ``world`` processes each takes its own ``batch_size``
    places of one batch of batch_size * world: together they see what a single process with that batch would see.
    ``repeat`` gives the first batch for ever.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        weights: torch.Tensor | None = None,
        rank: int = 0,
        world: int = 1,
        repeat: bool = False,
    ) -> None:
        if size < 1:
            raise AudioLDMError("There are no rows to train on.", "Check the data set and its splits.")
        self.size, self.batch_size, self.seed, self.start = size, batch_size, seed, start
        self.weights, self.rank, self.world, self.repeat = weights, rank, world, repeat
        self.order: tuple[int, torch.Tensor] | None = None

    def row(self, place: int) -> int:
        """Row at ``place`` of all passes joined."""
        number, within = divmod(place, self.size)
        if self.order is None or self.order[0] != number:
            self.order = number, torch.randperm(self.size, generator=generator(self.seed, number, 2))
        return int(self.order[1][within])

    def batch(self, k: int) -> list[int]:
        """Rows of this process in batch ``k``."""
        total, first = self.batch_size * self.world, self.rank * self.batch_size
        if self.weights is None:
            return [self.row(k * total + first + place) for place in range(self.batch_size)]
        enough = int((self.weights > 0).sum()) >= total
        rng = generator(self.seed, k, 1)
        rows = torch.multinomial(self.weights, total, replacement=not enough, generator=rng)
        return rows[first : first + self.batch_size].tolist()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        k = self.start
        while True:
            which = 0 if self.repeat else k
            first = (which * self.world + self.rank) * self.batch_size
            yield [(row, first + place) for place, row in enumerate(self.batch(which))]
            k += 1


class DataModule(L.LightningDataModule):
    """Serves ``train`` as an endless stream that begins where the model stopped, and ``val`` once through in order.

    ``sampler`` (start, rank, world) -> batches of (row, draw number) takes the place of ``Draws``.
    """

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any] | None = None,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 0,
        weights: torch.Tensor | None = None,
        collate: Callable[[Sequence[Any]], Any] = collate_waves,
        sampler: Callable[..., Sampler[Any]] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise AudioLDMError(f"batch_size={batch_size} is not a size.", "Use 1 or more.")
        self.train, self.val, self.weights = train, val, weights
        self.batch_size, self.seed, self.collate = batch_size, seed, collate
        self.workers = min(
            workers, os.cpu_count() or 1
        )  # more only wait for one another; the batches are the same
        self.repeat, self.sampler = False, sampler

    def train_dataloader(self) -> DataLoader[Any]:
        """Begins at the batch that the module has not seen yet."""
        start, rank, world = 0, 0, 1
        if self.trainer is not None:
            start = self.trainer.lightning_module.seen
            rank, world = self.trainer.global_rank, self.trainer.world_size
        draws: Sampler[Any] = (
            self.sampler(start=start, rank=rank, world=world)
            if self.sampler
            else Draws(
                len(self.train),  # type: ignore[arg-type]
                self.batch_size,
                seed=self.seed,
                start=start,
                weights=self.weights,
                rank=rank,
                world=world,
                repeat=self.repeat,
            )
        )
        return DataLoader(
            self.train,
            batch_sampler=draws,
            collate_fn=self.collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out rows in order, or nothing; every process validates all of them, so all report the same number."""
        if self.val is None or not len(self.val):  # type: ignore[arg-type]
            return []
        return DataLoader(self.val, self.batch_size, collate_fn=self.collate, num_workers=0)


def from_synthetic(
    spec: AudioSpec, *, seconds: float, batch_size: int, size: int = 280, seed: int = 0
) -> DataModule:
    """Sounds made by rule; the validation ones are other draws of the same kinds."""
    train, val = Synthetic(spec, seconds, size, seed=seed), Synthetic(spec, seconds, 28, seed=seed + 1)
    return DataModule(train, val, batch_size=batch_size, seed=seed)


def from_manifests(
    spec: AudioSpec,
    *,
    manifests: Sequence[str],
    seconds: float,
    batch_size: int,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    workers: int = 0,
    mixup: float = 0.0,
) -> DataModule:
    """Clips of checked manifests: their train split, drawn by ``shares`` of each source, and their val split.

    ``mixup`` (`+data.mixup=0.3`) is the chance that a second clip is mixed into one of training, its caption joined.
    """
    rows = [row for path in manifests for row in read(path)]
    refuse_leaks(rows)
    train = [row for row in rows if row.split == "train"]
    val = [row for row in rows if row.split == "val"]
    return DataModule(
        AudioText(train, spec, seconds, seed=seed, mixup=mixup),
        AudioText(val, spec, seconds, seed=seed, captions="first") if val else None,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        weights=weights(train, shares) if shares else None,
    )


def from_latents(
    *,
    folder: str,
    batch_size: int,
    val_folder: str | None = None,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    workers: int = 0,
    map: str | None = None,
) -> DataModule:
    """Windows of a latent cache, drawn by ``shares`` of each source; with the ``map`` of a control, if named."""
    train = LatentDataset(folder, seed=seed, map=map)
    chances = None
    if shares:
        chances = weights([Row(str(i), ("",), source=s) for i, s in enumerate(train.sources)], shares)
    val = LatentDataset(val_folder, seed=seed, map=map) if val_folder else None
    return DataModule(
        train,
        val,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        weights=chances,
        collate=collate_latents,
    )


def null_tokens(folder: str) -> torch.Tensor:
    """The sequence encoder's answer (L, E) to the empty prompt, as a latent cache keeps it."""
    index = read_index(folder)
    if "null_tokens" not in index:
        raise AudioLDMError(f"{folder} holds no tokens.", "Encode it again with a sequence encoder (--t5).")
    return torch.tensor(index["null_tokens"])
