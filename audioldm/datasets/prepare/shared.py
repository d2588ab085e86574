"""What the readers of data sets share: rows from records, sounds found by name, licences, labels as words."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audioldm.datasets.decode import FOREIGN, SUFFIXES
from audioldm.datasets.manifest import Finding, Row
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.tables import Record, read_table

Findings = list[Finding] | None  # where what is left out is noted; None refuses it
AnyPath = str | Path
WRONG = (ValueError, LookupError, TypeError, AttributeError, SyntaxError, RecursionError, AudioLDMError)
"""What a record of another shape makes its reader raise."""
LICENCE_URL = re.compile(r"(publicdomain/zero|licenses/(sampling\+|by(?:-nc)?(?:-sa|-nd)?))/([\d.]+)")
SPLIT_NAMES = {
    "train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test", "eval": "test",
}  # fmt: skip


def note(findings: Findings, where: AnyPath, reason: str, kind: str = "row", *, strict: bool = True) -> None:
    """Add what is left out to ``findings``; without a list refuse it, or if not ``strict`` pass over it."""
    if findings is not None:
        findings.append(Finding(kind, str(where), reason))
    elif strict:
        raise AudioLDMError(f"{where}: {reason}.", "Correct this row.")


def reason_of(error: Exception) -> str:
    text = f"no {error}" if isinstance(error, KeyError) else getattr(error, "message", str(error))
    return str(text).strip(" .")


def table(
    path: AnyPath, need: Sequence[str], findings: Findings, *, text: Sequence[str] = ()
) -> list[Record]:
    rows = read_table(path, need=need, text=text)
    for item in rows.omitted:
        note(findings, item.where, item.fault)
    return rows.records


def rows_of(
    records: Iterable[Record], make: Callable[[dict[str, Any]], Row | None], findings: Findings
) -> list[Row]:
    """What ``make`` makes of the records' cells; those that it cannot use are added to ``findings``."""
    out = list[Row | None]()
    for record in records:
        try:
            out.append(make(record.cells))
        except WRONG as error:
            note(findings, record.where, reason_of(error))
    return [row for row in out if row is not None]


def merged(rows: Iterable[Row]) -> list[Row]:
    """Rows of which those of one part of one file are one, with the captions of all."""
    known = dict[object, Row]()
    for row in rows:
        key = row.path, row.start, row.seconds
        earlier = known[key].captions if key in known else ()
        known[key] = replace(row, captions=tuple(dict.fromkeys((*earlier, *row.captions))))
    return list(known.values())


def by_split(folder: Path, files: Mapping[str, str]) -> list[tuple[str, Path]]:
    """(split, list) of those ``files`` that are in a folder.   Raises AudioLDMError if none is."""
    if there := [(split, folder / name) for name, split in files.items() if (folder / name).is_file()]:
        return there
    hint = "Name the folder of the data set's lists."
    raise AudioLDMError(f"{folder} holds no {' or '.join(files)}.", hint)


def items(path: Path, content: Any, key: str) -> list[Record]:
    """The objects of the list ``key`` in a file's content as records, by their number.   Raises AudioLDMError."""
    values = content.get(key) if isinstance(content, dict) else None
    if not isinstance(values, list):
        raise AudioLDMError(f"{path} has no list {key!r}.", "Is this the right file?")
    return [Record(f"{path}:{number}", value) for number, value in enumerate(values, start=1)]


def walk(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, in order of name; links to folders are followed, each folder once."""
    known = set[str]()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(place)) in known:
            folders.clear()
        else:
            known.add(real)
            yield from (Path(place, name) for name in sorted(files))


def is_sound(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES + FOREIGN and not path.name.startswith("._")


class Sounds:
    """The sound files below a folder, by file name or by name without its ending."""

    def __init__(self, *folders: AnyPath) -> None:
        self.folders = [Path(folder).absolute() for folder in folders]
        self.by_name: dict[str, Path] = {}
        for folder in self.folders:
            if not folder.is_dir():
                raise AudioLDMError(f"There is no folder {folder}.", "Name the folder that holds the sounds.")
            for path in filter(is_sound, walk(folder)):
                for name in (path.name, path.stem):
                    self.by_name.setdefault(unicodedata.normalize("NFC", name), path)

    def place(self, *names: str) -> str:
        """The file of the first name that is there, or where it should be: the check then names it as missing."""
        hits = filter(None, map(self.by_name.get, (unicodedata.normalize("NFC", name) for name in names)))
        return str(next(hits, None) or inside(self.folders[0], names[0]))


def licence(url: str) -> str:
    """A Creative Commons address as a short name, such as CC-BY-NC-3.0; any other text as it is."""
    if not (hit := LICENCE_URL.search(url)):
        return url
    kind = (hit[2] or "").upper().replace("SAMPLING", "Sampling")
    return f"CC-{kind}-{hit[3]}" if kind else f"CC0-{hit[3]}"


def words(label: str) -> str:
    """A class name as words: the first of its alternatives, without brackets ("electric guitar")."""
    return " ".join(re.sub(r"\([^)]*\)", "", label.replace("_", " ")).split(",")[0].lower().split())


def listing(parts: Iterable[str]) -> str:
    *first, last = list(dict.fromkeys(parts))
    return f"{', '.join(first)} and {last}" if first else last
