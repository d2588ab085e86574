"""Clips decoded once, by all cores, to 16-bit samples that all trainings read from a memory map.  N samples."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row, verified
from audioldm.errors import AudioLDMError
from audioldm.paths import cache_folder, staged

SCALE = 32767
PART = 256  # clips that may wait in memory to be written
SMALL_SECONDS = 900.0  # are decoded faster than a store is looked for, and take 29 MB of memory
GUESSED_BYTES = 16000.0  # bytes of a second of sound that was not checked


def key_of(rows: Sequence[Row], rate: int) -> str:
    """The hash of what decides a store's samples: each file's bytes (or path, size and time), part, and the rate."""
    digest = hashlib.sha256(f"i16/{rate}".encode())
    for row in rows:
        about = os.stat(row.path) if os.path.isfile(row.path) else None
        name = row.sha256 or [row.path, about and [about.st_size, about.st_mtime_ns]]
        digest.update(json.dumps([name, row.start, row.seconds]).encode())
    return digest.hexdigest()[:24]


def load(row: Row, rate: int) -> Tensor:
    """A row's clip as int16 (N,).  Raises AudioLDMError if its file is not the one that was checked."""
    wave = decode(verified(row), rate, start=row.start, seconds=row.seconds)
    if not len(wave):
        hint = "Correct or remove its row."
        raise AudioLDMError(f"{row.path} holds no sound from {row.start:g} s on.", hint, code=1)
    return (wave.clamp(-1, 1) * SCALE).round().to(torch.int16)


def seconds_of(row: Row) -> float:
    """How long a clip is; where its row does not say, about how long by its file's size."""
    if row.seconds is None and os.path.isfile(row.path):
        return os.path.getsize(row.path) / GUESSED_BYTES
    return row.seconds or 0.0


class Store:
    """The rows' clips at ``rate`` as int16, decoded once; small sets in memory, others memory-mapped from a store."""

    def __init__(self, rows: Sequence[Row], rate: int) -> None:
        self.path: Path | None = None
        if sum(map(seconds_of, rows)) < SMALL_SECONDS:
            clips = [load(row, rate) for row in rows]
            self.ends = [0, *accumulate(map(len, clips))]
            self.samples = torch.cat(clips)
            return
        # a folder that is named, else data/store in a checkout, else the user's cache folder
        usual = Path("data/store") if Path("data/raw").is_dir() else cache_folder() / "store"
        self.path = Path(os.environ.get("AUDIOLDM_STORE") or usual) / key_of(rows, rate)
        if not self.path.with_suffix(".npy").is_file():
            fill(self.path, rows, rate)
        self.open(self.path)

    def open(self, path: Path) -> None:
        try:
            self.ends = np.load(path.with_suffix(".npy")).tolist()
            file, size = path.with_suffix(".i16"), self.ends[-1]
            self.samples = torch.from_file(str(file), size=size, dtype=torch.int16)
        except (OSError, ValueError, EOFError, LookupError, RuntimeError) as error:
            what = f"{path}.npy or .i16 is damaged: {str(error).splitlines()[0]}."
            raise AudioLDMError(what, "Delete both.", code=1) from error

    def __getitem__(self, row: int) -> Tensor:
        return self.samples[self.ends[row] : self.ends[row + 1]]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self.path is None else {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path is not None:
            self.open(self.path)


def fill(path: Path, rows: Sequence[Row], rate: int) -> None:
    """Decode the rows into a store, by as many threads as there are cores, each with one of torch's."""
    ends, threads = [0], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        with staged(path.with_suffix(".i16")) as stage, open(stage, "wb") as file, pool:
            for begin in range(0, len(rows), PART):
                for clip in pool.map(partial(load, rate=rate), rows[begin : begin + PART]):
                    file.write(clip.numpy().tobytes())
                    ends.append(ends[-1] + len(clip))
    finally:
        torch.set_num_threads(threads)
    with staged(path.with_suffix(".npy")) as stage, open(stage, "wb") as file:
        np.save(file, np.array(ends))
