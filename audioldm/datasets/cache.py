"""Shards of a latent cache on disk: written one by one, keyed by what made them, read by memory map.

A cache with another key is refused, one that was cut off goes on; a hash of each shard finds damage before training.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256, staged, write_text
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
    """The hash of everything that decides a cache's windows; the order of names does not matter.

    >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 2, "b": 2})
    True
    """
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


def refuse_stale(folder: Path | str, index: Mapping[str, Any]) -> None:
    """Refuse a cache one of whose ingredients is here and has changed; one that is elsewhere is taken on trust."""
    for item in index.get("made_of", []):
        path = Path(item["file"])
        if path.is_file() and ingredient(item["what"], path, item["prefixes"])["sha256"] != item["sha256"]:
            problem = f"{folder} is stale: its {item['what']} {path} has changed since it was made."
            raise AudioLDMError(problem, "Encode again with --force.")


def write_index(folder: Path | str, index: Mapping[str, Any]) -> None:
    write_text(Path(folder) / "index.json", json.dumps(index, indent=1))


def read_index(folder: Path | str) -> dict[str, Any]:
    path = Path(folder) / "index.json"
    if not path.is_file():
        hint = "Run `audioldm data encode` first."
        raise AudioLDMError(f"{folder} is no latent cache: index.json is missing.", hint)
    index = index_at(path)
    if not index.get("complete", True):
        hint = "The same `audioldm data encode` goes on."
        raise AudioLDMError(f"{folder} was cut off after {index['windows']} windows.", hint)
    return index


def index_at(path: Path) -> dict[str, Any]:
    """The index in a file, of a cache that may be cut off."""
    index = read_object(path, AGAIN)
    shards = index.get("shards")
    named = isinstance(shards, list) and all(
        isinstance(shard, dict) and isinstance(shard.get("name"), str) for shard in shards
    )
    if not named or not isinstance(index.get("windows"), int):
        raise _damaged(path, "it is no index of latents")
    return index


def begun(folder: Path | str, key: str, *, force: bool) -> int | None:
    """How many windows of this ``key`` the folder has, None if all; another key's cache is refused unless ``force``."""
    path = Path(folder) / "index.json"
    if not path.is_file() or force:
        for old in (path, *Path(folder).glob("latents-*.safetensors")):
            old.unlink(missing_ok=True)
        return 0
    index = index_at(path)
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
    lists: dict[str, list[Any]] = {"shards": [], "sources": [], "labels": []}
    index: dict[str, Any] = {**about, **lists, "windows": 0, "complete": False}
    path = folder / "index.json"
    if path.is_file() and (earlier := index_at(path)).get("key") == about.get("key", ""):
        index = {**earlier, "complete": False}

    def write(shard: list[Encoded]) -> None:
        entry = _write_shard(shard, folder / f"latents-{len(index['shards']):05d}.safetensors")
        index["shards"].append(entry)
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


def _write_shard(windows: Sequence[Encoded], path: Path) -> dict[str, Any]:
    """One shard, in one move; its entry for the index."""
    parts = [parts_of(window) for window in windows]
    tensors = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    tensors["text"], tensors["offset"] = joined([window.text for window in windows])
    if sequences := [sequence for window in windows for sequence in window.tokens]:
        tokens, tensors["token_offset"] = joined(sequences)
        tensors["tokens"] = tokens.half()
    with staged(path) as stage:
        save_file(tensors, stage)
        return {
            "name": path.name, "windows": len(windows), "bytes": stage.stat().st_size, "sha256": sha256(stage),
        }  # fmt: skip


def parts_of(window: Encoded) -> dict[str, Tensor]:
    """What of a window has one shape in all of a shard, as it is stored."""
    parts = {"mean": window.mean.half(), "std": window.std.half(), "audio": window.audio}
    parts |= {f"{MAP}{name}": values.half() for name, values in window.maps.items()}
    return parts if window.facts is None else {**parts, "facts": window.facts}


def joined(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tensors one after the other, and where each begins (and the last ends)."""
    return torch.cat(list(parts)), torch.tensor([0, *map(len, parts)]).cumsum(0)


def read_shards(folder: Path | str, *, verify: bool = True) -> Iterator[dict[str, Tensor]]:
    """Every shard, in order, as tensors on a memory map: what is not touched is not read.

    ``verify`` reads each file once and compares its hash, so that no bit flips unseen.
    """
    for entry in read_index(folder)["shards"]:
        path = inside(folder, entry["name"], where=Path(folder) / "index.json")
        size = path.stat().st_size if path.is_file() else 0
        if size != entry.get("bytes"):
            raise _damaged(path, f"it has {size} of {entry.get('bytes')} bytes")
        if verify and sha256(path) != entry.get("sha256"):
            raise _damaged(path, "its bytes are not those that were written")
        try:
            yield load_file(path)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> AudioLDMError:
    return AudioLDMError(f"{path} is damaged: {why}.", AGAIN, code=1)
