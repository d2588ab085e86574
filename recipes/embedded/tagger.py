"""YAMNet for rows of manifests, and for batches on a GPU.   B clips, N samples, P patches, n rows."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row
from audioldm.evaluation.embedders import yamnet
from audioldm.progress import counted


def load_row(row: Row, rate: int = yamnet.RATE) -> Tensor:
    """The row's part of its file as a mono wave (N,) at ``rate`` Hz."""
    return decode(row.path, rate, start=row.start, seconds=row.seconds)


def embed_rows(rows: Sequence[Row], net: yamnet.YamNet) -> Tensor:
    """Mean embeddings (n, 1024) of manifest rows."""
    return torch.stack([net.embed(load_row(row)).rows.mean(dim=0) for row in counted(rows, "clips")])


class Tagger:
    """Waves (B, N) at 16 kHz to embeddings (B, P, 1024) and logits (B, P, 521)."""

    def __init__(self, archive: Path, device: torch.device | str) -> None:
        self.net = yamnet.Net(archive, device)

    def __call__(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        patches = yamnet.patches(wave)
        embeddings, logits = self.net(patches.flatten(0, 1))
        return embeddings.unflatten(0, patches.shape[:2]), logits.unflatten(0, patches.shape[:2])
