"""Freely licensed sounds that ship inside Debian and npm packages, listed one by one in a tracked index.

The index (``data/manifests/opensounds.jsonl``) gives package, member, caption, licence, author and md5 of each sound;
beside it ``opensounds.packages.json`` gives each package's registry, version and size.   Licences were resolved file by
file from the packages' copyright files.   A sound whose bytes are other than listed is named, never used.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import audioldm
from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Finding, Row, split_of
from audioldm.errors import AudioLDMError
from audioldm.tables import lines, read_text

from .containers import (
    CONTAINER_BYTES,
    DAMAGE,
    archive,
    bounded,
    broken,
    contents,
    is_container,
)
from .packages import FetchError, Package, fetch

RATE = 16000
SOURCE = "opensounds"
LICENCES = {
    "permissive": r"CC0-1\.0|public-domain|MIT|CC-BY-[34]\.0\+?",
    "sharealike": r"CC-BY-SA-[34]\.0(\+|-US)?",
    "all": r"L?GPL-[23](\.\d)?\+?( with composition exception| or MPL)?|Artistic-1\.0",
}
"""tier -> the licences that it adds to the tiers before it; no other licence may be listed"""


@dataclass(frozen=True)
class Sound:
    """One line of the index."""

    package: str
    member: str
    caption: str
    label: str
    licence: str
    author: str
    md5: str

    @property
    def outer(self) -> str:
        """The file in the package: the sound itself, or the container that holds it ("a.zip!sound/b.ogg")."""
        return self.member.split("!", 1)[0]

    @property
    def group(self) -> str:
        """Numbered takes of one sound ("Hurt1.wav", "Hurt2.wav") are one group, so that they share a split.

        >>> Sound("p", "a/Hurt12.wav", "", "", "", "", "").group
        'opensounds/p/a/Hurt'
        """
        stem = self.member.rsplit(".", 1)[0]
        return f"{SOURCE}/{self.package}/{stem.rstrip('0123456789._- ') or stem}"


@dataclass
class Gathered:
    """What became sounds, and what did not."""

    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def default_index() -> Path:
    """The project's own index: inside an installed package, else in the checkout."""
    installed = Path(audioldm.__file__).parent / "_manifests" / "opensounds.jsonl"
    checkout = Path(__file__).parents[2] / "data" / "manifests" / "opensounds.jsonl"
    return installed if installed.is_file() else checkout


def load_index(path: str | Path | None = None) -> tuple[list[Package], list[Sound]]:
    """The packages and sounds of an index (the project's own if None); a licence outside LICENCES is refused."""
    path = default_index() if path is None else Path(path)
    table = path.with_suffix(".packages.json")
    for needed in (path, table):
        if not needed.is_file():
            raise AudioLDMError(
                f"There is no index {needed}.", "Pass --index with data/manifests/opensounds.jsonl."
            )
    sounds = [Sound(**json.loads(line)) for line in lines(read_text(path)) if line.strip()]
    packages = [Package(**item) for item in json.loads(table.read_text(encoding="utf-8"))]
    if bad := sorted(
        {sound.licence for sound in sounds} - {sound.licence for sound in allowed(sounds, "all")}
    ):
        raise AudioLDMError(
            f"{path} lists licences {bad}.", "Only free licences that are known by name may be used."
        )
    if lost := sorted({sound.package for sound in sounds} - {package.name for package in packages}):
        raise AudioLDMError(f"{table} does not list {lost}.", "Add the packages.")
    return packages, sounds


def allowed(sounds: Sequence[Sound], tier: str) -> list[Sound]:
    """The sounds whose licence is of ``tier`` or one before it."""
    if tier not in LICENCES:
        raise AudioLDMError(f"licence={tier!r} is not a choice.", f"Use one of {', '.join(LICENCES)}.")
    names = list(LICENCES)
    known = re.compile("|".join(LICENCES[name] for name in names[: names.index(tier) + 1]))
    return [sound for sound in sounds if known.fullmatch(sound.licence)]


def choose(packages: Sequence[Package], names: Sequence[str], max_mb: float | None) -> list[Package]:
    """The named packages (all if none is named), smallest first, as many as fit into ``max_mb`` of downloads."""
    known = {package.name: package for package in packages}
    if unknown := [name for name in names if name not in known]:
        raise AudioLDMError(f"The index has no packages {unknown}.", f"It has {', '.join(sorted(known))}.")
    out, total = [], 0.0
    for package in sorted((known[name] for name in names or known), key=lambda package: package.mb):
        total += package.mb
        if max_mb is None or total <= max_mb:
            out.append(package)
    return out


def members(path: Path, outers: set[str], wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """(member name as in the index, bytes) of each wanted sound in a package."""
    for outer, file in archive(path):
        if outer not in outers:
            continue
        try:
            yield from _sounds(outer, file, wanted)
        except DAMAGE as error:
            raise broken(path.name, str(error)) from error


def _sounds(outer: str, file: BinaryIO, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """One file of a package: a sound, or the wanted sounds of a container."""
    if not is_container(outer):
        yield outer, bounded(file, outer)
        return
    with tempfile.TemporaryFile() as copy:
        _copy(file, copy, outer)
        for inner, data in contents(copy, outer, lambda name: f"{outer}!{name}" in wanted):
            yield f"{outer}!{inner}", data


def _copy(source: BinaryIO, target: BinaryIO, name: str) -> None:
    """Spool a container to disk (zip needs to seek), up to CONTAINER_BYTES, and rewind."""
    total = 0
    while block := source.read(2**20):
        total += len(block)
        if total > CONTAINER_BYTES:
            raise AudioLDMError(
                f"{name} is larger than {CONTAINER_BYTES} bytes.", "Leave its package out.", code=1
            )
        target.write(block)
    target.seek(0)


def convert(data: bytes, sound: Sound, target: Path) -> None:
    """Write a sound's bytes as 16 kHz mono FLAC; a peak above full scale is brought down to it, not cut."""
    with tempfile.NamedTemporaryFile(suffix=Path(sound.member).suffix) as file:
        file.write(data)
        file.flush()
        wave = decode(file.name, RATE)
    if len(wave) == 0:
        raise AudioLDMError(f"{sound.member}: no samples", "Leave it out.", code=1)
    encode(target, wave / max(1.0, float(wave.abs().max())), RATE, "flac")


def gather(
    packages: Sequence[Package],
    sounds: Sequence[Sound],
    folder: str | Path,
    *,
    cache: str | Path,
    keep: bool = True,
    on_package: Callable[[Package, int], None] | None = None,
) -> Gathered:
    """Fetch, unpack, verify and convert; sounds that ``folder`` already has are not made again.

    ``keep=False`` deletes each downloaded package after use.   ``on_package(package, sounds listed)`` follows each.
    """
    out = Gathered()
    for package in packages:
        listed = [sound for sound in sounds if sound.package == package.name]
        todo = {sound.member: sound for sound in listed if not place(folder, sound).is_file()}
        if todo:
            _unpack(package, todo, Path(folder), Path(cache), keep, out.findings)
        out.rows += [row(folder, sound) for sound in listed if place(folder, sound).is_file()]
        if on_package is not None:
            on_package(package, len(listed))
    return out


def _unpack(
    package: Package, todo: dict[str, Sound], folder: Path, cache: Path, keep: bool, findings: list[Finding]
) -> None:
    """Convert the sounds of one package; whatever goes wrong becomes a finding with a name."""
    left = dict(todo)
    try:
        path = fetch(package, cache)
        for name, data in members(path, {sound.outer for sound in todo.values()}, set(todo)):
            if (sound := left.pop(name, None)) is None:
                continue
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if digest != sound.md5:
                findings.append(Finding("md5", f"{package.name}/{name}", f"{digest} instead of {sound.md5}"))
                continue
            try:
                convert(data, sound, place(folder, sound))
            except AudioLDMError as error:
                findings.append(
                    Finding("corrupt", f"{package.name}/{name}", error.message.split(": ", 1)[-1])
                )
    except AudioLDMError as error:
        kind = error.fate if isinstance(error, FetchError) else "package"
        findings.append(Finding(kind, package.name, f"{len(left)} sounds not made: {error.message}"))
        return
    findings.extend(Finding("missing", f"{package.name}/{name}", "not in the package") for name in left)
    if not keep:
        path.unlink()


def place(folder: str | Path, sound: Sound) -> Path:
    """Where a sound's FLAC lies: named by its md5, never by a name from inside a package."""
    return Path(folder) / sound.package / f"{sound.md5}.flac"


def row(folder: str | Path, sound: Sound) -> Row:
    """The manifest row of a converted sound; split by the hash of its group."""
    return Row(
        path=str(place(folder, sound).absolute()),
        captions=(sound.caption,),
        labels=(sound.label,),
        split=split_of(sound.group, val=0.05, test=0.05),
        licence=sound.licence,
        source=f"{SOURCE}/{sound.package}",
        author=sound.author,
        group=sound.group,
    )
