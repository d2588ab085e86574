"""Batches for training: an endless, seeded stream that can begin at any batch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from audioldm.datasets.audio_text import AudioText, weights
from audioldm.datasets.audio_text import collate as collate_waves
from audioldm.datasets.buckets import SECONDS, BucketDraws, batch_sizes
from audioldm.datasets.cache import read_index
from audioldm.datasets.draws import BEGIN, Place, generator
from audioldm.datasets.latents import LatentDataset, collate_latents
from audioldm.datasets.manifest import Row, read, refuse_leaks
from audioldm.datasets.shards import Shards, expand
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec

MakeSampler = Callable[[Place], Sampler[Any]]


class Draws(Sampler[list[tuple[int, int]]]):
    """Batches of (row, draw number) from ``start`` on, without end; batch k depends on (seed, k) only.

    Without ``weights`` one pass after the other goes through all rows, each in a new order, so every row comes once a
    pass; with them each batch draws rows by their chance.   Of ``world`` processes each takes its own ``batch_size``
    places of one batch of batch_size * world: together they draw what a single process with that batch would draw.
    ``repeat`` gives the first batch for ever.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        place: Place = BEGIN,
        weights: Tensor | None = None,
        repeat: bool = False,
    ) -> None:
        if size < 1:
            raise AudioLDMError("There are no rows to train on.", "Check the data set and its splits.")
        self.size, self.batch_size, self.seed, self.place = size, batch_size, seed, place
        self.weights, self.repeat = weights, repeat
        self.order: tuple[int, Tensor] | None = None

    def row(self, place: int) -> int:
        """Row at ``place`` of all passes joined."""
        number, within = divmod(place, self.size)
        if self.order is None or self.order[0] != number:
            self.order = number, torch.randperm(self.size, generator=generator(self.seed, number, 2))
        return int(self.order[1][within])

    def batch(self, k: int) -> list[int]:
        """Rows of this process in batch ``k``."""
        total, first = self.batch_size * self.place.world, self.place.rank * self.batch_size
        if self.weights is None:
            return [self.row(k * total + first + place) for place in range(self.batch_size)]
        enough = int((self.weights > 0).sum()) >= total
        rng = generator(self.seed, k, 1)
        rows = torch.multinomial(self.weights, total, replacement=not enough, generator=rng)
        return [int(row) for row in rows[first : first + self.batch_size]]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        k = self.place.start
        while True:
            which = 0 if self.repeat else k
            first = (which * self.place.world + self.place.rank) * self.batch_size
            yield [(row, first + place) for place, row in enumerate(self.batch(which))]
            k += 1


class RunLoader(DataLoader[Any]):
    """A loader as long as the run, whichever batch it begins at: Lightning's bar counts the batches of all."""

    def __init__(self, *args: Any, batches: int, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.batches = batches

    def __len__(self) -> int:
        return self.batches


class RunData(L.LightningDataModule):
    """What the data of a run share: where the stream begins, and a validation once through in order."""

    repeat = False
    """the first batch for ever"""

    def place(self) -> Place:
        """The batch to begin at, which the module has not met yet, and this process among all."""
        if self.trainer is None:
            return BEGIN
        module: Any = self.trainer.lightning_module
        return Place(module.batch_count, self.trainer.global_rank, self.trainer.world_size)

    def loader(self, *args: Any, **settings: Any) -> DataLoader[Any]:
        """A loader of training."""
        if self.trainer is None:
            return DataLoader(*args, **settings)
        module: Any = self.trainer.lightning_module
        return RunLoader(*args, batches=module.batches, **settings)


class DataModule(RunData):
    """Serves ``train`` as an endless stream that begins where the model stopped, and ``val`` once through in order.

    ``weights`` are the rows' chances.   ``sampler`` (place) -> batches of (row, draw number) takes the
    place of ``Draws``; ``val_sampler`` that of the rows in order.
    """

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any] | None = None,
        *,
        batch_size: int,
        seed: int = 0,
        workers: int = 0,
        weights: Tensor | None = None,
        collate: Callable[[Sequence[Any]], Any] = collate_waves,
        sampler: MakeSampler | None = None,
        val_sampler: Sampler[Any] | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise AudioLDMError(f"batch_size={batch_size} is not a size.", "Use 1 or more.")
        self.train, self.val, self.weights = train, val, weights
        self.batch_size, self.seed, self.collate = batch_size, seed, collate
        # more only wait for one another; the batches are the same
        self.workers = min(workers, os.cpu_count() or 1)
        self.sampler, self.val_sampler = sampler or self.draws, val_sampler

    def draws(self, place: Place) -> Sampler[Any]:
        """Rows of every pass in a new order."""
        size = len(self.train)  # type: ignore[arg-type]
        return Draws(
            size, self.batch_size, seed=self.seed, weights=self.weights, repeat=self.repeat, place=place
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Begins at the batch that the module has not met yet."""
        return self.loader(
            self.train,
            batch_sampler=self.sampler(self.place()),
            collate_fn=self.collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out rows in order, or nothing; every process validates all of them, so all report the same number."""
        if self.val is None or not len(self.val):  # type: ignore[arg-type]
            return []
        if self.val_sampler is not None:
            return DataLoader(self.val, batch_sampler=self.val_sampler, collate_fn=self.collate)
        return DataLoader(self.val, self.batch_size, collate_fn=self.collate)


class StreamedData(RunData):
    """``shards`` are paths, patterns such as data/shards/*.tar, or addresses; validation comes from a manifest."""

    def __init__(
        self,
        spec: AudioSpec,
        *,
        shards: Sequence[str],
        seconds: float,
        batch_size: int,
        val_manifest: str | None = None,
        buffer: int = 500,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        paths = expand(shards)
        if not paths:
            raise AudioLDMError(f"{list(shards)} match no shard.", "Write some with `audioldm data shard`.")
        self.stream: Callable[[Place], Shards] = lambda place: Shards(
            paths, spec, seconds, batch_size=self.batch_size, seed=seed, buffer=buffer, place=place
        )
        rows = read(val_manifest, split="val") if val_manifest else []
        self.val = AudioText(rows, spec, seconds, seed=seed, captions="first") if rows else None

    def train_dataloader(self) -> DataLoader[Any]:
        """Begins at the batch that the module has not met yet."""
        return self.loader(self.stream(self.place()), batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out rows in order, or nothing."""
        return [] if self.val is None else DataLoader(self.val, self.batch_size, collate_fn=collate_waves)


def from_synthetic(
    spec: AudioSpec, *, seconds: float, size: int = 280, seed: int = 0, **settings: Any
) -> DataModule:
    """Sounds made by rule; the validation ones are other draws of the same kinds."""
    train, val = Synthetic(spec, seconds, size, seed=seed), Synthetic(spec, seconds, 28, seed=seed + 1)
    return DataModule(train, val, seed=seed, **settings)


def read_splits(manifests: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Rows of the train and the val split; AudioLDMError where a clip is in both."""
    rows = [row for path in manifests for row in read(path)]
    refuse_leaks(rows)
    return [row for row in rows if row.split == "train"], [row for row in rows if row.split == "val"]


def from_manifests(
    spec: AudioSpec,
    *,
    manifests: Sequence[str],
    seconds: float,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    mixup: float = 0.0,
    **settings: Any,
) -> DataModule:
    """Clips of checked manifests: their train split, drawn by ``weights`` of each source, and their val split.

    ``mixup`` is the chance that a second clip is mixed into one of training, its caption joined.
    """
    train, val = read_splits(manifests)
    clips = AudioText(train, spec, seconds, seed=seed, mixup=mixup)
    held = AudioText(val, spec, seconds, seed=seed, captions="first") if val else None
    return DataModule(clips, held, seed=seed, weights=row_weights(train, weights), **settings)


def row_weights(rows: Sequence[Row], by_source: Mapping[str, float] | None) -> Tensor | None:
    """Each row's chance; None without weights of the sources."""
    return weights(rows, by_source) if by_source else None


def from_latents(
    *,
    folder: str,
    val_folder: str | None = None,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    map: str | None = None,
    **settings: Any,
) -> DataModule:
    """Windows of a latent cache, drawn by ``weights`` of each source; with the ``map`` of a control, if named."""
    train = LatentDataset(folder, seed=seed, map=map)
    val = LatentDataset(val_folder, seed=seed, map=map) if val_folder else None
    rows = [Row(str(i), ("",), source=source) for i, source in enumerate(train.sources)]
    chances = row_weights(rows, weights)
    return DataModule(train, val, seed=seed, weights=chances, collate=collate_latents, **settings)


def bucketed(
    train: Dataset[Any],
    ids: Sequence[int],
    val: Dataset[Any] | None,
    val_ids: Sequence[int],
    *,
    lengths: Sequence[float],
    seconds_a_batch: float,
    seed: int,
    **settings: Any,
) -> DataModule:
    """Each batch of one bucket; ``ids`` is each row's bucket, ``lengths`` the buckets in seconds."""
    sizes = batch_sizes(lengths, seconds_a_batch)
    settings |= {"batch_size": max(sizes.values()), "seed": seed}
    settings["sampler"] = lambda place: BucketDraws(list(ids), sizes, seed=seed, place=place)
    if not val_ids:
        return DataModule(train, **settings)
    ordered = BucketDraws(list(val_ids), sizes, seed=seed, shuffle=False, passes=1)
    return DataModule(train, val, val_sampler=ordered, **settings)


def from_bucketed_latents(
    *, folder: str, val_folder: str | None = None, seed: int = 0, **settings: Any
) -> DataModule:
    """Windows of a cache made with ``data encode --buckets``, about ``seconds_a_batch`` seconds of sound at once."""
    train = LatentDataset(folder, seed=seed)
    val = LatentDataset(val_folder, seed=seed) if val_folder else None
    frames = sorted(set(train.frames))
    second = max(frames) / read_index(folder)["seconds"]
    if val is not None and (extra := sorted(set(val.frames) - set(frames))):
        raise AudioLDMError(
            f"{val_folder} has windows of {extra} latent frames, {folder} has only {frames}.",
            "Encode both with the same --buckets.",
        )
    ids, val_ids = ([frames.index(count) for count in part.frames] if part else [] for part in (train, val))
    settings |= {"lengths": [count / second for count in frames], "collate": collate_latents}
    return bucketed(train, ids, val, val_ids, seed=seed, **settings)


def from_bucketed_manifests(
    spec: AudioSpec,
    *,
    manifests: Sequence[str],
    buckets: Sequence[float] = SECONDS,
    seed: int = 0,
    mixup: float = 0.0,
    **settings: Any,
) -> DataModule:
    """Clips of checked manifests, each in the shortest of ``buckets`` (seconds) that holds it; longer ones are cropped.

    Each batch has about ``seconds_a_batch`` seconds.   ``mixup`` is the chance that a second clip of the same bucket is
    mixed into one of training, its caption joined.
    """
    train, val = read_splits(manifests)
    lengths = list(buckets)
    clips = AudioText(train, spec, lengths, seed=seed, mixup=mixup)
    held = AudioText(val, spec, lengths, seed=seed, captions="first") if val else None
    return bucketed(clips, clips.ids, held, held.ids if held else (), lengths=lengths, seed=seed, **settings)


def null_tokens(folder: str) -> Tensor:
    """The sequence encoder's answer (L, E) to the empty prompt, as a latent cache keeps it."""
    index = read_index(folder)
    if "null_tokens" not in index:
        raise AudioLDMError(f"{folder} holds no tokens.", "Encode it again with a sequence encoder (--t5).")
    return torch.tensor(index["null_tokens"])
