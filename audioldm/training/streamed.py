"""Batches from shards for training: the stream of ``datasets.shards`` behind the same door as other data."""

from collections.abc import Sequence

import lightning as L
from torch.utils.data import DataLoader

from audioldm.batch import Batch
from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.audio_text import collate as collate_waves
from audioldm.datasets.manifest import read
from audioldm.datasets.shards import Shards, expand
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec


class StreamedData(L.LightningDataModule):
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
        self.spec, self.seconds, self.seed, self.buffer = spec, seconds, seed, buffer
        self.batch_size, self.workers, self.repeat = batch_size, workers, False
        self.shards = expand(shards)
        if not self.shards:
            raise AudioLDMError(f"{list(shards)} match no shard.", "Write some with `audioldm data shard`.")
        rows = read(val_manifest, split="val") if val_manifest else []
        self.val = AudioText(rows, spec, seconds, seed=seed, captions="first") if rows else None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Begins at the batch that the module has not seen yet."""
        start, rank, world = 0, 0, 1
        if self.trainer is not None:
            start = self.trainer.lightning_module.seen
            rank, world = self.trainer.global_rank, self.trainer.world_size
        data = Shards(
            self.shards, self.spec, self.seconds, batch_size=self.batch_size, seed=self.seed, buffer=self.buffer,
            start=start, rank=rank, world=world,
        )  # fmt: skip
        return DataLoader(data, batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[Batch] | list[Batch]:
        """Held-out rows in order, or nothing."""
        if self.val is None:
            return []
        return DataLoader(self.val, self.batch_size, collate_fn=collate_waves)
