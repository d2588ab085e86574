"""Manifests and their sounds as one small file, to carry to a rented machine: Ogg Opus in a tar.

A pack holds ``NAME.jsonl`` and ``NAME/HASH.opus`` for each row, at 16 kHz mono.  Opus loses what ears hardly hear (it
is not for measuring); unpacking writes 16-bit WAV, which trainings read fast.
"""

import re
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import soundfile

from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Finding, Row, read, verified, write
from audioldm.datasets.parallel import sound_results
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256, staged, workspace

RATE = 16000
FULL_KBPS, LEAST_KBPS = 256, 6  # libsndfile's Opus rates at compression level 0 and 1
MEMBER = re.compile(r"(?:\./)?(?P<stem>[^/\\]+?)(?:\.jsonl|/[^/\\]+\.opus)")
"""Members of a pack; anything else in the tar makes it none."""


def level_of(kbps: float) -> float:
    """libsndfile's compression level for a bit rate a channel.

    >>> level_of(256), level_of(6)
    (0.0, 1.0)
    """
    if not LEAST_KBPS <= kbps <= FULL_KBPS:
        raise AudioLDMError(f"kbps={kbps} is no Opus rate.", f"Use {LEAST_KBPS} to {FULL_KBPS}.")
    return (FULL_KBPS - kbps) / (FULL_KBPS - LEAST_KBPS)


def name_of(row: Row) -> str:
    """The name of a row's sound in a pack: its file's hash, and where in the file it begins."""
    return f"{row.sha256[:24] or Path(row.path).stem}-{round(1000 * row.start)}.opus"


def shrink(row: Row, folder: Path, level: float) -> Row:
    """Write the row's part of its file as Opus below ``folder``; the row of the new file."""
    path = inside(folder, name_of(row))
    wave = decode(verified(row), RATE, start=row.start, seconds=row.seconds)
    soundfile.write(path, wave.numpy(), RATE, format="OGG", subtype="OPUS", compression_level=level)
    return replace(row, path=str(path), start=0.0, seconds=None, sha256=sha256(path))


def grow(row: Row, folder: Path) -> Row:
    """Write the row's Opus file as WAV in ``folder``; the row of the new file."""
    if row.sha256 and sha256(row.path) != row.sha256:
        raise AudioLDMError(f"{Path(row.path).name} is not the file that was packed.", code=1)
    path = encode(folder / f"{Path(row.path).stem}.wav", decode(row.path, RATE), RATE)
    return replace(row, path=str(path), sha256=sha256(path))


def moved(row: Row, place: Path) -> Row:
    """The row of a file that is moved to another folder."""
    return replace(row, path=shutil.move(row.path, str(place / Path(row.path).name)))


def pack(
    manifests: Sequence[Path],
    out: Path,
    *,
    kbps: float = 48,
    splits: Sequence[str] = ("train", "val", "test"),
    processes: int = 0,
) -> tuple[int, list[Finding]]:
    """Write the rows of ``splits`` and their sounds to the tar ``out``; its bytes, and the rows that were left out."""
    level, findings = level_of(kbps), list[Finding]()
    if twins := {path.stem for path in manifests if sum(path.stem == other.stem for other in manifests) > 1}:
        raise AudioLDMError(f"Two manifests are named {twins.pop()!r}.", "Rename one of them.")
    with staged(out) as stage, workspace(out.parent) as room:
        for manifest in manifests:
            folder = room / manifest.stem
            folder.mkdir()
            rows = [row for row in read(manifest) if row.split in splits]
            rows = list({name_of(row): row for row in rows}.values())  # equal sounds would share a file
            work = partial(shrink, folder=folder, level=level)
            done = sound_results(work, rows, findings, processes=processes)
            write(list(done), room / f"{manifest.stem}.jsonl")
        with tarfile.open(stage, "w") as tar:
            tar.add(room, arcname=".")
    return out.stat().st_size, findings


def unpack(
    file: Path, out: Path, *, force: bool = False, processes: int = 0
) -> tuple[list[Path], list[Finding]]:
    """Write a pack's manifests and sounds below ``out``: the manifests, and the rows that were left out.

    Raises AudioLDMError for a tar that is no pack, before anything is written; and where ``out`` has a manifest or a
    folder of such a name already, unless ``force``.
    """
    findings = list[Finding]()
    with workspace(out) as room:
        stems = extract(file, room)
        there = [inside(out, name, where=file) for stem in stems for name in (f"{stem}.jsonl", stem)]
        if not force and (old := next(filter(Path.exists, there), None)):
            raise AudioLDMError(f"{old} is there already.", "Pass --force to replace what it holds.")
        for stem in stems:
            waves, place = room / "waves" / stem, out / stem
            waves.mkdir(parents=True)
            place.mkdir(exist_ok=True)
            rows = read(room / f"{stem}.jsonl", absolute=False)
            work = partial(grow, folder=waves)
            done = list(sound_results(work, rows, findings, processes=processes))
            write([moved(row, place) for row in done], out / f"{stem}.jsonl")
    return [out / f"{stem}.jsonl" for stem in stems], findings


def stem_of(item: tarfile.TarInfo) -> str:
    """The manifest's name that a member of a pack belongs to.   Raises TarError for any other member."""
    match = MEMBER.fullmatch(item.name)
    plain = item.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
    if match is None or not plain or item.name.startswith(("/", "..")):
        raise tarfile.TarError(f"it holds {item.name!r}")
    return match["stem"]


def extract(file: Path, folder: Path) -> list[str]:
    """Copy a pack's members below ``folder``; the names of its manifests.

    Raises AudioLDMError, before anything is copied, unless all members are a pack's.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            members = [item for item in tar.getmembers() if not item.isdir()]
            stems = {stem_of(item) for item in members}
            for item in members:
                path, source = inside(folder, item.name, where=file), tar.extractfile(item)
                path.parent.mkdir(exist_ok=True)
                with path.open("wb") as target:
                    shutil.copyfileobj(source, target)  # type: ignore[arg-type]  # a plain file has a source
    except (tarfile.TarError, OSError, EOFError) as error:
        raise AudioLDMError(f"{file} is no pack: {error}.", "Copy it again.", code=1) from None
    if lost := [stem for stem in sorted(stems) if not (folder / f"{stem}.jsonl").is_file()]:
        raise AudioLDMError(f"{file} is no pack: {lost[0]}.jsonl is missing.", "Copy it again.", code=1)
    return sorted(stems)
