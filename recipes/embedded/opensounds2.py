"""opensounds2: 6,500 captioned clips of open licences, out of public repositories.

The list (``data/manifests/opensounds2.jsonl.xz``) has for each clip its repository, path, sha256, place and gain there,
caption, licence, attribution and group; ``opensounds2.repositories.json`` beside it each repository's commit.
"""

import json
import lzma
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare.shared import WRONG, AnyPath, Findings, note, reason_of, rows_of
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256
from audioldm.tables import Record, read_object

RATE = 16000
WEAK = re.compile(
    r"(a (video|retro) game |a user interface|a game |an audio navigation|a soft desktop notification"
    r"|a notification chime|upbeat instrumental|instrumental video|a menu |a reverberant impulse)"
)
"""Beginnings of captions that name an event of a program, not a sound."""
LIST = "opensounds2.jsonl.xz"
TEXTS = ("path", "caption", "repository", "original_path", "sha256", "clip")
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
    """opensounds2: 6,500 clips of open licences, by git from 53 public repositories; FILE.jsonl.xz is another list.

    Licence and attribution are each file's own.  Captions that name an event of a program ("a video game sound, X") are
    left out, or drawn with the weight ``weak``.  Clips of one group share a split.  What is below ``to`` is not made
    again, such as the packed set's clips, which count if their bytes are those listed.
    """
    place, to = Path(place) if place else tracked(), Path(to).absolute()
    if not 0 <= weak <= 1:
        raise AudioLDMError(f"weak={weak} is not a weight.", "Use 0 to leave them out, or up to 1.")
    known = index(place)
    records = [record for record in known if weak or not WEAK.match(record.cells["caption"])]
    if len(records) < len(known):
        note(findings, place, f"{len(known) - len(records)} weak captions", "weak", strict=False)
    todo = defaultdict[str, list[Record]](list)
    for record in records:
        try:
            if not place_of(record, to).is_file():
                todo[record.cells["repository"]].append(record)
        except AudioLDMError as error:
            note(findings, record.where, reason_of(error))
    for repository, parts in sorted(todo.items()):
        clone(repository, commits(place), to, parts, host, findings)

    def row(cells: dict[str, Any]) -> Row | None:
        if not (path := cells.get("file", to)).is_file():
            return None
        if path.name == Path(cells["path"]).name:
            check_bytes(path, cells["clip"])
        kind, group = cells["path"].split("/")[0], f"opensounds2/{cells['group']}"
        return Row(
            str(path), (cells["caption"],), (kind,), source=f"opensounds2/{kind}", group=group,
            split=split_of(group, val=val, test=test), licence=cells["licence"],
            weight=weak if WEAK.match(cells["caption"]) else 1.0,
            author=f"{cells['attribution']} (github.com/{cells['repository']}: {cells['original_path']})",
        )  # fmt: skip

    return rows_of(records, row, findings)


def place_of(record: Record, to: Path) -> Path:
    """Where a clip is below ``to``, also its cell ``file``: as the packed set has it, or as it is made here."""
    packed = inside(to, record.cells["path"], where=record.where)
    record.cells["file"] = packed if packed.is_file() else packed.with_suffix(".flac")
    return record.cells["file"]


def check_bytes(path: Path, listed: str) -> None:
    """Raise ValueError for a file whose sha256 does not begin as it is listed."""
    if not (digest := sha256(path)).startswith(listed):
        raise ValueError(f"sha256 {digest[:12]} instead of {listed[:12]}")


def tracked() -> Path:
    """The project's own list: inside an installed package, else in the checkout."""
    root = Path(__file__).parents[2]
    return root / ("_manifests" if (root / "_manifests").is_dir() else "data/manifests") / LIST


def index(path: Path) -> list[Record]:
    """The clips of a list, each with the texts that are needed.   Raises AudioLDMError."""
    try:
        rows = [json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines()]
        if lost := [row for row in rows if not all(isinstance(row[name], str) for name in TEXTS)]:
            raise ValueError(f"no texts {', '.join(TEXTS)}: {lost[0]}")
    except (OSError, lzma.LZMAError, ValueError, TypeError, KeyError) as error:
        raise AudioLDMError(
            f"{path} is no list of clips ({error}).", f"Name a file such as {LIST}."
        ) from None
    return [Record(f"{path}:{number}", row) for number, row in enumerate(rows, 1)]


def commits(path: Path) -> dict[str, str]:
    """Repository -> commit, from the table beside a list.   Raises AudioLDMError."""
    beside = path.with_name(path.name.split(".")[0] + ".repositories.json")
    return read_object(beside, "Keep it beside its list.")


def clone(
    repository: str, pinned: dict[str, str], to: Path, records: list[Record], host: str, findings: Findings
) -> None:
    """Make the listed clips of one repository, which is deleted when they are done."""
    folder = to / "repositories" / repository.replace("/", "+")
    paths = {record.cells["original_path"] for record in records}
    try:
        there = fetch(f"{host}/{repository}", pinned[repository], paths, folder)
    except (AudioLDMError, KeyError) as error:
        note(findings, repository, f"{len(records)} sounds not made: {reason_of(error)}", "later")
        return
    for record in records:
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
    command = [*GIT, "-C", str(folder), *words]
    quiet: dict[str, Any] = {"capture_output": True, "timeout": GIT_SECONDS, "env": os.environ | ENVIRONMENT}
    try:
        return subprocess.run(command, input=data, check=True, **quiet).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace")
        why = f"git {words[0]} failed: {said.strip().splitlines()[-1]}."
        raise AudioLDMError(why, "Run the same command again later.", code=1) from None


def cut(record: Record, folder: Path, findings: Findings) -> None:
    """One clip out of its original, as FLAC at 16 kHz; bytes other than listed are left out."""
    cells = record.cells
    original = folder / cells["original_path"]
    try:
        check_bytes(original, cells["sha256"])
        # whole: a place in an MP3 is not found exactly
        wave = decode(original, RATE)
        begin, length = (round(cells[name] * RATE) for name in ("start", "seconds"))
        wave = (wave - wave.mean())[begin : begin + length] * cells["gain"]
        encode(cells["file"], faded(wave).clamp(-1, 1), RATE, "flac")
    except WRONG as error:
        kind = "changed" if isinstance(error, ValueError) else "corrupt"
        note(findings, record.where, reason_of(error), kind)


def faded(wave: Tensor) -> Tensor:
    """A wave (N,) with 5 ms of fade at both ends."""
    ramp = torch.linspace(0, 1, min(RATE // 200, len(wave) // 2))
    shape = torch.ones(len(wave))
    shape[: len(ramp)], shape[len(wave) - len(ramp) :] = ramp, ramp.flip(0)
    return wave * shape
