"""Any folder of sounds, with captions from a metadata file, from text files beside the sounds, or from file names."""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from audioldm import tables
from audioldm.datasets.decode import FOREIGN, SUFFIXES, opened
from audioldm.datasets.manifest import SPLITS, Row, split_of
from audioldm.datasets.prepare import shared
from audioldm.datasets.prepare.shared import AnyPath, Findings, is_sound, note
from audioldm.errors import AudioLDMError
from audioldm.paths import locate, sha256

METADATA = ("metadata.csv", "metadata.jsonl")
FILE_COLUMNS = ("file_name", "path", "file")
CAPTION_COLUMNS = ("captions", "caption", "text")

OTHER = (
    "", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".yaml", ".yml", ".xml", ".html", ".htm", ".pdf", ".lab",
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".rtf", ".doc", ".docx", ".xls", ".xlsx", ".zip", ".tar", ".gz", ".py",
    ".sh", ".log", ".parquet", ".npy", ".npz", ".pt", ".ini", ".toml", ".lnk", ".url", ".db", ".bib", ".tex", ".asd",
)  # fmt: skip
"""Endings of files that nobody takes for sounds."""

Sound = tuple[Path, dict[str, Any]]  # a file, and what metadata says of it


def folder(
    place: AnyPath, *, licence: str = "", author: str = "", source: str = "", val: float = 0.1, test: float = 0.1,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """Any folder of sounds, each once for each line of metadata about it; its subfolders and links count.

    Captions come from metadata.csv or metadata.jsonl (file_name, caption; also labels, start, seconds, split, licence,
    author) or the one table there with such columns, else from NAME.txt beside NAME.wav (one caption a line), else
    from the file name.  A line about a file that is not there, a link to none and a sound without a caption stay in,
    so that the check names them.  The split, unless metadata gives one, follows from the hash of the file's bytes:
    parts and copies of a file share it.
    """
    place = Path(place).absolute()
    if not place.is_dir():
        raise AudioLDMError(f"There is no folder {place}.", "Name a folder of sounds.")
    about, files = metadata(place, findings), list(shared.walk(place))
    named, known = sounds_of(about, place, findings) if about else ([], set())
    sounds = named + [(path, {}) for path in filter(is_sound, files) if path not in known]
    for path in filter(ending, files):
        note(findings, path, ending(path), "ending", strict=False)
    usual = {"licence": licence, "author": author, "source": source or place.name}
    return to_rows(sounds, place, usual, val, test, findings)


def metadata(place: Path, findings: Findings) -> Path | None:
    """The one table about a folder's sounds: by its name, else by its columns.   Raises AudioLDMError for two."""
    listed = [place / name for name in METADATA if (place / name).is_file()]
    listed = listed or [path for path in sorted(place.iterdir()) if is_about_sounds(path, findings)]
    if len(listed) > 1:
        hint = "Keep one of them, or name one: `audioldm data prepare table`."
        raise AudioLDMError(f"{place} has both {' and '.join(path.name for path in listed)}.", hint)
    return listed[0] if listed else None


def is_about_sounds(path: Path, findings: Findings) -> bool:
    """Whether a file is a table that names files and captions; one that cannot be read is noted."""
    if path.suffix.lower() not in tables.TABLES or not path.is_file():
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            head = set(map(column_name, tables.read_table(path).columns))
    except AudioLDMError as error:
        note(findings, path, error.message)
        return False
    return not (head.isdisjoint(FILE_COLUMNS) or head.isdisjoint(CAPTION_COLUMNS))


def ending(path: Path) -> str:
    """Why a file that is not read may be a sound; "" for one that is read, or that nobody takes for a sound."""
    if path.name.startswith(".") or is_sound(path):
        return ""
    if path.suffix.lower() not in OTHER:
        return f"{path.suffix} is no ending of a sound that can be read"
    if path.stem.lower() == "metadata" and path.name not in METADATA:
        return f"of metadata only {' and '.join(METADATA)} are read"
    with suppress(AudioLDMError, OSError):
        if not path.suffix:
            with opened(path):
                return "a sound whose name has no ending, such as .wav, is not read"
    return ""


def listed(
    file: AnyPath, *, audio: AnyPath | None = None, licence: str = "", author: str = "", source: str = "",
    val: float = 0.1, test: float = 0.1, findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """Any CSV, TSV or JSONL with file_name and caption; the sounds lie beside it, or below ``audio``."""
    place = Path(audio or Path(file).parent).absolute()
    sounds, _ = sounds_of(Path(file), place, findings)
    usual = {"licence": licence, "author": author, "source": source or Path(file).stem}
    return to_rows(sounds, place, usual, val, test, findings)


def to_rows(
    sounds: Sequence[Sound], folder: Path, usual: dict[str, str], val: float, test: float, findings: Findings,
) -> list[Row]:  # fmt: skip
    """Sounds and their fields as rows, with the ``usual`` fields where metadata says nothing; one row for each part."""
    if not sounds and not findings:
        raise AudioLDMError(f"{folder} holds no sounds.", f"Known endings: {', '.join(SUFFIXES + FOREIGN)}.")
    out = list[Row]()
    for path, fields in sounds:
        group = str(path.relative_to(folder))
        with suppress(OSError):  # the check names what cannot be read
            group = sha256(path)
        try:
            texts = captions(path) if "captions" not in fields else ()
        except AudioLDMError as error:
            note(findings, path, error.message)
            continue
        values = {"captions": texts, **usual, "split": split_of(group, val=val, test=test), **fields}
        out.append(Row(path=str(path), group=group, **values))
    return shared.merged(out)


def captions(path: Path) -> tuple[str, ...]:
    """The lines of the text file beside a sound (of a.wav: a.txt or a.wav.txt), else its cleaned name, else nothing."""
    for beside in (path.with_suffix(".txt"), path.with_suffix(".TXT"), path.with_name(f"{path.name}.txt")):
        if os.path.isfile(beside):
            return tables.texts_of(tables.lines(tables.read_text(beside)))
    return tuple(filter(None, [clean(path.stem)]))


def clean(stem: str) -> str:
    """Words of a file name, without the numbers of takes and tracks: "dog bark" of 03_DogBark-2."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", stem)
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", spaced)
    return " ".join(words).lower() if any(len(word) > 1 for word in words) else ""


def sounds_of(file: Path, folder: Path, findings: Findings) -> tuple[list[Sound], set[Path]]:
    """The sounds that a table lists, and every file it names: that of a row left out gets no caption by its name."""
    out, known = list[Sound](), set[Path]()
    table = tables.read_table(file, text=CAPTION_COLUMNS)
    if unread := [name for name in table.columns if column_name(name) not in COLUMNS]:
        note(findings, file, f"columns {unread} are not read", "column", strict=False)
    for row in (*table.omitted, *table.records):
        cells = dict(zip(map(column_name, row.cells), row.cells.values(), strict=True))
        try:
            name = next(filter(None, map(cells.get, FILE_COLUMNS)), None)
            if not isinstance(name, str):
                raise ValueError(f"names no file; it has {sorted(cells)}")
            path = locate(folder, name, where=row.where, links=True)
            known.add(path)
            if row.fault:
                raise ValueError(row.fault)
            out.append((path, fields_of(cells)))
        except shared.WRONG as error:
            note(findings, row.where, row.fault or shared.reason_of(error).removeprefix(f"{row.where}: "))
    return out, known


def column_name(name: str) -> str:
    """A column's name as it is known: "File Name" is file_name."""
    return name.strip().lower().replace(" ", "_")


def fields_of(cells: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Row that a record of metadata gives.  Raises ValueError for what they cannot be."""
    fields: dict[str, Any] = {}
    if (column := next((name for name in CAPTION_COLUMNS if name in cells), None)) is not None:
        fields["captions"] = tables.texts_of(cells[column])
        if not fields["captions"]:
            raise ValueError(f"{column} says nothing: {cells[column]!r}")
    for name, kind in KINDS.items():
        if not tables.is_null(value := cells.get(name)):
            try:
                fields[name] = kind(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return fields


def one_text(value: Any) -> str:
    if not tables.is_text(value):
        raise ValueError(f"{value!r} is no text")
    return str(value)


def split_name(value: Any) -> str:
    name = one_text(value).strip().lower()
    if name not in shared.SPLIT_NAMES:
        raise ValueError(f"{name!r} is not one of {', '.join(SPLITS)}")
    return shared.SPLIT_NAMES[name]


KINDS: dict[str, Callable[[Any], Any]] = {
    "labels": tables.texts_of, "start": tables.number_of, "seconds": tables.number_of,
    "licence": one_text, "author": one_text, "split": split_name,
}  # fmt: skip
COLUMNS = (*FILE_COLUMNS, *CAPTION_COLUMNS, *KINDS)
