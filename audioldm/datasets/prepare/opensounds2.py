"""opensounds2: 6,500 captioned clips of open licences from public repositories, as tars and a manifest.jsonl."""

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import Finding, Row, split_of
from audioldm.datasets.prepare.shared import AnyPath, Findings, note, remark, rows_of, table
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, write_bytes, write_text
from audioldm.tables import Record

WEAK = re.compile(r"^(a|an) (retro |video )?(video )?game (sound|music)( effect)?, ")
"""Captions that name an event of a game, not a sound."""
SUMS = "sha256.jsonl"
"""Beside the sounds: the sha256 of each file as it was first unpacked."""
MOST_BYTES = 64 * 2**20


def opensounds2(
    folder: AnyPath, *, to: AnyPath = "data/raw/opensounds2", weak: float = 0.0, val: float = 0.05, test: float = 0.05,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """opensounds2: 6,500 clips of open licences out of public repositories (manifest.jsonl and audio-NNN.tar).

    Licence and attribution are each file's own.  Captions that name an event of a game ("a video game sound, X") are
    left out, or drawn with the weight ``weak``.  Clips of one group share a split.  Sounds that are there are not
    unpacked again; a manifest's sha256, where it has one, and that of the first unpacking must agree.
    """
    folder, to = Path(folder), Path(to).absolute()
    if not 0 <= weak <= 1:
        raise AudioLDMError(f"weak={weak} is not a weight.", "Use 0 to leave them out, or up to 1.")
    listed = table(folder / "manifest.jsonl", ("tar", "path", "caption"), findings)
    wanted = [record for record in listed if weak or not is_weak(record.cells)]
    if len(wanted) < len(listed):
        lost = f"{len(listed) - len(wanted)} weak captions"
        remark(findings, folder, lost, "weak")
    sums = unpack(folder, to, wanted, findings)

    def row(cells: dict[str, Any]) -> Row:
        group, kind, digest = (
            f"opensounds2/{cells['group']}",
            cells["path"].split("/")[0],
            sums[cells["path"]],
        )
        if cells.get("sha256", digest) != digest:
            raise ValueError(f"sha256 {digest[:12]} instead of {cells['sha256'][:12]}")
        return Row(
            str(inside(to, cells["path"])), (cells["caption"],), (kind,), source=f"opensounds2/{kind}", group=group,
            split=split_of(group, val=val, test=test), licence=cells["licence"], sha256=digest,
            weight=weak if is_weak(cells) else 1.0,
            author=f"{cells['attribution']} ({cells['source']}: {cells['original_path']})",
        )  # fmt: skip

    return list(rows_of(wanted, row, findings))


def is_weak(cells: dict[str, Any]) -> bool:
    """Whether a clip's caption names an event instead of a sound.

    >>> [is_weak({"caption": text}) for text in ("a retro game sound effect, glasses", "a dog barking")]
    [True, False]
    """
    return bool(WEAK.match(str(cells.get("caption", ""))))


def unpack(folder: Path, to: Path, records: list[Record], findings: Findings) -> dict[str, str]:
    """Write the listed members of the tars below ``to``; path -> sha256 of those that are there and as they were."""
    sums = table(to / SUMS, (), findings) if (to / SUMS).is_file() else []
    known = {record.cells["path"]: record.cells["sha256"] for record in sums}
    for name, paths in sorted(missing(to, records, known, findings).items()):
        for path, content in members(inside(folder, name), paths, findings):
            digest = hashlib.sha256(content).hexdigest()
            if known.setdefault(path, digest) != digest:
                why = f"sha256 {digest[:12]} instead of {known.pop(path)[:12]}"
                note(findings, f"{name}!{path}", why, "changed")
            else:
                write_bytes(inside(to, path), content)
        lines = [json.dumps({"path": path, "sha256": known[path]}) + "\n" for path in sorted(known)]
        write_text(to / SUMS, "".join(lines))
    return known


def missing(
    to: Path, records: list[Record], known: dict[str, str], findings: Findings
) -> dict[str, set[str]]:
    """Name of a tar -> its listed members that are not below ``to`` yet."""
    by_tar: dict[str, set[str]] = {}
    for record in records:
        try:
            target = inside(to, record.cells["path"], where=record.where)
        except (AudioLDMError, KeyError, TypeError) as error:
            note(findings, record.where, str(error))
            continue
        if not (target.is_file() and known.get(record.cells["path"])):
            by_tar.setdefault(record.cells["tar"], set()).add(record.cells["path"])
    return by_tar


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
