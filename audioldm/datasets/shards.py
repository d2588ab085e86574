"""Clips streamed from WebDataset shards, for data that does not fit the disk.  B batch, N samples.

A shard is a tar of KEY.flac (wav, ogg, mp3) and KEY.txt, one caption a line: a path, or an address for WebDataset.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from glob import glob
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any

import torch
from torch import Generator
from torch.utils.data import IterableDataset, get_worker_info

from audioldm.batch import Batch
from audioldm.datasets.audio_text import Item, collate, window
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
MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
"""WebDataset's names: a key ("a/7" of "a/7.left.FLAC") and a suffix ("left.flac")"""
MOST_BYTES = 2**29  # of a member; a larger one is passed over, and its sample named as one without a sound
Sample = dict[str, Any]
"""a sample as WebDataset has it: __key__, __url__, and the bytes of each member by its suffix"""


def expand(shards: Sequence[str]) -> list[str]:
    """The files of patterns such as data/shards/*.tar in their order; paths and addresses stay as they are."""
    return [path for name in shards for path in (sorted(glob(name)) if set("*?[") & set(name) else [name])]


def write_shards(rows: Sequence[Row], folder: Path | str, *, clips: int = 1000) -> list[Path]:
    """Tars of ``clips`` rows each, files as they are; the captions beside them.  Returns their paths.

    Other shards of the folder go.  Raises AudioLDMError for a row whose file is missing or no sound, and for a full
    disk; every shard is written whole or not at all.
    """
    import webdataset  # type: ignore[import-untyped]

    folder = Path(folder)
    if lost := [row.path for row in rows if not Path(row.path).is_file()]:
        what = f"{len(lost)} of {len(rows)} files are missing, such as {lost[0]}."
        raise AudioLDMError(what, "Run `audioldm data check` on the manifest.", code=1)
    paths, counter = [], counted(rows, "clips")
    for start in range(0, len(rows), clips):
        path = folder / f"shard-{start // clips:05d}.tar"
        with staged(path) as stage, webdataset.TarWriter(str(stage), mtime=0) as tar:
            for i, row in enumerate(islice(counter, clips), start):
                with opened(verified(row)):  # only sounds, whatever a manifest names
                    sound = Path(row.path).read_bytes()
                text = "\n".join(" ".join(caption.split()) for caption in row.captions)
                about = {"start": row.start, "seconds": row.seconds, "source": row.source}
                kind = Path(row.path).suffix.lower().removeprefix(".")
                tar.write({"__key__": f"{i:09d}", kind: sound, "txt": text, "json": about})
        paths.append(path)
    for old in set(folder.glob("shard-*.tar")) - set(paths):
        old.unlink()
    return paths


def read_tar(path: Path | str, *, content: bool = True) -> Iterator[Sample]:
    """The samples of a tar file, compressed or not, in order.   Raises one of DAMAGE where it is damaged or cut off."""
    with open(path, "rb") as file:
        if not any(file.read(tarfile.RECORDSIZE)) and file.read(1):  # lzma would read it to its end
            raise tarfile.ReadError("it begins with zeros")
    with tarfile.open(path) as tar:
        for key, group in groupby(members_of(tar, content), key=lambda member: member[0]):
            yield {"__key__": key, "__url__": str(path)} | {kind: part for _, kind, part in group}


def members_of(tar: Any, content: bool) -> Iterator[tuple[str, str, bytes]]:
    for item in tar:
        if item.isreg() and item.size <= MOST_BYTES and (match := MEMBER.fullmatch(item.name)):
            yield match[1], match[2].lower(), tar.extractfile(item).read() if content else b""
    # tarfile takes a damaged header for the end
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end at byte {tar.offset}")


def samples(shard: str, *, content: bool = True) -> Iterator[Sample]:
    """Every sample of a file or an address, with a sound and a .txt.   Raises AudioLDMError where it is damaged."""
    try:
        if os.path.lexists(shard) and not os.path.isfile(shard):
            raise OSError("it is no file")
        if os.path.isfile(shard):
            every = read_tar(shard, content=content)
        else:
            import webdataset  # type: ignore[import-untyped]

            every = webdataset.WebDataset([shard], shardshuffle=False, nodesplitter=None, workersplitter=None)
        for sample in every:
            if sample.keys().isdisjoint(SOUNDS) or "txt" not in sample:
                raise AudioLDMError(f"{shard}: {sample['__key__']} lacks its sound or its .txt.", code=1)
            yield sample
    except DAMAGE as error:
        why = f"{shard} cannot be read ({error})."
        raise AudioLDMError(why, "Fetch or write it again.", code=1) from None


@dataclass(eq=False)
class Shards(IterableDataset[Batch]):
    """Endless batches of windows of ``seconds``; which ones follows from (seed, rank, world, workers) alone.

    Each worker of each process reads its own shards, one pass after the other in a new order, through a shuffle buffer
    of ``buffer`` clips, held as they are stored.  Where a run goes on after ``start`` batches, whole passes cost
    nothing, and clips before its place are not decoded.  Every process needs at least one shard a worker.
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
        waiting: list[Item] = []
        for draws, sample in self.stream(mine, place, past):
            if draws >= past:
                waiting.append(self.item(sample, draws))
            if len(waiting) == self.batch_size:
                yield collate(waiting)
                waiting = []

    def stream(self, shards: Sequence[str], place: int, past: int = 0) -> Iterator[tuple[int, Sample]]:
        """(draw number, sample) without end, shuffled, from the pass on that draw ``past`` is in."""
        size = sum(1 for shard in shards for _ in samples(shard, content=False)) if past else 0
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

    def item(self, sample: Sample, draws: int) -> Item:
        """Decode a sample: (wave (1, N), caption, key)."""
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
        clip, _ = window(resample(wave, rate, self.spec.rate), self.spec.samples(self.seconds), rng)
        return clip[None], captions[draw(len(captions), rng)], sample["__key__"]
