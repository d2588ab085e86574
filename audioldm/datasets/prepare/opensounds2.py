"""opensounds2: 6,500 captioned clips of open licences, out of public repositories, or from a folder of tars.

The list (``data/manifests/opensounds2.jsonl.xz``) has for each clip its repository, path, sha256, place and gain there,
caption, licence, attribution and group; ``opensounds2.repositories.json`` beside it each repository's commit.
"""

import json
import lzma
import os
import re
import shutil
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare.shared import AnyPath, Findings, note, reason_of, rows_of, table
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256, write_bytes
from audioldm.tables import Record, read_object

RATE = 16000
WEAK = re.compile(
    r"(a (video|retro) game |a user interface|a game |an audio navigation|a soft desktop notification"
    r"|a notification chime|upbeat instrumental|instrumental video|a menu |a reverberant impulse)"
)
"""Beginnings of captions that name an event of a program, not a sound."""
LIST = "opensounds2.jsonl.xz"
NEED = {True: ("path", "caption", "tar"), False: ("path", "caption", "repository", "original_path", "sha256")}
"""what a record must have, packed or not"""
MOST_BYTES = 64 * 2**20
HOST = "https://github.com"
GIT_SECONDS = 3600.0  # the longest that one step of git may take
GIT = (
    "git", "-c", "core.autocrlf=false", "-c", "core.symlinks=false", "-c", "core.hooksPath=/dev/null",
    "-c", "advice.detachedHead=false", "-c", "gc.auto=0", "--literal-pathspecs",
)  # fmt: skip
"""bytes as they are committed, and nothing of the repository is run"""
ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_CONFIG_NOSYSTEM": "1"}


def opensounds2(
    place: AnyPath = "", *, to: AnyPath = "data/raw/opensounds2", weak: float = 0.0, val: float = 0.05,
    test: float = 0.05, host: str = HOST, findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """opensounds2: 6,500 clips of open licences, by git from 53 public repositories, or a folder of the set's tars.

    Without a place the project's own list is fetched; another list is FILE.jsonl.xz, and a folder holds manifest.jsonl
    and audio-NNN.tar.  Licence and attribution are each file's own.  Captions that name an event of a program ("a video
    game sound, X") are left out, or drawn with the weight ``weak``.  Clips of one group share a split.  What is there
    is not made again; bytes other than listed are left out and named.
    """
    place, to = Path(place) if place else tracked(), Path(to).absolute()
    if not 0 <= weak <= 1:
        raise AudioLDMError(f"weak={weak} is not a weight.", "Use 0 to leave them out, or up to 1.")
    packed = place.is_dir()
    need = NEED[packed]
    listed = table(place / "manifest.jsonl", need, findings) if packed else index(place)
    named = [record for record in listed if weak or not is_weak(record.cells)]
    if len(named) < len(listed):
        note(findings, place, f"{len(listed) - len(named)} weak captions", "weak", strict=False)
    wanted = [record for record in named if fits(record, need, to, packed, findings)]
    missing, clips = [record for record in wanted if not record.cells["file"].is_file()], None
    if packed:
        clips = clips_of(tracked())
        unpack(place, missing, findings)
    else:
        clone(commits(place), to, missing, host, findings)
    return rows_of(wanted, partial(row_of, clips=clips, weak=weak, val=val, test=test), findings)


def row_of(
    cells: dict[str, Any], *, clips: dict[str, str] | None, weak: float, val: float, test: float
) -> Row | None:
    """A clip, None if it is not there; that of a tar has the hash listed with it, or in ``clips``."""
    group, kind, path = f"opensounds2/{cells['group']}", cells["path"].split("/")[0], cells["file"]
    if not path.is_file():
        return None
    digest = "" if clips is None else cells.get("sha256") or clips.get(cells["path"], "")
    if digest and (why := other(sha256(path), digest)):
        raise ValueError(why)
    return Row(
        str(path), (cells["caption"],), (kind,), source=f"opensounds2/{kind}", group=group,
        split=split_of(group, val=val, test=test), licence=cells["licence"], weight=weak if is_weak(cells) else 1.0,
        author=f"{cells['attribution']} ({cells['source']}: {cells['original_path']})",
    )  # fmt: skip


def fits(record: Record, need: Sequence[str], to: Path, packed: bool, findings: Findings) -> bool:
    """Whether a record has the texts that it needs and a name below ``to``, its cell ``file``; else it is noted."""
    try:
        if lost := [name for name in need if not isinstance(record.cells.get(name), str)]:
            raise ValueError(f"no text {lost[0]}")
        path = record.cells["path"]
        name = path if packed else f"{path.rsplit('.', 1)[0]}.flac"
        record.cells["file"] = inside(to, name, where=record.where)
    except (AudioLDMError, ValueError) as error:
        note(findings, record.where, reason_of(error))
        return False
    return True


def other(digest: str, listed: str) -> str:
    """That a sha256 does not begin as it is listed; "" if it does."""
    return "" if digest.startswith(listed) else f"sha256 {digest[:12]} instead of {listed[:12]}"


def is_weak(cells: dict[str, Any]) -> bool:
    return bool(WEAK.match(str(cells.get("caption", ""))))


def tracked() -> Path:
    """The project's own list: inside an installed package, else in the checkout."""
    package = Path(__file__).parents[2]
    installed = package / "_manifests" / LIST
    return installed if installed.is_file() else package.parent / "data" / "manifests" / LIST


def index(path: Path) -> list[Record]:
    """The clips of a list.   Raises AudioLDMError."""
    try:
        rows = [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
        cells = [row | {"source": f"github.com/{row['repository']}"} for row in rows]
    except (OSError, lzma.LZMAError, ValueError, TypeError, KeyError) as error:
        raise AudioLDMError(f"{path} is no list of clips ({error}).", f"Name a folder, or {LIST}.") from None
    return [Record(f"{path}:{number}", row) for number, row in enumerate(cells, 1)]


def commits(path: Path) -> dict[str, str]:
    """Repository -> commit, from the table beside a list.   Raises AudioLDMError."""
    beside = path.with_name(path.name.split(".")[0] + ".repositories.json")
    return read_object(beside, "Keep it beside its list.")


def clips_of(path: Path) -> dict[str, str]:
    """Path -> first digits of the sha256 of each clip of the packed set, where there is a list."""
    return {record.cells["path"]: record.cells["clip"] for record in index(path)} if path.is_file() else {}


def clone(pinned: dict[str, str], to: Path, records: list[Record], host: str, findings: Findings) -> None:
    """Make the listed clips, one repository after the other; each is deleted when it is done."""
    todo = defaultdict[str, list[Record]](list)
    for record in records:
        todo[record.cells["repository"]].append(record)
    for repository, parts in sorted(todo.items()):
        folder = to / "repositories" / repository.replace("/", "+")
        paths = {record.cells["original_path"] for record in parts}
        try:
            there = fetch(f"{host}/{repository}", pinned[repository], paths, folder)
        except (AudioLDMError, KeyError) as error:
            reason = error.message if isinstance(error, AudioLDMError) else "no commit is listed"
            note(findings, repository, f"{len(parts)} sounds not made: {reason}", "later")
            continue
        for record in parts:
            if record.cells["original_path"] in there:
                cut(record, folder, findings)
            else:
                note(findings, record.where, "its commit has no such file", "missing")
        shutil.rmtree(folder)


def fetch(address: str, commit: str, paths: Iterable[str], folder: Path) -> set[str]:
    """Put those of ``paths`` that a commit of a git repository holds below ``folder``; their names.

    What is downloaded is that one commit without its history, its trees, and the named files; a second call goes on.
    Raises AudioLDMError where the commit cannot be had.
    """
    wanted = {path for path in paths if inside(folder, path)}
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet")
    for key, value in (("url", address), ("promisor", "true"), ("partialclonefilter", "blob:none")):
        git(folder, "config", f"remote.origin.{key}", value)
    git(folder, "fetch", "--quiet", "--depth=1", "--no-tags", "--filter=blob:none", "origin", commit)
    names = git(folder, "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit).split(b"\0")
    there = wanted.intersection(map(os.fsdecode, names))
    if there:
        words = ("checkout", "--quiet", commit, "--pathspec-from-file=-", "--pathspec-file-nul")
        git(folder, *words, data=b"\0".join(map(os.fsencode, sorted(there))))
    return there


def git(folder: Path, *words: str, data: bytes = b"") -> bytes:
    """What git prints, run on the repository and working tree ``folder``.   Raises AudioLDMError."""
    quiet: dict[str, Any] = {"capture_output": True, "timeout": GIT_SECONDS, "env": os.environ | ENVIRONMENT}
    try:
        return subprocess.run([*GIT, "-C", str(folder), *words], input=data, check=True, **quiet).stdout
    except FileNotFoundError:
        raise AudioLDMError("There is no git.", "Install it, or name a folder of the set.") from None
    except subprocess.TimeoutExpired:
        why = f"took over {GIT_SECONDS:g} s"
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        why = f"failed: {said[-1]}"
    raise AudioLDMError(f"git {words[0]} {why}.", "Run the same command again later.", code=1)


def cut(record: Record, folder: Path, findings: Findings) -> None:
    """One clip out of its original, as FLAC at 16 kHz; bytes other than listed are left out."""
    cells = record.cells
    original = folder / cells["original_path"]
    try:
        if why := other(sha256(original), cells["sha256"]):
            note(findings, record.where, why, "changed")
            return
        # whole: a place in an MP3 is not found exactly
        wave = decode(original, RATE)
        begin, length = (round(cells[name] * RATE) for name in ("start", "seconds"))
        wave = (wave - wave.mean())[begin : begin + length] * cells["gain"]
        encode(cells["file"], faded(wave).clamp(-1, 1), RATE, "flac")
    except (AudioLDMError, KeyError, TypeError) as error:
        note(findings, record.where, str(getattr(error, "message", error)), "corrupt")


def faded(wave: Tensor) -> Tensor:
    """A wave (N,) with 5 ms of fade at both ends."""
    ramp = torch.linspace(0, 1, min(RATE // 200, len(wave) // 2))
    shape = torch.ones(len(wave))
    shape[: len(ramp)], shape[len(wave) - len(ramp) :] = ramp, ramp.flip(0)
    return wave * shape


def unpack(folder: Path, records: list[Record], findings: Findings) -> None:
    """Write the listed plain members of the tars to their places; what is damaged or not there is noted."""
    by_tar = defaultdict[str, dict[str, Path]](dict)
    for record in records:
        by_tar[record.cells["tar"]][record.cells["path"]] = record.cells["file"]
    for name, lost in sorted(by_tar.items()):
        path = folder / name
        try:
            with tarfile.open(inside(folder, name), "r:") as tar:
                for item in filter(tarfile.TarInfo.isreg, tar):
                    if item.size <= MOST_BYTES and (target := lost.pop(item.name, None)):
                        write_bytes(target, tar.extractfile(item).read())  # type: ignore[union-attr]
        except (tarfile.TarError, OSError, EOFError, AudioLDMError) as error:
            note(findings, path, f"it cannot be read: {error}", "missing")
        for member in sorted(lost):
            note(findings, f"{path}!{member}", "not in the tar", "missing", strict=False)
