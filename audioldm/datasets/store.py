"""Clips decoded once, by all cores, to 16-bit samples that all trainings read from a memory map.  N samples.

A store is a folder named by the hash of its rows and rate; it holds parts of about ten minutes of sound, each whole or
absent, so that a run that was cut off goes on.  Without a store, few clips are decoded in the memory of the process.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row, verified
from audioldm.errors import AudioLDMError
from audioldm.paths import staged, sweep

SCALE = 32767
PART_SECONDS = 600.0
SMALL_SECONDS = 900.0
"""So much sound is decoded faster than a store is looked for; it takes 29 MB of memory at 16 kHz."""
GUESSED_BYTES = 16000.0
"""Bytes of a second of sound."""
PLACE = "AUDIOLDM_STORE"
"""The environment variable that names the folder of all stores."""


def store_folder() -> Path:
    """Where stores lie: $AUDIOLDM_STORE, else data/store in a checkout, else the user's cache folder."""
    if os.environ.get(PLACE):
        return Path(os.environ[PLACE])
    if Path("data/raw").is_dir():
        return Path("data/store")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm" / "store"


def key_of(rows: Sequence[Row], rate: int) -> str:
    """The hash of what decides a store's samples: each file's bytes (or path, size and time), part, and the rate."""
    digest = hashlib.sha256(f"int16/{rate}".encode())
    for row in rows:
        name = row.sha256 or f"{row.path}/{stamp(row.path)}"
        digest.update(json.dumps([name, row.start, row.seconds]).encode())
    return digest.hexdigest()[:24]


def stamp(path: str) -> str:
    """Size and time of a file; empty if there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return ""
    return f"{about.st_size}/{about.st_mtime_ns}"


def load(row: Row, rate: int) -> Tensor:
    """A row's clip as int16 (N,).  Raises AudioLDMError if its file is not the one that was checked."""
    wave = decode(verified(row), rate, start=row.start, seconds=row.seconds)
    if not len(wave):
        raise AudioLDMError(
            f"{row.path} holds no sound from {row.start:g} s on.", "Correct or remove its row.", code=1
        )
    return (wave.clamp(-1, 1) * SCALE).round().to(torch.int16)


class Store:
    """The rows' clips at ``rate`` as int16; small sets in memory, others memory-mapped from ``folder``.

    The first use decodes what is missing with all cores.
    """

    def __init__(self, rows: Sequence[Row], rate: int, *, folder: Path | None = None) -> None:
        in_memory = folder is None and sum(map(about_seconds, rows)) < SMALL_SECONDS
        self.folder = None if in_memory else (folder or store_folder()) / key_of(rows, rate)
        self.spans = [range(len(rows))] if in_memory else spans(rows)
        self.places = [(part, place) for part, span in enumerate(self.spans) for place in range(len(span))]
        if in_memory:
            self.parts = [joined(list(map(partial(load, rate=rate), rows)))]
        else:
            self.fill(rows, rate)
            self.open()

    def fill(self, rows: Sequence[Row], rate: int) -> None:
        """Write the parts that are missing."""
        folder = self.path(0).parent
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with single_threaded(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for part, span in enumerate(self.spans):
                if self.path(part).is_file():
                    continue
                clips = pool.map(lambda row: load(row, rate), [rows[place] for place in span])
                with staged(self.path(part)) as stage:
                    save_file(joined(list(clips)), stage)

    def path(self, part: int) -> Path:
        """The file of a part."""
        assert self.folder is not None
        return self.folder / f"samples-{part:05d}.safetensors"

    def open(self) -> None:
        """Map the parts."""
        try:
            self.parts = [load_file(self.path(part)) for part in range(len(self.spans))]
        except (SafetensorError, OSError) as error:
            raise AudioLDMError(
                f"{self.folder} is damaged: {error}.", "Delete this folder.", code=1
            ) from error

    def __getitem__(self, row: int) -> Tensor:
        """The clip (N,) of a row, on the map."""
        part, place = self.places[row]
        ends = self.parts[part]["ends"]
        return self.parts[part]["samples"][int(ends[place - 1]) if place else 0 : int(ends[place])]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self.folder is None else {**self.__dict__, "parts": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.folder is not None:
            self.open()


def about_seconds(row: Row) -> float:
    """A row's seconds; of a row that was not checked a guess by the size of its file."""
    if row.seconds is not None:
        return row.seconds
    return os.stat(row.path).st_size / GUESSED_BYTES if os.path.isfile(row.path) else 0.0


def spans(rows: Sequence[Row]) -> list[range]:
    """Consecutive rows that make a part of about PART_SECONDS each."""
    out, begin, seconds = list[range](), 0, 0.0
    for place, row in enumerate(rows):
        seconds += about_seconds(row)
        if seconds >= PART_SECONDS:
            out.append(range(begin, place + 1))
            begin, seconds = place + 1, 0.0
    return [*out, range(begin, len(rows))] if begin < len(rows) else out


def joined(clips: Sequence[Tensor]) -> dict[str, Tensor]:
    """Clips as one tensor and where each ends."""
    ends = torch.tensor([len(clip) for clip in clips]).cumsum(0)
    return {"samples": torch.cat(list(clips)), "ends": ends}


@contextmanager
def single_threaded() -> Iterator[None]:
    """One torch thread in each of our own, which are as many as there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
