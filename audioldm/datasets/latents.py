"""Cached latents: VAE and CLAP run once, not at every step.   n windows, C channels, T frames, F bins, D embedding.

A folder of safetensors shards and ``index.json``.   A shard holds raw posteriors ``mean`` and ``std`` (n, C, T, F) in
float16, never scaled; ``audio`` (n, D); and ``text`` (m, D) with ``offset`` (n + 1): the captions of window i are rows
offset[i] to offset[i+1].   The scaling factor is measured over all of them and stored in the index.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from audioldm.batch import LatentBatch
from audioldm.datasets.audio_text import draw, generator
from audioldm.errors import AudioLDMError

SHARD = 512  # windows a shard: 64 MB at 8 x 128 x 16 in float16


@dataclass(frozen=True)
class Encoded:
    """One window: mean, std (C, T, F), audio (D,), text (captions, D), and the source it came from."""

    mean: Tensor
    std: Tensor
    audio: Tensor
    text: Tensor
    source: str


def write_latents(windows: Iterable[Encoded], folder: Path | str, *, about: dict[str, Any]) -> dict[str, Any]:
    """Write shards and the index, which says ``about`` what was encoded by what.   Returns the index."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards, sources, waiting = [], [], list[Encoded]()

    def flush() -> None:
        name = f"latents-{len(shards):05d}.safetensors"
        counts = torch.tensor([0, *(len(w.text) for w in waiting)])
        save_file(
            {
                "mean": torch.stack([w.mean for w in waiting]).half(),
                "std": torch.stack([w.std for w in waiting]).half(),
                "audio": torch.stack([w.audio for w in waiting]),
                "text": torch.cat([w.text for w in waiting]),
                "offset": counts.cumsum(0),
            },
            folder / name,
        )
        shards.append(name)
        sources.extend(w.source for w in waiting)
        waiting.clear()

    for window in windows:
        waiting.append(window)
        if len(waiting) == SHARD:
            flush()
    if waiting:
        flush()
    if not shards:
        raise AudioLDMError(
            "No window was encoded.", "Check the manifest with `audioldm data check`.", code=1
        )
    index = {**about, "shards": shards, "sources": sources, "windows": len(sources)}
    write_index(folder, index)
    return index


def write_index(folder: Path | str, index: dict[str, Any]) -> None:
    """Replace the index in one move."""
    path = Path(folder) / "index.json"
    path.with_suffix(".tmp").write_text(json.dumps(index, indent=1))
    os.replace(path.with_suffix(".tmp"), path)


def read_index(folder: Path | str) -> dict[str, Any]:
    """The index of a latent cache."""
    path = Path(folder) / "index.json"
    if not path.is_file():
        raise AudioLDMError(
            f"{folder} is no latent cache: index.json is missing.", "Run `audioldm data encode` first."
        )
    return json.loads(path.read_text())


def read_shards(folder: Path | str) -> list[dict[str, Tensor]]:
    """Every shard, in order."""
    shards = []
    for name in read_index(folder)["shards"]:
        try:
            shards.append(load_file(Path(folder) / name))
        except (SafetensorError, OSError) as error:
            raise AudioLDMError(
                f"{folder}/{name} cannot be read ({error}).", "Encode again.", code=1
            ) from None
    return shards


def measure(folder: Path | str) -> dict[str, float]:
    """Mean and standard deviation of posterior samples over the whole cache, and 1/std.   Rombach 2022 sec. 4.3.2.

    A sample's variance is Var[mean] + E[std^2]; both in float64 over every window.
    """
    count, total, squares = 0, 0.0, 0.0
    for shard in read_shards(folder):
        mean, std = shard["mean"].double(), shard["std"].double()
        count += mean.numel()
        total += float(mean.sum())
        squares += float(mean.square().sum() + std.square().sum())
    average = total / count
    deviation = (squares / count - average**2) ** 0.5
    return {"mean": average, "std": deviation, "scaling_factor": 1 / deviation, "values": count}


def scaling_factor(folder: Path | str) -> float:
    """The measured one."""
    index = read_index(folder)
    if "scaling_factor" not in index:
        raise AudioLDMError(
            f"{folder} has no measured scaling factor.", f"Run `audioldm data stats {folder}`."
        )
    return float(index["scaling_factor"])


def null_embedding(folder: Path | str) -> Tensor:
    """CLAP's embedding (D,) of the empty prompt, as it was when the cache was made."""
    return torch.tensor(read_index(folder)["null"])


class LatentDataset(Dataset[LatentBatch]):
    """Windows of a cache in memory.   Item: mean, std (C, T, F), one caption's embedding (D,), the sound's (D,)."""

    def __init__(self, folder: Path | str, *, seed: int) -> None:
        shards = read_shards(folder)
        self.seed = seed
        self.mean, self.std = (torch.cat([s[k] for s in shards]) for k in ("mean", "std"))
        self.audio, self.text = (torch.cat([s[k] for s in shards]) for k in ("audio", "text"))
        counts = torch.cat([s["offset"].diff() for s in shards])
        self.offset = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self.sources: list[str] = read_index(folder)["sources"]

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, index: int | tuple[int, int]) -> LatentBatch:
        """Window ``index``, with draw number 0 or the one given beside it."""
        index, epoch = index if isinstance(index, tuple) else (index, 0)
        first, last = int(self.offset[index]), int(self.offset[index + 1])
        pick = first + draw(last - first, generator(self.seed, epoch, index))
        return LatentBatch(
            self.mean[index].float(), self.std[index].float(), self.text[pick], self.audio[index]
        )


def collate_latents(items: Sequence[LatentBatch]) -> LatentBatch:
    """Stack windows to a batch."""
    return LatentBatch(
        *(torch.stack([getattr(i, k) for i in items]) for k in ("mean", "std", "text", "audio"))
    )
