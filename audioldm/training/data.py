"""Batches for training: an endless, seeded stream that can begin at any batch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, count
from time import perf_counter
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from audioldm.datasets.audio_text import AudioText, Item
from audioldm.datasets.audio_text import collate as collate_waves
from audioldm.datasets.audio_text import weights as row_weights
from audioldm.datasets.draws import BEGIN, BucketDraws, Place, batch_sizes, generator
from audioldm.datasets.latents import LatentDataset, class_names, collate_latents, read_index
from audioldm.datasets.manifest import Row, read, refuse_leaks
from audioldm.datasets.shards import Shards, expand
from audioldm.datasets.store import SCALE
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec


class Draws(Sampler[list[tuple[int, int]]]):
    """Batches of (row, draw number) from ``place`` on, without end; batch k depends on (seed, k) only.

    Every row comes once a pass, in a new order, or by its ``weights``.   Of ``world`` processes each takes its own
    ``batch_size`` places of one batch of batch_size * world: together they draw what a single process would.
    """

    def __init__(
        self, size: int, batch_size: int, *, seed: int = 0, place: Place = BEGIN,
        weights: Tensor | None = None,
    ) -> None:  # fmt: skip
        if size < 1:
            raise AudioLDMError("There are no rows to train on.", "Check the data set and its splits.")
        self.size, self.batch_size, self.place = size, batch_size, place
        self.seed, self.weights = seed, weights

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rank, total = self.place.rank, self.batch_size * self.place.world
        enough = self.weights is not None and int((self.weights > 0).sum()) >= total

        @lru_cache(1)
        def order(number: int) -> list[int]:
            return torch.randperm(self.size, generator=generator(self.seed, number, 2)).tolist()

        for k in count(self.place.start):
            places = range(k * total + rank * self.batch_size, k * total + (rank + 1) * self.batch_size)
            if self.weights is None:
                rows = [order(place // self.size)[place % self.size] for place in places]
            else:
                rng = generator(self.seed, k, 1)
                drawn = torch.multinomial(self.weights, total, replacement=not enough, generator=rng)
                rows = drawn.view(-1, self.batch_size)[rank].tolist()
            yield list(zip(rows, places, strict=True))


class Loader(DataLoader[Any]):
    """Counts the seconds that its batches were ``waited`` for; a GPU that works meanwhile is not."""

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        begun = perf_counter()
        for batch in super().__iter__():
            self.waited += perf_counter() - begun
            yield batch
            begun = perf_counter()


@dataclass(frozen=True)
class Buckets:
    """The bucket of each row of the two data sets, and how many rows of each bucket make a batch."""

    train: Sequence[int]
    val: Sequence[int]
    sizes: dict[int, int]


class DataModule(L.LightningDataModule):
    """Serves ``train`` as an endless stream that begins where the model stopped, and ``val`` once through in order.

    Rows come as by ``Draws``, or with ``buckets`` in batches of one each; a function (batch_size, place) is streamed.
    """

    captions: Sequence[str] = ("",)  # a few, for previews

    def __init__(
        self, train: Any, val: Dataset[Any] | None = None, *, batch_size: int = 8, seed: int = 0,
        weights: Tensor | None = None, buckets: Buckets | None = None, workers: int = 0,
        collate: Callable[[Sequence[Any]], Any] = collate_waves,
    ) -> None:  # fmt: skip
        super().__init__()
        self.train, self.val, self.collate, self.seed = train, val, collate, seed
        self.batch_size = max(buckets.sizes.values()) if buckets else batch_size
        self.weights, self.buckets = weights, buckets
        # more only wait for one another; the batches are the same
        self.workers = min(workers, os.cpu_count() or 1)

    def train_dataloader(self) -> DataLoader[Any]:
        """Begins at the batch that the module has not met yet."""
        if (trainer := self.trainer) is None:
            return self.loader(BEGIN)
        met: Any = trainer.lightning_module.batch_count
        return self.loader(Place(met, trainer.global_rank, trainer.world_size))

    def loader(self, place: Place) -> DataLoader[Any]:
        """The stream from ``place`` on."""
        shared: dict[str, Any] = {"num_workers": self.workers, "persistent_workers": self.workers > 0}
        shared["pin_memory"] = torch.cuda.is_available()
        if not hasattr(self.train, "__getitem__"):
            return Loader(self.train(batch_size=self.batch_size, place=place), batch_size=None, **shared)
        about: Any = {"seed": self.seed, "place": place}
        if self.buckets is None:
            draws: Any = Draws(len(self.train), self.batch_size, weights=self.weights, **about)
        else:
            draws = BucketDraws(self.buckets.train, self.buckets.sizes, **about)
        return Loader(self.train, batch_sampler=draws, collate_fn=self.collate, **shared)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out rows in order, or nothing; every process validates all of them, so all report the same number."""
        if self.val is None or not len(self.val):  # type: ignore[arg-type]
            return []
        order: Any = {"batch_size": self.batch_size}
        if self.buckets is not None:
            about: Any = {"seed": self.seed, "shuffle": False, "passes": 1}
            order = {"batch_sampler": BucketDraws(self.buckets.val, self.buckets.sizes, **about)}
        return DataLoader(self.val, collate_fn=self.collate, **order)


def gain(rng: Generator, quietest: float = -40.0, quiet: float = 0.5, silent: float = 0.02) -> float:
    """A factor: a share ``quiet`` up to ``quietest`` dB softer, the rest +5 to -8 dB; a share ``silent`` is 0."""
    kind, share, sounds = torch.rand(3, generator=rng, dtype=torch.float64).tolist()
    decibels = quietest * share if kind < quiet else 5 - 13 * share
    return float(10 ** (decibels / 20) * (sounds >= silent))


@dataclass(frozen=True)
class Levelled(Dataset[Item]):
    """Crops of ``clips`` whose clip as a whole, not the crop, has a peak of 0.5; ``levels`` are ``gain``'s, if any."""

    clips: AudioText
    levels: Mapping[str, float] | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        wave, caption, path = self.clips[index]
        row, draw = index if isinstance(index, tuple) else (index, 0)
        # 26 dB at most, so that a nearly silent clip does not become noise
        factor = min(20.0, 0.5 * SCALE / max(1, int(self.clips.clip(row).abs().max())))
        if self.levels is not None:
            factor *= gain(generator(self.clips.seed + 3, draw, row), **self.levels)
        return (wave * factor).clamp(-1, 1), caption, path


def from_synthetic(
    spec: AudioSpec, *, seconds: float, size: int = 280, seed: int = 0, **settings: Any
) -> DataModule:
    """Sounds made by rule; the validation ones are other draws of the same kinds."""
    train, val = Synthetic(spec, seconds, size, seed=seed), Synthetic(spec, seconds, 28, seed=seed + 1)
    return DataModule(train, val, seed=seed, **settings)


def held_out(rows: Sequence[Row], spec: AudioSpec, seconds: Any, seed: int) -> AudioText | None:
    return AudioText(rows, spec, seconds, seed=seed, captions="first") if rows else None


def from_manifests(
    spec: AudioSpec, *, manifests: Sequence[str], seconds: float = 0.0, buckets: Sequence[float] | None = None,
    seconds_a_batch: float = 0.0, weights: Mapping[str, float] | None = None, seed: int = 0, **settings: Any,
) -> DataModule:  # fmt: skip
    """Clips of checked manifests: their train split, drawn by ``weights`` of each source, and their val split.

    Windows of ``seconds``, or of the shortest of ``buckets`` (seconds) that holds the clip, about ``seconds_a_batch``
    of one bucket a batch.   ``mixup`` is the chance that a second clip is mixed into one of training, its caption
    joined.   ``levels`` are ``Levelled``'s.   Raises AudioLDMError where a clip is in both splits.
    """
    rows = list(chain.from_iterable(map(read, manifests)))
    refuse_leaks(rows)
    train, held = ([row for row in rows if row.split == split] for split in ("train", "val"))
    levels, lengths = settings.pop("levels", None), seconds if buckets is None else list(buckets)
    clips: Any = AudioText(train, spec, lengths, seed=seed, mixup=settings.pop("mixup", 0.0))
    val: Any = held_out(held, spec, lengths, seed)
    if buckets is not None:
        sizes = batch_sizes(buckets, seconds_a_batch)
        settings["buckets"] = Buckets(clips.ids, getattr(val, "ids", ()), sizes)
    elif weights:
        settings["weights"] = row_weights(train, weights)
    if levels is not None:
        clips, val = Levelled(clips, levels), val and Levelled(val)
    return DataModule(clips, val, seed=seed, **settings)


def from_latents(
    *, folder: str, val_folder: str | None = None, weights: Mapping[str, float] | None = None,
    seconds_a_batch: float | None = None, seed: int = 0, map: str | None = None, labelled: bool = False,
    **settings: Any,
) -> DataModule:  # fmt: skip
    """Windows of a latent cache, drawn by ``weights`` of each source; with the ``map`` of a control, or their classes.

    ``seconds_a_batch`` of a cache made with ``data encode --buckets``: about so much sound a batch, of one length.
    """
    about: Any = {"seed": seed, "map": map, "classes": class_names(folder) if labelled else None}
    train = LatentDataset(folder, **about)
    val = LatentDataset(val_folder, **about) if val_folder else None
    if seconds_a_batch is not None:
        held, lengths = getattr(val, "frames", []), sorted(set(train.frames))
        if extra := sorted(set(held) - set(lengths)):
            why = f"{val_folder} has windows of {extra} latent frames, {folder} has only {lengths}."
            raise AudioLDMError(why, "Encode both with the same --buckets.")
        second = lengths[-1] / read_index(folder)["seconds"]
        sizes = batch_sizes([length / second for length in lengths], seconds_a_batch)
        ids, held_ids = np.searchsorted(lengths, train.frames), np.searchsorted(lengths, held)
        settings["buckets"] = Buckets(ids.tolist(), held_ids.tolist(), sizes)
    elif weights:
        rows = [Row(str(i), ("",), source=source) for i, source in enumerate(train.sources)]
        settings["weights"] = row_weights(rows, weights)
    return DataModule(train, val, collate=collate_latents, seed=seed, **settings)


def from_shards(
    spec: AudioSpec, *, shards: Sequence[str], seconds: float, val_manifest: str | None = None,
    buffer: int = 500, seed: int = 0, **settings: Any,
) -> DataModule:  # fmt: skip
    """``shards`` are paths, patterns such as data/shards/*.tar, or addresses; validation comes from a manifest."""
    if not (paths := expand(shards)):
        raise AudioLDMError(f"{list(shards)} match no shard.", "Write some with `audioldm data shard`.")
    val = held_out(read(val_manifest, split="val") if val_manifest else [], spec, seconds, seed)
    return DataModule(partial(Shards, paths, spec, seconds, seed=seed, buffer=buffer), val, **settings)


def null_tokens(folder: str) -> Tensor:
    """The sequence encoder's answer (L, E) to the empty prompt, as a latent cache keeps it."""
    index = read_index(folder)
    if "null_tokens" not in index:
        raise AudioLDMError(f"{folder} holds no tokens.", "Encode it again with a sequence encoder (--t5).")
    return torch.tensor(index["null_tokens"])
