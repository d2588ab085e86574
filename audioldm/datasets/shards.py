"""Clips streamed from WebDataset shards, for data that does not fit the disk.   B batch, N samples.

A shard is a tar whose members share a key: KEY.flac (or wav, ogg, mp3) and KEY.txt, one caption a line.   A shard is a
path, or anything WebDataset opens, such as https://... or pipe:aws s3 cp s3://bucket/0001.tar -.   ``tars`` reads them.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import soundfile as sf
import torch
from torch.utils.data import IterableDataset, get_worker_info

from audioldm.batch import Batch
from audioldm.datasets.audio_text import collate, window
from audioldm.datasets.decode import mono, resample
from audioldm.datasets.draws import draw, generator
from audioldm.datasets.manifest import Row
from audioldm.datasets.tars import SOUNDS, Sample, samples
from audioldm.errors import AudioLDMError
from audioldm.paths import staged
from audioldm.spec import AudioSpec


def expand(shards: Sequence[str]) -> list[str]:
    """The files of patterns such as data/shards/*.tar in their order; paths and addresses stay as they are."""
    return [path for name in shards for path in (sorted(glob(name)) if set("*?[") & set(name) else [name])]


def write_shards(rows: Sequence[Row], folder: Path | str, *, clips: int = 1000) -> list[Path]:
    """Tars of ``clips`` rows each, files as they are; the captions beside them.   Returns their paths.

    Other shards of the folder go.   Raises AudioLDMError for a row whose file is missing and for a full disk; every
    shard is written whole or not at all.
    """
    folder = Path(folder)
    if lost := [row.path for row in rows if not Path(row.path).is_file()]:
        raise AudioLDMError(
            f"{len(lost)} of {len(rows)} files are missing, such as {lost[0]}.",
            "Run `audioldm data check` on the manifest.",
            code=1,
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(rows), clips):
        path = folder / f"shard-{start // clips:05d}.tar"
        # a link would leave its sound behind
        with staged(path) as stage, tarfile.open(stage, "w", dereference=True) as tar:
            for i, row in enumerate(rows[start : start + clips], start):
                add(tar, f"{i:09d}", row)
        paths.append(path)
    for old in set(folder.glob("shard-*.tar")) - set(paths):
        old.unlink()
    return paths


def add(tar: tarfile.TarFile, key: str, row: Row) -> None:
    """The members of one row."""
    sound = tar.gettarinfo(row.path, f"{key}{Path(row.path).suffix.lower()}")
    sound.mtime = int(sound.mtime)  # a fraction of a second would cost a header of its own
    with open(row.path, "rb") as file:
        tar.addfile(sound, file)
    text = "\n".join(" ".join(caption.split()) for caption in row.captions).encode()
    about = json.dumps({"start": row.start, "seconds": row.seconds, "source": row.source}).encode()
    for name, content in ((f"{key}.txt", text), (f"{key}.json", about)):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


class Shards(IterableDataset[Batch]):
    """Endless batches of windows of ``seconds``; which ones follows from (seed, rank, world, workers) alone.

    Each worker of each process reads its own shards, one pass after the other in a new order, through a shuffle buffer
    of ``buffer`` clips.   Where a run goes on after ``start`` batches, whole passes cost nothing, and of the pass that
    it is in the clips that it has seen are not read (from an address: not decoded).   Every process needs at least one
    shard a worker.
    """

    def __init__(
        self,
        shards: Sequence[str],
        spec: AudioSpec,
        seconds: float,
        *,
        batch_size: int,
        seed: int,
        buffer: int = 500,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.shards, self.spec, self.samples = [str(s) for s in shards], spec, spec.samples(seconds)
        self.batch_size, self.seed, self.buffer = batch_size, seed, buffer
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        # The loader begins with its first worker, the run where it was.
        number = (number + self.start) % workers
        place, streams = self.rank * workers + number, self.world * workers
        own = self.shards[place::streams]
        if not own:
            raise AudioLDMError(
                f"{len(self.shards)} shards are too few for {streams} readers.",
                "Write smaller shards, or use fewer workers.",
            )
        done = (self.start - number + workers - 1) // workers * self.batch_size
        waiting: list[Any] = []
        for draws, sample in self.stream(own, place, done):
            if draws >= done:
                waiting.append(self.item(sample.read(), draws))
            if len(waiting) == self.batch_size:
                yield collate(waiting)
                waiting = []

    def stream(self, own: Sequence[str], place: int, done: int = 0) -> Iterator[tuple[int, Sample]]:
        """(draw number, sample) without end, shuffled, from the pass on that draw ``done`` is in."""
        size = sum(1 for shard in own for _ in samples(shard)) if done else 0
        number = done // size if size else 0
        count = number * size
        while True:
            rng = generator(self.seed, number, 100 + place)
            held: list[Sample] = []
            order = [own[i] for i in torch.randperm(len(own), generator=rng).tolist()]
            for sample in (sample for shard in order for sample in samples(shard)):
                held.append(sample)
                if len(held) > self.buffer:
                    i = draw(len(held), rng)
                    held[i], held[-1] = held[-1], held[i]
                    yield count, held.pop()
                    count += 1
            for i in torch.randperm(len(held), generator=rng).tolist():
                yield count, held[i]
                count += 1
            number += 1

    def item(self, sample: dict[str, Any], draws: int) -> tuple[torch.Tensor, str, str]:
        """Decode what a sample read: (wave (1, N), caption, key)."""
        kind = next(kind for kind in SOUNDS if kind in sample)
        about = json.loads(sample.get("json", b"{}"))
        where = f"{sample['__url__']}: {sample['__key__']}"
        try:
            wave, rate = sf.read(io.BytesIO(sample[kind]), dtype="float32", always_2d=True)
        except sf.LibsndfileError as error:
            raise AudioLDMError(
                f"{where}.{kind} cannot be read ({error}).", "Write the shard again.", code=1
            ) from None
        first = round(about.get("start", 0.0) * rate)
        last = None if about.get("seconds") is None else first + round(about["seconds"] * rate)
        clip = resample(mono(torch.from_numpy(wave[first:last])), rate, self.spec.rate)
        rng = generator(self.seed, draws, 1000 + self.rank)
        captions = sample["txt"].decode().splitlines() or [""]
        return window(clip, self.samples, rng)[None], captions[draw(len(captions), rng)], sample["__key__"]
