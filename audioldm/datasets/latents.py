"""Cached latents: VAE and CLAP run once, not at every step.   n windows, C channels, T frames, F bins, D embedding.

A shard holds raw posteriors ``mean`` and ``std`` (n, C, T, F) in float16, never scaled; ``audio`` (n, D); ``text``
(m, D) with ``offset`` (n + 1): window i has rows offset[i] to offset[i+1]; ``tokens`` with ``token_offset`` (m + 1).
Shards are written one by one, keyed by what made them, and read by memory map.   A cache with another key is refused,
one that was cut off goes on; a hash of each shard finds damage before training.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from audioldm.batch import LatentBatch
from audioldm.datasets.draws import draw, generator
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256, staged, write_text
from audioldm.progress import counted
from audioldm.tables import read_object

SHARD = 512  # windows a shard: 64 MB at 8 x 128 x 16 in float16
FORMAT = 2
AGAIN = "Copy it again, or encode again with --force."
MAP = "map."  # before the name of a control's map


@dataclass(frozen=True)
class Encoded:
    """One window: mean, std (C, T, F), audio (D,), text (captions, D), and the source it came from.

    ``tokens`` is a text encoder's sequence (L, E) for each caption, where there is one; ``labels`` are the manifest's;
    ``maps`` are what a control is trained on, (frames,) or (frames, bands); ``facts`` (5,) are ``LatentBatch``'s.
    """

    mean: Tensor
    std: Tensor
    audio: Tensor
    text: Tensor
    source: str
    tokens: tuple[Tensor, ...] = ()
    labels: tuple[str, ...] = ()
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Tensor | None = None


def key_of(settings: Mapping[str, Any]) -> str:
    """The hash of everything that decides a cache's windows; the order of names does not matter."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **settings}, sort_keys=True).encode()).hexdigest()


def ingredient(what: str, file: Path | str, prefixes: Sequence[str] = ()) -> dict[str, Any]:
    """A file that a cache is made from, and its hash: of all bytes, or of the tensors whose names begin so."""
    path = Path(file).absolute()
    about = {"what": what, "file": str(path), "prefixes": list(prefixes)}
    if not prefixes:
        return {**about, "sha256": sha256(path)}
    digest = hashlib.sha256()
    with safe_open(path, "pt") as tensors:
        for name in sorted(tensors.keys()):
            if name.startswith(tuple(prefixes)):
                digest.update(name.encode())
                digest.update(tensors.get_tensor(name).contiguous().view(torch.uint8).numpy().tobytes())
    return {**about, "sha256": digest.hexdigest()}


def write_index(folder: Path | str, index: Mapping[str, Any]) -> None:
    write_text(Path(folder) / "index.json", json.dumps(index, indent=1))


def read_index(folder: Path | str, *, whole: bool = True) -> dict[str, Any]:
    """What a cache says of itself.   Raises AudioLDMError where it is none, and with ``whole`` where it was cut off."""
    path = Path(folder) / "index.json"
    if not path.is_file():
        hint = "Run `audioldm data encode` first."
        raise AudioLDMError(f"{folder} is no latent cache: index.json is missing.", hint)
    index = read_object(path, AGAIN)
    try:
        kinds = [type(index["windows"]), *{type(shard["name"]) for shard in index["shards"]}]
    except (LookupError, TypeError):
        kinds = []
    if kinds not in ([int], [int, str]):
        raise damaged(path, "it is no index of latents")
    if whole and not index.get("complete", True):
        hint = "The same `audioldm data encode` goes on."
        raise AudioLDMError(f"{folder} was cut off after {index['windows']} windows.", hint)
    return index


def begun(folder: Path | str, key: str, *, force: bool) -> int | None:
    """How many windows of this ``key`` the folder has, None if all; another key's cache is refused unless ``force``."""
    path = Path(folder) / "index.json"
    if not path.is_file() or force:
        for old in (path, *Path(folder).glob("latents-*.safetensors")):
            old.unlink(missing_ok=True)
        return 0
    index = read_index(folder, whole=False)
    if index.get("key") != key:
        hint = "Pass --force to replace it, or name another folder."
        raise AudioLDMError(f"{folder} holds a cache made from something else.", hint)
    return None if index.get("complete", True) else int(index["windows"])


def write_latents(
    windows: Iterable[Encoded], folder: Path | str, *, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write shards and the index, which says ``about`` what was encoded by what.   Returns the index.

    A shard ends after SHARD windows, or where the length of the windows changes.   Shards that an index of the same
    ``about["key"]`` lists stay; ``windows`` then begins after them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {**about, "shards": [], "sources": [], "labels": [], "windows": 0}
    if (folder / "index.json").is_file():
        earlier = read_index(folder, whole=False)
        index = earlier if earlier.get("key") == about.get("key", "") else index
    index["complete"] = False

    def write(shard: list[Encoded]) -> None:
        path = folder / f"latents-{len(index['shards']):05d}.safetensors"
        with staged(path) as stage:
            save_file(tensors_of(shard), stage)
            entry = {"name": path.name, "windows": len(shard), "bytes": stage.stat().st_size}
            index["shards"].append({**entry, "sha256": sha256(stage)})
        index["sources"] += [window.source for window in shard]
        index["labels"] += [list(window.labels) for window in shard]
        index["windows"] += len(shard)
        write_index(folder, index)

    with ThreadPoolExecutor(1) as writer:  # one shard at a time, while the next is encoded
        writing: Future[Any] = writer.submit(str)  # nothing to wait for yet
        for _, alike in groupby(windows, key=lambda window: window.mean.shape):
            while shard := list(islice(alike, SHARD)):
                writing.result()
                writing = writer.submit(write, shard)
        writing.result()
    if not index["shards"]:
        hint = "Check the manifest with `audioldm data check`."
        raise AudioLDMError("No window was encoded.", hint, code=1)
    index["complete"] = True
    write_index(folder, index)
    return index


def tensors_of(windows: Sequence[Encoded]) -> dict[str, Tensor]:
    """The tensors of a shard."""

    def joined(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.cat(list(parts)), torch.tensor([0, *map(len, parts)]).cumsum(0)

    out = {name: torch.stack([getattr(one, name).half() for one in windows]) for name in ("mean", "std")}
    out["audio"] = torch.stack([window.audio for window in windows])
    for name in windows[0].maps:
        out[f"{MAP}{name}"] = torch.stack([window.maps[name].half() for window in windows])
    if windows[0].facts is not None:
        out["facts"] = torch.stack([window.facts for window in windows if window.facts is not None])
    out["text"], out["offset"] = joined([window.text for window in windows])
    if sequences := [sequence for window in windows for sequence in window.tokens]:
        tokens, out["token_offset"] = joined(sequences)
        out["tokens"] = tokens.half()
    return out


def read_shards(folder: Path | str, *, verify: bool = True) -> Iterator[dict[str, Tensor]]:
    """Every shard, in order, as tensors on a memory map; ``verify`` reads each file once and compares its hash."""
    for entry in read_index(folder)["shards"]:
        path = inside(folder, entry["name"], where=Path(folder) / "index.json")
        size = path.stat().st_size if path.is_file() else 0
        if size != entry.get("bytes"):
            raise damaged(path, f"it has {size} of {entry.get('bytes')} bytes")
        if verify and sha256(path) != entry.get("sha256"):
            raise damaged(path, "its bytes are not those that were written")
        try:
            yield load_file(path)
        except (SafetensorError, OSError) as error:
            raise damaged(path, str(error)) from error


def damaged(path: Path, why: str) -> AudioLDMError:
    return AudioLDMError(f"{path} is damaged: {why}.", AGAIN, code=1)


def measure(folder: Path | str) -> dict[str, float]:
    """Mean and deviation of all samples (variance Var[mean] + E[std^2], float64), 1/std.   Rombach 2022 sec. 4.3.2."""
    count, total, squares = 0, 0.0, 0.0
    for shard in counted(list(read_shards(folder)), "windows", lambda shard: len(shard["mean"])):
        mean, std = shard["mean"].double(), shard["std"].double()
        count += mean.numel()
        total += float(mean.sum())
        squares += float(mean.square().sum() + std.square().sum())
    std_all = (squares / count - (total / count) ** 2) ** 0.5
    return {"mean": total / count, "std": std_all, "scaling_factor": 1 / std_all, "values": count}


def scaling_factor(folder: Path | str) -> float:
    """The measured one.   Raises AudioLDMError if there is none."""
    index = read_index(folder)
    if "scaling_factor" not in index:
        hint = "The same `audioldm data encode` measures it."
        raise AudioLDMError(f"{folder} has no measured scaling factor.", hint)
    return float(index["scaling_factor"])


def null_embedding(folder: Path | str) -> Tensor:
    """CLAP's embedding (D,) of the empty prompt, as it was when the cache was made."""
    return torch.tensor(read_index(folder)["null"])


class LatentDataset(Dataset[LatentBatch]):
    """Windows of a cache, memory-mapped.   Item: mean, std (C, T, F), one caption's embedding (D,), the sound's (D,).

    A damaged cache is refused, and one of whose ingredients is here and has changed; what is elsewhere is taken on
    trust.   ``frames`` has every window's length, for buckets; ``map`` names a control's map that each is to carry;
    with ``classes`` each carries the place of its one label among them.
    """

    def __init__(
        self, folder: Path | str, *, seed: int, verify: bool = True, map: str | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
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
        self.targets = [] if classes is None else targets_of(folder, classes)

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int | tuple[int, int]) -> LatentBatch:
        """Window ``index``, with draw number 0 or the one given beside it."""
        index, epoch = index if isinstance(index, tuple) else (index, 0)
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self.ends, index)
        shard = self.shards[number]
        place = index - self.ends[number] + len(shard["mean"])
        first, last = shard["offset"][place : place + 2].tolist()
        pick = first + draw(last - first, generator(self.seed, epoch, index))
        # copies: a view would carry the whole map into a worker's queue
        parts = {name: shard[name][place].float() for name in ("mean", "std")}
        parts |= {"text": shard["text"][pick].clone(), "audio": shard["audio"][place].clone()}
        if "tokens" in shard:
            begin, end = shard["token_offset"][pick : pick + 2].tolist()
            parts["tokens"] = shard["tokens"][begin:end].float()
        if self.map is not None:
            parts["curve"] = shard[self.map][place].float()
        if "facts" in shard:
            parts["facts"] = shard["facts"][place].clone()
        if self.targets:
            parts["label"] = torch.tensor(self.targets[index])
        return LatentBatch(**parts)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shards": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.shards = list(read_shards(self.folder, verify=False))  # the parent has verified them


def refuse_stale(folder: Path | str, index: Mapping[str, Any]) -> None:
    for item in index.get("made_of", []):
        path = Path(item["file"])
        if path.is_file() and ingredient("", path, item["prefixes"])["sha256"] != item["sha256"]:
            problem = f"{folder} is stale: its {item['what']} {path} has changed since it was made."
            raise AudioLDMError(problem, "Encode again with --force.")


def targets_of(folder: Path | str, classes: Sequence[str]) -> list[int]:
    """The place of each window's one label among ``classes``."""
    labels = labels_of(folder)
    if unknown := sorted({*labels} - {*classes}):
        hint = f"Known: {', '.join(classes)}."
        raise AudioLDMError(f"{folder} has the label {unknown[0]!r}, which is not trained.", hint)
    return [classes.index(label) for label in labels]


def collate_latents(items: Sequence[LatentBatch]) -> LatentBatch:
    """Stack windows of one length to a batch; token sequences are padded to the longest, with a mask (B, L)."""
    parts = {}
    for name in ("mean", "std", "text", "audio", "curve", "facts", "label"):
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
    if wrong := [names for names in labels if len(names) != 1]:
        what = f"{folder} holds a window with {len(wrong[0])} labels {wrong[0]}; a classifier needs one each."
        raise AudioLDMError(what, "Encode a manifest of one label a clip, without --mixup.")
    return [names[0] for names in labels]


def class_names(folder: Path | str) -> list[str]:
    return sorted(set(labels_of(folder)))
