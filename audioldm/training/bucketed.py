"""Waves or cached latents of several lengths, each batch of one: 2 to 30 s train together with little padding."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.buckets import SECONDS, BucketDraws, batch_sizes
from audioldm.datasets.cache import read_index
from audioldm.datasets.latents import LatentDataset, collate_latents
from audioldm.datasets.manifest import read, refuse_leaks
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec
from audioldm.training.data import DataModule


class BucketModule(DataModule):
    """As DataModule, in batches of one bucket; ``ids`` is each row's bucket, ``lengths`` the buckets in seconds."""

    def __init__(
        self,
        train: Dataset[Any],
        ids: Sequence[int],
        val: Dataset[Any] | None = None,
        val_ids: Sequence[int] = (),
        *,
        lengths: Sequence[float],
        seconds_a_batch: float,
        seed: int = 0,
        workers: int = 0,
        **more: Any,
    ) -> None:
        self.sizes = batch_sizes(lengths, seconds_a_batch)
        super().__init__(train, val, batch_size=max(self.sizes.values()), seed=seed, workers=workers, **more)
        self.ids, self.val_ids = list(ids), list(val_ids)

    def train_dataloader(self) -> DataLoader[Any]:
        """Begins at the batch that the module has not seen yet."""
        start, rank, world = 0, 0, 1
        if self.trainer is not None:
            start = int(self.trainer.lightning_module.seen)
            rank, world = self.trainer.global_rank, self.trainer.world_size
        draws = BucketDraws(self.ids, self.sizes, seed=self.seed, start=start, rank=rank, world=world)
        return DataLoader(
            self.train,
            batch_sampler=draws,
            collate_fn=self.collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Held-out rows, bucket after bucket, or nothing."""
        if self.val is None or not self.val_ids:
            return []
        draws = BucketDraws(self.val_ids, self.sizes, seed=self.seed, shuffle=False, passes=1)
        return DataLoader(self.val, batch_sampler=draws, collate_fn=self.collate, num_workers=0)


def from_bucketed_latents(
    *, folder: str, seconds_a_batch: float, val_folder: str | None = None, seed: int = 0, workers: int = 0
) -> BucketModule:
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
    return BucketModule(
        train,
        [frames.index(own) for own in train.frames],
        val,
        [frames.index(own) for own in val.frames] if val is not None else (),
        lengths=[own / second for own in frames],
        seconds_a_batch=seconds_a_batch,
        seed=seed,
        workers=workers,
        collate=collate_latents,
    )


def from_bucketed_manifests(
    spec: AudioSpec,
    *,
    manifests: Sequence[str],
    seconds_a_batch: float,
    buckets: Sequence[float] = SECONDS,
    seed: int = 0,
    workers: int = 0,
    mixup: float = 0.0,
) -> BucketModule:
    """Clips of checked manifests, each in the shortest of ``buckets`` (seconds) that holds it; longer ones are cropped.

    ``mixup`` is the chance that a second clip of the same bucket is mixed into one of training, its caption joined.
    """
    rows = [row for path in manifests for row in read(path)]
    refuse_leaks(rows)
    train, val = ([row for row in rows if row.split == split] for split in ("train", "val"))
    lengths = list(buckets)
    clips = AudioText(train, spec, lengths[-1], seed=seed, buckets=lengths, mixup=mixup)
    held = AudioText(val, spec, lengths[-1], seed=seed, buckets=lengths, captions="first") if val else None
    return BucketModule(
        clips,
        clips.ids,
        held,
        held.ids if held else (),
        lengths=lengths,
        seconds_a_batch=seconds_a_batch,
        seed=seed,
        workers=workers,
    )
