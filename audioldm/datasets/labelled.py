"""Cached latents with one class each, for a classifier.   B batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from audioldm.batch import LatentBatch
from audioldm.datasets.cache import read_index
from audioldm.datasets.latents import LatentDataset, collate_latents
from audioldm.errors import AudioLDMError

Item = tuple[LatentBatch, int]


def labels_of(folder: Path | str) -> list[str]:
    """The one label of each window of a cache."""
    index = read_index(folder)
    labels = index.get("labels", [])
    if len(labels) != index["windows"]:
        raise AudioLDMError(f"{folder} was made without labels.", "Encode it again with --force.")
    wrong = next((found for found in labels if len(found) != 1), None)
    if wrong is not None:
        raise AudioLDMError(
            f"{folder} holds a window with {len(wrong)} labels {wrong}; a classifier needs one each.",
            "Encode a manifest of one label a clip, without --mixup.",
        )
    return [found[0] for found in labels]


def class_names(folder: Path | str) -> list[str]:
    """Every label of a cache, sorted."""
    return sorted(set(labels_of(folder)))


def latent_facts(folder: Path | str) -> dict[str, Any]:
    """Channels of a cache's latents and the digest of the encoder that made them."""
    index = read_index(folder)
    return {"latent_channels": index["latent_channels"], "encoder": index.get("encoder", "")}


class LabelledLatents(Dataset[Item]):
    """A latent cache whose windows have a label each, as (window, place of the label in ``classes``)."""

    def __init__(self, folder: Path | str, classes: Sequence[str], *, seed: int) -> None:
        self.latents = LatentDataset(folder, seed=seed)
        labels = labels_of(folder)
        unknown = sorted(set(labels) - set(classes))
        if unknown:
            raise AudioLDMError(
                f"{folder} has the label {unknown[0]!r}, which is not trained.",
                f"Known: {', '.join(classes)}.",
            )
        self.targets = [list(classes).index(label) for label in labels]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        return self.latents[index], self.targets[index[0] if isinstance(index, tuple) else index]


def collate_labelled(items: Sequence[Item]) -> tuple[LatentBatch, Tensor]:
    """Windows and their classes (B,)."""
    return collate_latents([window for window, _ in items]), torch.tensor([target for _, target in items])
