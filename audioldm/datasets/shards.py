"""Clips streamed from WebDataset shards, for data that does not fit the disk.   B batch, N samples.

A shard is a tar whose members share a key: KEY.flac (or wav, ogg, mp3) and KEY.txt, one caption a line.   A shard is a
path, or anything WebDataset opens, such as https://... or pipe:aws s3 cp s3://bucket/0001.tar -.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import soundfile as sf
import torch
from torch.utils.data import IterableDataset, get_worker_info

from audioldm.batch import Batch
from audioldm.datasets.audio_text import collate, draw, generator, window
from audioldm.datasets.decode import resample
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec

SOUNDS = ("flac", "wav", "ogg", "mp3", "opus")


def write_shards(rows: Sequence[Row], folder: Path | str, *, clips: int = 1000) -> list[Path]:
    """Tars of ``clips`` rows each, files as they are; the captions beside them.   Returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start in range(0, len(rows), clips):
        path = folder / f"shard-{start // clips:05d}.tar"
        with tarfile.open(path.with_suffix(".new"), "w") as tar:
            for i, row in enumerate(rows[start : start + clips], start):
                tar.add(row.path, f"{i:09d}{Path(row.path).suffix}")
                text = "\n".join(row.captions).encode()
                about = json.dumps(
                    {"start": row.start, "seconds": row.seconds, "source": row.source}
                ).encode()
                for name, content in ((f"{i:09d}.txt", text), (f"{i:09d}.json", about)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        path.with_suffix(".new").replace(path)
        paths.append(path)
    return paths


class Shards(IterableDataset[Batch]):
    """Endless batches of windows of ``seconds``; which ones follows from (seed, rank, world, workers) alone.

    Each worker of each process reads its own shards, one pass after the other in a new order, through a shuffle buffer
    of ``buffer`` clips.   ``start`` batches are passed over unread where a run goes on.   Every process needs at least
    one shard a worker.
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
        number = (
            number + self.start
        ) % workers  # the loader begins with its first worker, the run where it was
        place, streams = self.rank * workers + number, self.world * workers
        own = self.shards[place::streams]
        if not own:
            raise AudioLDMError(
                f"{len(self.shards)} shards are too few for {streams} readers.",
                "Write smaller shards, or use fewer workers.",
            )
        done = (self.start - number + workers - 1) // workers * self.batch_size
        waiting: list[Any] = []
        for count, (draws, sample) in enumerate(self.stream(own, place)):
            if count >= done:
                waiting.append(self.item(sample, draws))
            if len(waiting) == self.batch_size:
                yield collate(waiting)
                waiting = []

    def stream(self, own: Sequence[str], place: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """(draw number, undecoded sample) without end, shuffled."""
        count, number = 0, 0
        while True:
            rng = generator(self.seed, number, 100 + place)
            held: list[dict[str, Any]] = []
            order = [own[i] for i in torch.randperm(len(own), generator=rng).tolist()]
            for sample in read(order):
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
        """Decode one sample: (wave (1, N), caption, key)."""
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
        clip = resample(torch.from_numpy(wave[first:last].mean(1)), rate, self.spec.rate)
        rng = generator(self.seed, draws, 1000 + self.rank)
        captions = sample["txt"].decode().splitlines() or [""]
        return window(clip, self.samples, rng)[None], captions[draw(len(captions), rng)], sample["__key__"]


def read(shards: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every sample of the shards in order, undecoded.   Raises AudioLDMError for a shard that is damaged or missing."""
    import webdataset

    for shard in shards:
        try:
            samples = webdataset.WebDataset(
                [shard], shardshuffle=False, nodesplitter=None, workersplitter=None
            )
            for sample in samples:
                if not any(kind in sample for kind in SOUNDS) or "txt" not in sample:
                    raise AudioLDMError(f"{shard}: {sample['__key__']} lacks its sound or its .txt.", code=1)
                yield sample
        except (OSError, tarfile.TarError, ValueError, EOFError) as error:
            raise AudioLDMError(
                f"{shard} cannot be read ({error}).", "Fetch or write it again.", code=1
            ) from None
