"""Clips streamed from WebDataset shards, for data that does not fit the disk.  B batch, N samples.

A shard is a tar of KEY.flac (wav, ogg, mp3) and KEY.txt, one caption a line: a path, or any address that WebDataset
opens.  Of a .tar file a member's bytes are read from where they lie when they are asked for.
"""

import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from glob import glob
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import IterableDataset, get_worker_info

from audioldm.batch import Batch
from audioldm.datasets.audio_text import collate, window
from audioldm.datasets.decode import SUFFIXES, opened, read_mono, resample
from audioldm.datasets.draws import BEGIN, Place, draw, generator
from audioldm.datasets.manifest import Row, verified
from audioldm.errors import AudioLDMError
from audioldm.paths import staged
from audioldm.progress import counted
from audioldm.spec import AudioSpec
from audioldm.tables import lines, read_text

SOUNDS = tuple(suffix.lstrip(".") for suffix in SUFFIXES)
DAMAGE = (OSError, tarfile.TarError, ValueError, EOFError)


def expand(shards: Sequence[str]) -> list[str]:
    """The files of patterns such as data/shards/*.tar in their order; paths and addresses stay as they are."""
    return [path for name in shards for path in (sorted(glob(name)) if set("*?[") & set(name) else [name])]


def write_shards(rows: Sequence[Row], folder: Path | str, *, clips: int = 1000) -> list[Path]:
    """Tars of ``clips`` rows each, files as they are; the captions beside them.  Returns their paths.

    Other shards of the folder go.  Raises AudioLDMError for a row whose file is missing or no sound, and for a full
    disk; every shard is written whole or not at all.
    """
    folder = Path(folder)
    if lost := [row.path for row in rows if not Path(row.path).is_file()]:
        what = f"{len(lost)} of {len(rows)} files are missing, such as {lost[0]}."
        raise AudioLDMError(what, "Run `audioldm data check` on the manifest.", code=1)
    paths, counter = [], counted(rows, "clips")
    for start in range(0, len(rows), clips):
        path = folder / f"shard-{start // clips:05d}.tar"
        # a link would leave its sound behind
        with staged(path) as stage, tarfile.open(stage, "w", dereference=True) as tar:
            for i, row in enumerate(islice(counter, clips), start):
                add(tar, f"{i:09d}", row)
        paths.append(path)
    for old in set(folder.glob("shard-*.tar")) - set(paths):
        old.unlink()
    return paths


def add(tar: tarfile.TarFile, key: str, row: Row) -> None:
    with opened(verified(row)), open(row.path, "rb") as file:  # only sounds, whatever a manifest names
        sound = tar.gettarinfo(row.path, f"{key}{Path(row.path).suffix.lower()}")
        sound.mtime = int(sound.mtime)  # a fraction of a second would cost a header of its own
        tar.addfile(sound, file)
    text = "\n".join(" ".join(caption.split()) for caption in row.captions)
    about = json.dumps({"start": row.start, "seconds": row.seconds, "source": row.source})
    for name, content in ((f"{key}.txt", text.encode()), (f"{key}.json", about.encode())):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


@dataclass(frozen=True, slots=True)
class Sample:
    """One sound with its caption; ``parts`` by suffix are bytes, or (offset, length) in the file ``shard``."""

    shard: str
    key: str
    parts: Mapping[str, Any]

    def read(self) -> dict[str, Any]:
        """The bytes by suffix, and WebDataset's __key__ and __url__.  Raises AudioLDMError if the file has shrunk."""
        names = {"__key__": self.key, "__url__": self.shard}
        if not any(isinstance(part, tuple) for part in self.parts.values()):
            return {**names, **self.parts}
        content = {}
        try:
            with open(self.shard, "rb", buffering=0) as file:
                for suffix, (place, length) in self.parts.items():
                    content[suffix] = os.pread(file.fileno(), length, place)
        except OSError as error:
            raise unreadable(self.shard, error) from None
        if any(len(content[suffix]) < length for suffix, (_, length) in self.parts.items()):
            raise unreadable(self.shard, "it is shorter than it was")
        return {**names, **content}


def samples(shard: str) -> Iterator[Sample]:
    """Every sample in order.  Raises AudioLDMError for a shard that is damaged, cut off or missing."""
    path = Path(shard)
    if os.path.lexists(shard) and not path.is_file():
        raise unreadable(shard, "it is no file")
    try:
        about = os.stat(shard) if shard.endswith(".tar") and path.is_file() else None
        every = streamed(shard) if about is None else laid_out(shard, about.st_size, about.st_mtime_ns)
        for sample in every:
            if set(SOUNDS).isdisjoint(sample.parts) or "txt" not in sample.parts:
                raise AudioLDMError(f"{shard}: {sample.key} lacks its sound or its .txt.", code=1)
            yield sample
    except DAMAGE as error:
        raise unreadable(shard, error) from None


@lru_cache(maxsize=64)
def laid_out(shard: str, size: int, changed: int) -> list[Sample]:
    """The samples of a .tar file by its headers, to be read where they lie; remembered of the last 64 files."""
    with tarfile.open(shard, "r:") as tar:
        out = []
        for key, items in grouped(tar):
            places = {sys.intern(kind): (item.offset_data, item.size) for kind, item in items.items()}
            out.append(Sample(shard, key, places))
        end = tar.offset
    with open(shard, "rb") as file:
        file.seek(end)
        # tarfile takes a damaged header for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no header and no end at byte {end}")
    return out


def grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """WebDataset's samples: a key ("a/7" of "a/7.left.FLAC") and its members by suffix ("left.flac")."""
    names = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
    members = ((match, item) for item in tar if item.isreg() and (match := names.fullmatch(item.name)))
    for key, group in groupby(members, key=lambda member: member[0][1]):
        yield key, {match[2].lower(): item for match, item in group}


def streamed(shard: str) -> Iterator[Sample]:
    import webdataset  # type: ignore[import-untyped]

    source = webdataset.WebDataset([shard], shardshuffle=False, nodesplitter=None, workersplitter=None)
    for sample in source:
        parts = {suffix: part for suffix, part in sample.items() if not suffix.startswith("__")}
        yield Sample(sample["__url__"], sample["__key__"], parts)


def unreadable(shard: str, error: object) -> AudioLDMError:
    return AudioLDMError(f"{shard} cannot be read ({error}).", "Fetch or write it again.", code=1)


@dataclass(eq=False)
class Shards(IterableDataset[Batch]):
    """Endless batches of windows of ``seconds``; which ones follows from (seed, rank, world, workers) alone.

    Each worker of each process reads its own shards, one pass after the other in a new order, through a shuffle buffer
    of ``buffer`` clips.  Where a run goes on after ``start`` batches, whole passes cost nothing, and of the pass that
    it is in the clips that it is past are not read (from an address: not decoded).  Every process needs at least one
    shard a worker.
    """

    shards: Sequence[str]
    spec: AudioSpec
    seconds: float
    _: KW_ONLY
    batch_size: int
    seed: int
    buffer: int = 500
    place: Place = BEGIN

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        # The loader begins with its first worker, the run where it was.
        number = (number + self.place.start) % workers
        place, streams = self.place.rank * workers + number, self.place.world * workers
        if not (mine := self.shards[place::streams]):
            what = f"{len(self.shards)} shards are too few for {streams} readers."
            raise AudioLDMError(what, "Write smaller shards, or use fewer workers.")
        past = (self.place.start - number + workers - 1) // workers * self.batch_size
        waiting: list[tuple[Tensor, str, str]] = []
        for draws, sample in self.stream(mine, place, past):
            if draws >= past:
                waiting.append(self.item(sample.read(), draws))
            if len(waiting) == self.batch_size:
                yield collate(waiting)
                waiting = []

    def stream(self, shards: Sequence[str], place: int, past: int = 0) -> Iterator[tuple[int, Sample]]:
        """(draw number, sample) without end, shuffled, from the pass on that draw ``past`` is in."""
        size = sum(1 for shard in shards for _ in samples(shard)) if past else 0
        begin = past // size if size else 0
        draws = begin * size
        for number in count(begin):
            before = draws
            for sample in self.shuffled(shards, generator(self.seed, number, 100 + place)):
                yield draws, sample
                draws += 1
            if draws == before:
                raise AudioLDMError(f"{shards[0]} holds no clip.", "Write the shards again.", code=1)

    def shuffled(self, shards: Sequence[str], rng: Generator) -> Iterator[Sample]:
        """One pass over the samples of all shards, through the buffer."""
        buffer: list[Sample] = []
        for i in torch.randperm(len(shards), generator=rng).tolist():
            for sample in samples(shards[i]):
                buffer.append(sample)
                if len(buffer) > self.buffer:
                    place = draw(len(buffer), rng)
                    buffer[place], buffer[-1] = buffer[-1], buffer[place]
                    yield buffer.pop()
        for i in torch.randperm(len(buffer), generator=rng).tolist():
            yield buffer[i]

    def item(self, sample: dict[str, Any], draws: int) -> tuple[Tensor, str, str]:
        """Decode what a sample read: (wave (1, N), caption, key)."""
        kind = next(kind for kind in SOUNDS if kind in sample)
        where = f"{sample['__url__']}: {sample['__key__']}.{kind}"
        try:
            about = json.loads(sample.get("json", b"{}"))
            start, seconds = float(about.get("start", 0.0)), about.get("seconds")
            wave, rate = read_mono(where, start=start, seconds=seconds, content=sample[kind])
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise AudioLDMError(f"{where}: {error}.", "Write the shard again.", code=1) from None
        rng = generator(self.seed, draws, 1000 + self.place.rank)
        captions = lines(read_text(sample["txt"])) or [""]
        clip = window(resample(wave, rate, self.spec.rate), self.spec.samples(self.seconds), rng)
        return clip[None], captions[draw(len(captions), rng)], sample["__key__"]
