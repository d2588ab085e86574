"""Cached latents: VAE and CLAP run once, not at every step.   n windows, C channels, T frames, F bins, D embedding.

A shard holds raw posteriors ``mean`` and ``std`` (n, C, T, F) in float16, never scaled; ``audio`` (n, D); ``text``
(m, D) with ``offset`` (n + 1): window i has rows offset[i] to offset[i+1]; ``tokens`` with ``token_offset`` (m + 1).
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from audioldm.batch import LatentBatch
from audioldm.datasets.cache import MAP, read_index, read_shards, refuse_stale
from audioldm.datasets.draws import draw, generator
from audioldm.errors import AudioLDMError

LabelledItem = tuple[LatentBatch, int]  # a window and the place of its label among the classes


def measure(
    folder: Path | str, *, on_windows: Callable[[int], None] = lambda count: None
) -> dict[str, float]:
    """Mean and deviation of posterior samples over the whole cache, and 1/std.   Rombach 2022 sec. 4.3.2.

    A sample's variance is Var[mean] + E[std^2]; in float64.   ``on_windows`` gets each shard's number of windows.
    """
    count, total, squares = 0, 0.0, 0.0
    for shard in read_shards(folder):
        mean, std = shard["mean"].double(), shard["std"].double()
        count += mean.numel()
        total += float(mean.sum())
        squares += float(mean.square().sum() + std.square().sum())
        on_windows(len(mean))
    std_all = (squares / count - (total / count) ** 2) ** 0.5
    return {"mean": total / count, "std": std_all, "scaling_factor": 1 / std_all, "values": count}


def scaling_factor(folder: Path | str) -> float:
    """The measured one."""
    index = read_index(folder)
    if "scaling_factor" not in index:
        hint = f"Run `audioldm data stats {folder}`."
        raise AudioLDMError(f"{folder} has no measured scaling factor.", hint)
    return float(index["scaling_factor"])


def null_embedding(folder: Path | str) -> Tensor:
    """CLAP's embedding (D,) of the empty prompt, as it was when the cache was made."""
    return torch.tensor(read_index(folder)["null"])


class LatentDataset(Dataset[LatentBatch]):
    """Windows of a cache, memory-mapped.   Item: mean, std (C, T, F), one caption's embedding (D,), the sound's (D,).

    A stale or damaged cache is refused.   ``frames`` has the length of every window, for buckets.   ``map`` names a
    control's map that each window is to carry.
    """

    def __init__(self, folder: Path | str, *, seed: int, verify: bool = True, map: str | None = None) -> None:
        index = read_index(folder)
        refuse_stale(folder, index)
        self.folder, self.seed = folder, seed
        self.shards = list(read_shards(folder, verify=verify))
        self.ends = list(accumulate(len(shard["mean"]) for shard in self.shards))
        self.frames = [shard["mean"].shape[2] for shard in self.shards for _ in range(len(shard["mean"]))]
        self.sources: list[str] = index["sources"]
        self.map = None if map is None else f"{MAP}{map}"
        if self.map is not None and self.map not in self.shards[0]:
            hint = f"Encode it again with --maps {map} --force."
            raise AudioLDMError(f"{folder} holds no map {map!r}.", hint)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int | tuple[int, int]) -> LatentBatch:
        """Window ``index``, with draw number 0 or the one given beside it."""
        index, epoch = index if isinstance(index, tuple) else (index, 0)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self.ends, index)
        shard, place = self.shards[number], index - (self.ends[number - 1] if number else 0)
        first, last = int(shard["offset"][place]), int(shard["offset"][place + 1])
        pick = first + draw(last - first, generator(self.seed, epoch, index))
        tokens = None
        if "tokens" in shard:
            begin, end = shard["token_offset"][pick : pick + 2].tolist()
            tokens = shard["tokens"][begin:end].float()
        # copies: a view would carry the whole map into a worker's queue
        mean, std = shard["mean"][place].float(), shard["std"][place].float()
        drawn = None if self.map is None else shard[self.map][place].float()
        text, audio = shard["text"][pick].clone(), shard["audio"][place].clone()
        facts = shard["facts"][place].clone() if "facts" in shard else None
        return LatentBatch(mean, std, text, audio, tokens, curve=drawn, facts=facts)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shards": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.shards = list(read_shards(self.folder, verify=False))  # the parent has verified them


def collate_latents(items: Sequence[LatentBatch]) -> LatentBatch:
    """Stack windows of one length to a batch; token sequences are padded to the longest, with a mask (B, L)."""
    parts = {}
    for name in ("mean", "std", "text", "audio", "curve", "facts"):
        if values := [part for item in items if (part := getattr(item, name)) is not None]:
            parts[name] = torch.stack(values)
    batch = LatentBatch(**parts)
    if not (sequences := [item.tokens for item in items if item.tokens is not None]):
        return batch
    tokens = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
    return replace(batch, tokens=tokens, mask=mask)


def labels_of(folder: Path | str) -> list[str]:
    """The one label of each window of a cache."""
    index = read_index(folder)
    labels = index.get("labels", [])
    if len(labels) != index["windows"]:
        raise AudioLDMError(f"{folder} was made without labels.", "Encode it again with --force.")
    wrong = next((names for names in labels if len(names) != 1), None)
    if wrong is not None:
        what = f"{folder} holds a window with {len(wrong)} labels {wrong}; a classifier needs one each."
        raise AudioLDMError(what, "Encode a manifest of one label a clip, without --mixup.")
    return [names[0] for names in labels]


def class_names(folder: Path | str) -> list[str]:
    return sorted(set(labels_of(folder)))


def latent_facts(folder: Path | str) -> dict[str, Any]:
    """Channels of a cache's latents and the digest of the encoder that made them."""
    index = read_index(folder)
    return {"latent_channels": index["latent_channels"], "encoder": index.get("encoder", "")}


class LabelledLatents(Dataset[LabelledItem]):
    """A latent cache whose windows have a label each, as (window, place of the label in ``classes``)."""

    def __init__(self, folder: Path | str, classes: Sequence[str], *, seed: int) -> None:
        self.latents = LatentDataset(folder, seed=seed)
        if unknown := sorted(set(labels := labels_of(folder)) - set(classes)):
            hint = f"Known: {', '.join(classes)}."
            raise AudioLDMError(f"{folder} has the label {unknown[0]!r}, which is not trained.", hint)
        self.targets = [list(classes).index(label) for label in labels]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int | tuple[int, int]) -> LabelledItem:
        return self.latents[index], self.targets[index[0] if isinstance(index, tuple) else index]


def collate_labelled(items: Sequence[LabelledItem]) -> tuple[LatentBatch, Tensor]:
    """Windows and their classes (B,)."""
    return collate_latents([window for window, _ in items]), torch.tensor([target for _, target in items])
