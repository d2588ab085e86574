"""Batches for training: an endless, seeded stream that can begin at any batch."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any

import lightning as L
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from audioldm.datasets.audio_text import AudioText, Item, weights
from audioldm.datasets.audio_text import collate as collate_waves
from audioldm.datasets.draws import BEGIN, BucketDraws, Place, batch_sizes, generator
from audioldm.datasets.latents import LatentDataset, class_names, collate_latents, read_index
from audioldm.datasets.manifest import Row, read, refuse_leaks
from audioldm.datasets.shards import Shards, expand
from audioldm.datasets.store import SCALE
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec


class Draws(Sampler[list[tuple[int, int]]]):
    """Batches of (row, draw number) from ``start`` on, without end; batch k depends on (seed, k) only.

    Without ``weights`` one pass after the other goes through all rows, each in a new order, so every row comes once a
    pass; with them each batch draws rows by their chance.   Of ``world`` processes each takes its own ``batch_size``
    places of one batch of batch_size * world: together they draw what a single process with that batch would draw.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        place: Place = BEGIN,
        weights: Tensor | None = None,
    ) -> None:
        if size < 1:
            raise AudioLDMError("There are no rows to train on.", "Check the data set and its splits.")
        self.size, self.batch_size, self.place = size, batch_size, place
        self.seed, self.weights = seed, weights
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
        for k in count(self.place.start):
            first = (k * self.place.world + self.place.rank) * self.batch_size
            yield [(row, first + place) for place, row in enumerate(self.batch(k))]


class DataModule(L.LightningDataModule):
    """Serves ``train`` as an endless stream that begins where the model stopped, and ``val`` once through in order.

    ``draws`` (batch_size, place) -> batches of (row, draw number) takes the place of plain ``Draws``, ``val_draws``
    that of the rows in order.   A ``train`` that is a function (batch_size, place) is streamed.
    """

    def __init__(
        self,
        train: Any,
        val: Dataset[Any] | None = None,
        *,
        batch_size: int,
        workers: int = 0,
        collate: Callable[[Sequence[Any]], Any] = collate_waves,
        draws: Callable[..., Sampler[Any]] | None = None,
        val_draws: Sampler[Any] | None = None,
    ) -> None:
        super().__init__()
        self.train, self.val, self.collate, self.batch_size = train, val, collate, batch_size
        # more only wait for one another; the batches are the same
        self.workers = min(workers, os.cpu_count() or 1)
        self.draws, self.val_draws = draws, val_draws

    def train_dataloader(self) -> DataLoader[Any]:
        """Begins at the batch that the module has not met yet."""
        trainer, place = self.trainer, BEGIN
        if trainer is not None:
            met: Any = trainer.lightning_module.batch_count
            place = Place(met, trainer.global_rank, trainer.world_size)
        return self.loader(place)

    def loader(self, place: Place) -> DataLoader[Any]:
        """The stream from ``place`` on."""
        shared: dict[str, Any] = {"num_workers": self.workers, "persistent_workers": self.workers > 0}
        shared["pin_memory"] = torch.cuda.is_available()
        if not hasattr(self.train, "__getitem__"):
            return DataLoader(self.train(batch_size=self.batch_size, place=place), batch_size=None, **shared)
        draws = self.draws or partial(Draws, len(self.train))
        sampler = draws(batch_size=self.batch_size, place=place)
        return DataLoader(self.train, batch_sampler=sampler, collate_fn=self.collate, **shared)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out rows in order, or nothing; every process validates all of them, so all report the same number."""
        if self.val is None or not len(self.val):  # type: ignore[arg-type]
            return []
        order: Any = {"batch_sampler": self.val_draws} if self.val_draws else {"batch_size": self.batch_size}
        return DataLoader(self.val, collate_fn=self.collate, **order)


@dataclass(frozen=True)
class Levels:
    """Gains of crops: a share ``quiet`` is up to ``quietest`` dB softer, the rest 5 dB louder to 8 dB softer.

    A share ``silent`` is digital silence, which the quiet parts of real files are.
    """

    quietest: float = -40.0
    quiet: float = 0.5
    silent: float = 0.02

    def gain(self, rng: Generator) -> float:
        kind, share, sounds = torch.rand(3, generator=rng, dtype=torch.float64).tolist()
        decibels = self.quietest * share if kind < self.quiet else 5 - 13 * share
        return float(10 ** (decibels / 20) * (sounds >= self.silent))


@dataclass(frozen=True)
class Levelled(Dataset[Item]):
    """Crops of ``clips`` whose clip as a whole, not the crop, has a peak of 0.5; with a gain of ``levels``, if any."""

    clips: AudioText
    levels: Levels | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        wave, caption, path = self.clips[index]
        row, draw = index if isinstance(index, tuple) else (index, 0)
        # 26 dB at most, so that a nearly silent clip does not become noise
        factor = min(20.0, 0.5 * SCALE / max(1, int(self.clips.clip(row).abs().max())))
        if self.levels is not None:
            factor *= self.levels.gain(generator(self.clips.seed + 3, draw, row))
        return (wave * factor).clamp(-1, 1), caption, path


def in_buckets(
    ids: Sequence[int], val_ids: Sequence[int], lengths: Sequence[float], seconds_a_batch: float, seed: int
) -> dict[str, Any]:
    """What makes each batch of a ``DataModule`` one of one bucket; ``ids`` is each row's, ``lengths`` in seconds."""
    sizes = batch_sizes(lengths, seconds_a_batch)

    def draws(batch_size: int, place: Place) -> BucketDraws:
        return BucketDraws(list(ids), sizes, seed=seed, place=place)

    ordered = BucketDraws(list(val_ids), sizes, seed=seed, shuffle=False, passes=1) if val_ids else None
    return {"batch_size": max(sizes.values()), "draws": draws, "val_draws": ordered}


def by_chance(rows: Sequence[Row], by_source: Mapping[str, float] | None, seed: int) -> dict[str, Any]:
    """Rows drawn by the weights of their sources; without such, each once a pass."""
    chances = weights(rows, by_source) if by_source else None
    return {"draws": partial(Draws, len(rows), seed=seed, weights=chances)}


def from_synthetic(
    spec: AudioSpec, *, seconds: float, size: int = 280, seed: int = 0, **settings: Any
) -> DataModule:
    """Sounds made by rule; the validation ones are other draws of the same kinds."""
    train, val = Synthetic(spec, seconds, size, seed=seed), Synthetic(spec, seconds, 28, seed=seed + 1)
    return DataModule(train, val, draws=partial(Draws, size, seed=seed), **settings)


def from_manifests(
    spec: AudioSpec,
    *,
    manifests: Sequence[str],
    seconds: float = 0.0,
    buckets: Sequence[float] | None = None,
    seconds_a_batch: float = 0.0,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
    **settings: Any,
) -> DataModule:
    """Clips of checked manifests: their train split, drawn by ``weights`` of each source, and their val split.

    With ``buckets`` (seconds) each clip lies in the shortest that holds it, and each batch has about
    ``seconds_a_batch`` seconds of one bucket; else a clip is ``seconds`` long.   ``mixup`` is the chance that a second
    clip (of the same bucket) is mixed into one of training, its caption joined.   ``levels`` (of ``Levels``)
    lets crops keep their clips' levels, and draws gains.   Raises AudioLDMError where a clip is in both splits.
    """
    rows = list(chain.from_iterable(map(read, manifests)))
    refuse_leaks(rows)
    splits = defaultdict[str, list[Row]](list)
    for row in rows:
        splits[row.split].append(row)
    train, val = splits["train"], splits["val"]
    levels, lengths = settings.pop("levels", None), seconds if buckets is None else list(buckets)
    clips = AudioText(train, spec, lengths, seed=seed, mixup=settings.pop("mixup", 0.0))
    held = AudioText(val, spec, lengths, seed=seed, captions="first") if val else None
    order = by_chance(train, weights, seed)
    if buckets is not None:
        order = in_buckets(clips.ids, held.ids if held else (), list(buckets), seconds_a_batch, seed)
    if levels is not None:
        return DataModule(Levelled(clips, Levels(**levels)), held and Levelled(held), **settings, **order)
    return DataModule(clips, held, **settings, **order)


def from_latents(
    *,
    folder: str,
    val_folder: str | None = None,
    weights: Mapping[str, float] | None = None,
    seconds_a_batch: float | None = None,
    seed: int = 0,
    map: str | None = None,
    labelled: bool = False,
    **settings: Any,
) -> DataModule:
    """Windows of a latent cache, drawn by ``weights`` of each source; with the ``map`` of a control, or their classes.

    ``seconds_a_batch`` of a cache made with ``data encode --buckets``: about so much sound a batch, of one length.
    """
    classes = class_names(folder) if labelled else None
    train = LatentDataset(folder, seed=seed, map=map, classes=classes)
    val = LatentDataset(val_folder, seed=seed, map=map, classes=classes) if val_folder else None
    if seconds_a_batch is None:
        rows = [Row(str(i), ("",), source=source) for i, source in enumerate(train.sources)]
        order = by_chance(rows, weights, seed)
    else:
        frames, lengths = (train.frames, val.frames if val else []), sorted(set(train.frames))
        if extra := sorted(set(frames[1]) - set(lengths)):
            why = f"{val_folder} has windows of {extra} latent frames, {folder} has only {lengths}."
            raise AudioLDMError(why, "Encode both with the same --buckets.")
        second = max(lengths) / read_index(folder)["seconds"]
        ids, val_ids = ([lengths.index(length) for length in part] for part in frames)
        order = in_buckets(ids, val_ids, [length / second for length in lengths], seconds_a_batch, seed)
    return DataModule(train, val, collate=collate_latents, **settings, **order)


def from_shards(
    spec: AudioSpec,
    *,
    shards: Sequence[str],
    seconds: float,
    val_manifest: str | None = None,
    buffer: int = 500,
    seed: int = 0,
    **settings: Any,
) -> DataModule:
    """``shards`` are paths, patterns such as data/shards/*.tar, or addresses; validation comes from a manifest."""
    paths = expand(shards)
    if not paths:
        raise AudioLDMError(f"{list(shards)} match no shard.", "Write some with `audioldm data shard`.")
    rows = read(val_manifest, split="val") if val_manifest else []
    val = AudioText(rows, spec, seconds, seed=seed, captions="first") if rows else None
    return DataModule(partial(Shards, paths, spec, seconds, seed=seed, buffer=buffer), val, **settings)


def null_tokens(folder: str) -> Tensor:
    """The sequence encoder's answer (L, E) to the empty prompt, as a latent cache keeps it."""
    index = read_index(folder)
    if "null_tokens" not in index:
        raise AudioLDMError(f"{folder} holds no tokens.", "Encode it again with a sequence encoder (--t5).")
    return torch.tensor(index["null_tokens"])
