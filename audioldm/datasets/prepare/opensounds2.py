"""opensounds2: 6,500 captioned clips of open licences, out of public repositories, or from a folder of tars.

The tracked list (``data/manifests/opensounds2.jsonl.xz``) has for each clip its repository and path there, the sha256
of that file, where the clip begins in it, how long it is and its gain, caption, licence, attribution and group; beside
it ``opensounds2.repositories.json`` gives each repository's commit.
"""

import hashlib
import json
import lzma
import re
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import audioldm
from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Finding, Row, split_of
from audioldm.datasets.prepare.repositories import HOST, fetch
from audioldm.datasets.prepare.shared import AnyPath, Findings, note, remark, rows_of, table
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, write_bytes, write_text
from audioldm.tables import Record

RATE = 16000
WEAK = re.compile(
    r"(a (video|retro) game |a user interface|a game |an audio navigation|a soft desktop notification"
    r"|a notification chime|upbeat instrumental|instrumental video|a menu |a reverberant impulse)"
)
"""Beginnings of captions that name an event of a program, not a sound."""
SUMS = "sha256.jsonl"
"""Beside the sounds: the sha256 of each file as it was first made."""
LIST = "opensounds2.jsonl.xz"
MOST_BYTES = 64 * 2**20
FADE = RATE // 200


def opensounds2(
    place: AnyPath = "", *, to: AnyPath = "data/raw/opensounds2", weak: float = 0.0, val: float = 0.05,
    test: float = 0.05, host: str = HOST, findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """opensounds2: 6,500 clips of open licences, by git from 53 public repositories, or a folder of the set's tars.

    Without a place the project's own list is fetched; another list is FILE.jsonl.xz, and a folder holds manifest.jsonl
    and audio-NNN.tar.  Licence and attribution are each file's own.  Captions that name an event of a program ("a video
    game sound, X") are left out, or drawn with the weight ``weak``.  Clips of one group share a split.  What is there
    is not made again; bytes other than listed, or than at first, are left out and named.
    """
    place, to = Path(place) if place else tracked(), Path(to).absolute()
    if not 0 <= weak <= 1:
        raise AudioLDMError(f"weak={weak} is not a weight.", "Use 0 to leave them out, or up to 1.")
    wanted, sums, packed = clips(place, weak, findings), Sums(to, findings), place.is_dir()
    known = clips_of(tracked()) if packed else {}
    if packed:
        unpack(place, sums, wanted)
    else:
        clone(commits(place), sums, wanted, host)

    def row(cells: dict[str, Any]) -> Row | None:
        group, kind = f"opensounds2/{cells['group']}", cells["path"].split("/")[0]
        path = cells["path"] if packed else flac(cells["path"])
        if (digest := sums.known.get(path)) is None:
            return None
        if packed:
            refuse_other(digest, cells.get("sha256") or known.get(path, ""))
        source, original = (cells[name] for name in ("source", "original_path"))
        return Row(
            str(inside(to, path)), (cells["caption"],), (kind,), source=f"opensounds2/{kind}", group=group,
            split=split_of(group, val=val, test=test), licence=cells["licence"], sha256=digest,
            weight=weak if is_weak(cells) else 1.0, author=f"{cells['attribution']} ({source}: {original})",
        )  # fmt: skip

    return list(rows_of(wanted, row, findings))


def clips(place: Path, weak: float, findings: Findings) -> list[Record]:
    """The clips of a folder or a list; those of weak captions only if they have a weight."""
    need = ("tar", "path", "caption")
    listed = table(place / "manifest.jsonl", need, findings) if place.is_dir() else index(place)
    wanted = [record for record in listed if weak or not is_weak(record.cells)]
    if len(wanted) < len(listed):
        remark(findings, place, f"{len(listed) - len(wanted)} weak captions", "weak")
    return wanted


def refuse_other(digest: str, listed: str) -> None:
    """Raise ValueError unless a sha256 begins as it is listed."""
    if not digest.startswith(listed):
        raise ValueError(f"sha256 {digest[:12]} instead of {listed[:12]}")


def is_weak(cells: dict[str, Any]) -> bool:
    """Whether a clip's caption names an event instead of a sound.

    >>> [is_weak({"caption": text}) for text in ("a retro game sound effect, glasses", "a dog barking")]
    [True, False]
    """
    return bool(WEAK.match(str(cells.get("caption", ""))))


def tracked() -> Path:
    """The project's own list: inside an installed package, else in the checkout."""
    package = Path(audioldm.__file__).parent
    installed = package / "_manifests" / LIST
    return installed if installed.is_file() else package.parent / "data" / "manifests" / LIST


def index(path: Path) -> list[Record]:
    """The clips of a list.   Raises AudioLDMError."""
    try:
        lines = lzma.decompress(path.read_bytes()).decode().splitlines()
        rows = [json.loads(line) for line in lines]
        cells = [row | {"source": f"github.com/{row['repository']}"} for row in rows]
    except (OSError, lzma.LZMAError, ValueError, TypeError, KeyError) as error:
        raise AudioLDMError(f"{path} is no list of clips ({error}).", f"Name a folder, or {LIST}.") from None
    return [Record(f"{path}:{number}", row) for number, row in enumerate(cells, 1)]


def commits(path: Path) -> dict[str, str]:
    """Repository -> commit, from the table beside a list.   Raises AudioLDMError."""
    beside = path.with_name(path.name.split(".")[0] + ".repositories.json")
    try:
        return dict(json.loads(beside.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise AudioLDMError(f"{beside} cannot be read ({error}).", "Keep it beside its list.") from None


def clips_of(path: Path) -> dict[str, str]:
    """Path -> first digits of the sha256 of each clip of the packed set, where there is a list."""
    return {record.cells["path"]: record.cells["clip"] for record in index(path)} if path.is_file() else {}


def flac(path: str) -> str:
    """The name of a clip that is made here."""
    return f"{path.rsplit('.', 1)[0]}.flac"


class Sums:
    """The sha256 of the sounds below ``to`` as they were first made; what is left out goes to ``findings``."""

    def __init__(self, to: Path, findings: Findings) -> None:
        self.to, self.findings = to, findings
        listed = table(to / SUMS, (), findings) if (to / SUMS).is_file() else []
        self.known = {record.cells["path"]: record.cells["sha256"] for record in listed}

    def missing(self, path: str, where: str) -> bool:
        """Whether a sound is still to be made; a name that leads out is left out."""
        try:
            target = inside(self.to, path, where=where)
        except AudioLDMError as error:
            note(self.findings, where, error.message)
            return False
        return not (target.is_file() and path in self.known)

    def agree(self, path: str, content: bytes, where: str) -> bool:
        """Remember a sound's sha256; whether it is the one of the first time."""
        digest = hashlib.sha256(content).hexdigest()
        if self.known.setdefault(path, digest) == digest:
            return True
        reason = f"sha256 {digest[:12]} instead of {self.known.pop(path)[:12]}"
        note(self.findings, where, reason, "changed")
        return False

    def write(self) -> None:
        """Keep what is known."""
        lines = [json.dumps({"path": path, "sha256": self.known[path]}) + "\n" for path in sorted(self.known)]
        write_text(self.to / SUMS, "".join(lines))


def clone(pinned: dict[str, str], sums: Sums, records: list[Record], host: str) -> None:
    """Make the listed clips that are missing, one repository after the other; each is deleted when it is done."""
    todo = defaultdict[str, list[Record]](list)
    for record in records:
        if sums.missing(flac(record.cells["path"]), record.where):
            todo[record.cells["repository"]].append(record)
    for repository, parts in sorted(todo.items()):
        folder = sums.to / "repositories" / repository.replace("/", "+")
        try:
            paths = {record.cells["original_path"] for record in parts}
            there = set(fetch(repository, pinned[repository], paths, folder, host=host))
        except (AudioLDMError, KeyError) as error:
            reason = error.message if isinstance(error, AudioLDMError) else "no commit is listed"
            note(sums.findings, repository, f"{len(parts)} sounds not made: {reason}", "later")
            continue
        for record in parts:
            if record.cells["original_path"] in there:
                cut(record, folder, sums)
            else:
                note(sums.findings, record.where, "its commit has no such file", "missing")
        sums.write()
        shutil.rmtree(folder)


def cut(record: Record, folder: Path, sums: Sums) -> None:
    """One clip out of its original, as FLAC at 16 kHz; bytes other than listed are left out."""
    cells = record.cells
    original, path = folder / cells["original_path"], flac(cells["path"])
    with original.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        refuse_other(digest, cells["sha256"])
    except ValueError as error:
        note(sums.findings, record.where, str(error), "changed")
        return
    try:
        # whole: a place in an MP3 is not found exactly
        wave = decode(original, RATE)
        begin, length = (round(cells[name] * RATE) for name in ("start", "seconds"))
        wave = (wave - wave.mean())[begin : begin + length] * cells["gain"]
        encode(inside(sums.to, path), faded(wave).clamp(-1, 1), RATE, "flac")
    except (AudioLDMError, KeyError, TypeError) as error:
        note(sums.findings, record.where, str(getattr(error, "message", error)), "corrupt")
        return
    sums.agree(path, inside(sums.to, path).read_bytes(), path)


def faded(wave: Tensor) -> Tensor:
    """A wave (N,) with 5 ms of fade at both ends."""
    ramp = torch.linspace(0, 1, min(FADE, len(wave) // 2))
    shape = torch.ones(len(wave))
    shape[: len(ramp)], shape[len(wave) - len(ramp) :] = ramp, ramp.flip(0)
    return wave * shape


def unpack(folder: Path, sums: Sums, records: list[Record]) -> None:
    """Write the listed members of the tars that are missing."""
    by_tar = defaultdict[str, set[str]](set)
    for record in records:
        if sums.missing(record.cells["path"], record.where):
            by_tar[record.cells["tar"]].add(record.cells["path"])
    for name, paths in sorted(by_tar.items()):
        for path, content in members(inside(folder, name), paths, sums.findings):
            if sums.agree(path, content, f"{name}!{path}"):
                write_bytes(inside(sums.to, path), content)
        sums.write()


def members(path: Path, wanted: set[str], findings: Findings) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the wanted plain files of a tar; what is damaged or missing is noted."""
    lost = set(wanted)
    try:
        with tarfile.open(path, "r:") as tar:
            for item in filter(tarfile.TarInfo.isreg, tar):
                if item.name in lost and item.size <= MOST_BYTES:
                    lost.discard(item.name)
                    yield item.name, tar.extractfile(item).read()  # type: ignore[union-attr]  # a plain file
    except (tarfile.TarError, OSError, EOFError) as error:
        note(findings, path, f"it cannot be read: {error}", "missing")
    if lost and findings is not None:
        findings += [Finding("missing", f"{path}!{name}", "not in the tar") for name in sorted(lost)]
