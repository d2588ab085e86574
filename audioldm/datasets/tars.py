"""The samples of WebDataset's tars: members that share a name up to its first dot, such as 7.flac and 7.txt.

Of a .tar file only the headers are read at first, and a member's bytes when they are asked for, from where they lie:
a sample that waits in a shuffle buffer, or that a run has seen, costs no reading.   An address, a pipe or a
compressed tar can only be read from its beginning, and WebDataset does that.
"""

import os
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from audioldm.errors import AudioLDMError

SOUNDS = ("flac", "wav", "ogg", "oga", "mp3", "opus", "aiff", "aif")
BLOCK = tarfile.BLOCKSIZE
END = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Sample:
    """One sound with its caption; ``parts`` by suffix are bytes, or (offset, length) in the file ``shard``."""

    shard: str
    key: str
    parts: Mapping[str, Any]

    def read(self) -> dict[str, Any]:
        """The bytes by suffix, and WebDataset's __key__ and __url__.   Raises AudioLDMError if the file has shrunk."""
        named = {"__key__": self.key, "__url__": self.shard}
        if not any(isinstance(part, tuple) for part in self.parts.values()):
            return {**named, **self.parts}
        try:
            file = os.open(self.shard, os.O_RDONLY)
        except OSError as error:
            raise unreadable(self.shard, error) from None
        try:
            found = {suffix: os.pread(file, length, at) for suffix, (at, length) in self.parts.items()}
        finally:
            os.close(file)
        if any(len(found[suffix]) < length for suffix, (_, length) in self.parts.items()):
            raise unreadable(self.shard, "it is shorter than it was")
        return {**named, **found}


def samples(shard: str) -> Iterator[Sample]:
    """Every sample in order.   Raises AudioLDMError for a shard that is damaged, cut off or missing."""
    try:
        for sample in stored(shard) if lies_here(shard) else streamed(shard):
            if not any(kind in sample.parts for kind in SOUNDS) or "txt" not in sample.parts:
                raise AudioLDMError(f"{shard}: {sample.key} lacks its sound or its .txt.", code=1)
            yield sample
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise unreadable(shard, error) from None


def lies_here(shard: str) -> bool:
    """True of a file whose members can be read from where they lie."""
    return shard.endswith(".tar") and Path(shard).is_file()


def stored(shard: str) -> list[Sample]:
    """The samples of a .tar file."""
    about = os.stat(shard)
    return laid_out(shard, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=64)
def laid_out(shard: str, size: int, changed: int) -> list[Sample]:
    """Where the members lie, from the headers; remembered of the last 64 files (about 1 kB a sample)."""
    places = [(*split(name), place) for name, *place in plain(shard) or every(shard)]
    groups = groupby((place for place in places if place[0]), key=lambda place: place[0])
    return [
        Sample(shard, key, {suffix: (at, length) for _, suffix, (at, length) in parts})
        for key, parts in groups
    ]


def plain(shard: str) -> list[tuple[str, int, int]] | None:
    """(name, offset, length) of each member of a tar of files with short names, as ``audioldm data shard`` writes them.

    Four times sooner than tarfile; a resume waits for it.   None for any other header, and for damage.   POSIX ustar.
    """
    found, at = [], 0
    with open(shard, "rb", buffering=0) as file:
        while (head := os.pread(file.fileno(), BLOCK, at)) != END:
            try:
                size, stated = int(head[124:135], 8), int(head[148:155].rstrip(b"\0 "), 8)
            except ValueError:
                return None
            if stated != sum(head) - sum(head[148:156]) + 8 * ord(" ") or head[156:157] != b"0" or head[345]:
                return None
            found.append((head[:100].partition(b"\0")[0].decode(errors="surrogateescape"), at + BLOCK, size))
            at += BLOCK + -(-size // BLOCK) * BLOCK
    return found


def every(shard: str) -> list[tuple[str, int, int]]:
    """(name, offset, length) of each file in a tar of any layout."""
    with tarfile.open(shard, "r:") as tar:
        found = [(item.name, item.offset_data, item.size) for item in tar if item.isreg()]
        end = tar.offset
    with open(shard, "rb") as file:
        file.seek(end)
        if file.read(BLOCK) != END:  # tarfile takes a damaged header for the end
            raise tarfile.ReadError(f"no header and no end at byte {end}")
    return found


def split(name: str) -> tuple[str, str]:
    """WebDataset's key and suffix of a member; the key is empty for names that it passes over.

    >>> split("a/7.left.FLAC"), split("a/readme")
    (('a/7', 'left.flac'), ('', ''))
    """
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return (f"{folder}{slash}{stem}", sys.intern(suffix.lower())) if stem and dot else ("", "")


def streamed(shard: str) -> Iterator[Sample]:
    """The samples of anything that WebDataset opens, with their bytes."""
    import webdataset  # type: ignore[import-untyped]

    found = webdataset.WebDataset([shard], shardshuffle=False, nodesplitter=None, workersplitter=None)
    for sample in found:
        parts = {suffix: part for suffix, part in sample.items() if not suffix.startswith("__")}
        yield Sample(sample["__url__"], sample["__key__"], parts)


def unreadable(shard: str, error: object) -> AudioLDMError:
    """The line about a shard that is damaged or missing."""
    return AudioLDMError(f"{shard} cannot be read ({error}).", "Fetch or write it again.", code=1)
