"""Manifests and their sounds as one small file, to carry to a rented machine: Ogg Opus in a tar.

A pack holds ``NAME.jsonl`` and ``NAME/HASH.opus`` for each row, at 16 kHz mono.   Opus loses what ears hardly hear (it
is not for measuring); unpacking writes 16-bit WAV, which trainings read fast.
"""

import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import soundfile

from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Row, read, sha256, write
from audioldm.errors import AudioLDMError

RATE = 16000
FULL_KBPS, LEAST_KBPS = 256, 6  # libsndfile's Opus rates at compression level 0 and 1


def level_of(kbps: float) -> float:
    """libsndfile's compression level for a bit rate a channel.

    >>> level_of(256), level_of(6)
    (0.0, 1.0)
    """
    if not LEAST_KBPS <= kbps <= FULL_KBPS:
        raise AudioLDMError(f"kbps={kbps} is no Opus rate.", f"Use {LEAST_KBPS} to {FULL_KBPS}.")
    return (FULL_KBPS - kbps) / (FULL_KBPS - LEAST_KBPS)


def name_of(row: Row) -> str:
    """What a row's sound is called in a pack: its file's hash, and where in the file it begins."""
    return f"{row.sha256[:24] or Path(row.path).stem}-{round(1000 * row.start)}.opus"


def shrink(row: Row, folder: Path, level: float) -> Row:
    """Write the row's part of its file as Opus below ``folder``; the row of the new file."""
    path = folder / name_of(row)
    wave = decode(row.path, RATE, start=row.start, seconds=row.seconds)
    soundfile.write(path, wave.numpy(), RATE, format="OGG", subtype="OPUS", compression_level=level)
    return replace(row, path=str(path), start=0.0, seconds=None, sha256=sha256(path))


def grow(row: Row) -> Row:
    """Turn the row's Opus file into WAV beside it; the row of the new file."""
    path = Path(row.path).with_suffix(".wav")
    encode(path, decode(row.path, RATE), RATE)
    Path(row.path).unlink()
    return replace(row, path=str(path), sha256=sha256(path))


def pack(
    manifests: Sequence[Path],
    out: Path,
    *,
    kbps: float = 48,
    splits: Sequence[str] = ("train", "val", "test"),
    processes: int = 1,
    on_row: Callable[[], None] | None = None,
) -> int:
    """Write the rows of ``splits`` and their sounds to the tar ``out``; returns its bytes."""
    level = level_of(kbps)
    out.parent.mkdir(parents=True, exist_ok=True)
    waiting = out.with_suffix(".new")
    with tempfile.TemporaryDirectory(dir=out.parent) as room, tarfile.open(waiting, "w") as tar:
        for manifest in manifests:
            folder = Path(room) / manifest.stem
            folder.mkdir()
            rows = [row for row in read(manifest) if row.split in splits]
            rows = list({name_of(row): row for row in rows}.values())  # equal sounds would share a file
            write(
                each(partial(shrink, folder=folder, level=level), rows, processes, on_row),
                folder.with_suffix(".jsonl"),
            )
        tar.add(room, arcname=".")
    waiting.replace(out)
    return out.stat().st_size


def unpack(
    file: Path, out: Path, *, processes: int = 1, on_row: Callable[[], None] | None = None
) -> list[Path]:
    """Write a pack's manifests and sounds below ``out``; returns the manifests."""
    try:
        with tarfile.open(file) as tar:
            names = [m.name for m in tar.getmembers() if m.name.endswith(".jsonl")]
            tar.extractall(out, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise AudioLDMError(f"{file} is no pack: {error}", "Copy it again.", code=1) from None
    manifests = [out / name for name in sorted(names)]
    for manifest in manifests:
        write(each(grow, read(manifest), processes, on_row), manifest)
    return manifests


def each(
    work: Callable[[Row], Row], rows: Sequence[Row], processes: int, on_row: Callable[[], None] | None
) -> list[Row]:
    """``work`` on every row, in order, by several processes (spawned: a forked torch may wait for threads it lost)."""

    def counted(done: Iterable[Row]) -> list[Row]:
        found = []
        for row in done:
            found.append(row)
            if on_row is not None:
                on_row()
        return found

    if processes == 1:
        return counted(map(work, rows))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return counted(pool.map(work, rows, chunksize=8))
