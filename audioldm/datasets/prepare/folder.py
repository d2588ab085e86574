"""Any folder of sounds, with captions from a metadata file, from text files beside the sounds, or from file names."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import SPLITS, Row, sha256, split_of
from audioldm.datasets.prepare.tables import SUFFIXES, columns
from audioldm.errors import AudioLDMError

METADATA = ("metadata.csv", "metadata.jsonl")
FILE_COLUMNS = ("file_name", "path", "file")
CAPTION_COLUMNS = ("captions", "caption", "text")
OTHER_COLUMNS = ("labels", "start", "seconds", "split", "licence", "author")


def rows(
    folder: str | Path,
    *,
    licence: str = "",
    author: str = "",
    source: str = "",
    val: float = 0.1,
    test: float = 0.1,
) -> list[Row]:
    """Every sound below ``folder``, once for each line of metadata about it.

    A line about a file that is not there, a link to none and a sound without a caption stay in, so that the check
    names them.   The split, unless metadata gives one, follows from the hash of the file's bytes: parts and copies of
    a file share it.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Name a folder of sounds.")
    named = list(metadata(folder))
    known = {path for path, _ in named}
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir()
    )
    found = named + [(path, {}) for path in files if path not in known]
    if not found:
        raise AudioLDMError(f"{folder} holds no sounds.", f"Known endings: {', '.join(SUFFIXES)}.")
    return _rows(found, folder, licence, author, source or folder.name, val, test)


def listed(
    file: str | Path,
    folder: str | Path,
    *,
    licence: str = "",
    author: str = "",
    source: str = "",
    val: float = 0.1,
    test: float = 0.1,
) -> list[Row]:
    """The sounds that a CSV or JSONL file lists, below ``folder``; columns are those of metadata.csv."""
    file, folder = Path(file), Path(folder).absolute()
    if not file.exists():
        raise AudioLDMError(f"There is no table {file}.", "Name a CSV, TSV or JSONL file.")
    if not file.is_file() or file.suffix.lower() not in TABLES:
        raise AudioLDMError(f"{file} is no table.", f"Name a file ending in {', '.join(TABLES)}.")
    found = [
        _fields(line, folder, where=f"{file}:{number}") for number, line in TABLES[file.suffix.lower()](file)
    ]
    if not found:
        raise AudioLDMError(f"{file} lists no sounds.", "Write one sound a line.")
    return _rows(found, folder, licence, author, source, val, test)


def _rows(
    found: list[tuple[Path, dict[str, Any]]],
    folder: Path,
    licence: str,
    author: str,
    source: str,
    val: float,
    test: float,
) -> list[Row]:
    """Sounds and their fields as rows, with the defaults where metadata says nothing."""
    if val < 0 or test < 0 or val + test >= 1:
        raise AudioLDMError(
            f"val={val} and test={test} leave nothing to train on.", "Use shares that sum to below 1."
        )
    out = []
    for path, fields in found:
        group = sha256(path) if path.is_file() else str(path.relative_to(folder))
        defaults = {"licence": licence, "author": author, "split": split_of(group, val=val, test=test)}
        values = {"captions": captions(path), **defaults, **fields}
        out.append(Row(path=str(path), source=source, group=group, **values))
    return out


def captions(path: Path) -> tuple[str, ...]:
    """The lines of the .txt file beside a sound, else its cleaned name, else nothing."""
    beside = path.with_suffix(".txt")
    if beside.is_file():
        lines = (line.strip() for line in beside.read_text(encoding="utf-8-sig").splitlines())
        return tuple(line for line in lines if line)
    name = clean(path.stem)
    return (name,) if name else ()


def clean(stem: str) -> str:
    """Words of a file name, without the numbers of takes and tracks.

    >>> clean("03_DogBark-2"), clean("rain on a tin roof (take 4)"), clean("1-100032-A"), clean("SFX_HTTPServer hum")
    ('dog bark', 'rain on a tin roof take', '', 'sfx http server hum')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", stem)
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", spaced)
    return " ".join(words).lower() if any(len(word) > 1 for word in words) else ""


def metadata(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(sound, Row fields) of each line of the folder's metadata.csv or metadata.jsonl, or of its only caption table."""
    found = [folder / name for name in METADATA if (folder / name).is_file()] or captioning(folder)
    if len(found) > 1:
        names = " and ".join(table.name for table in found)
        raise AudioLDMError(
            f"{folder} has both {names}.", "Keep one of them, or name one: `audioldm data prepare table`."
        )
    for table in found:
        for number, line in TABLES[table.suffix.lower()](table):
            yield _fields(line, folder, where=f"{table}:{number}")


def captioning(folder: Path) -> list[Path]:
    """The CSV and TSV files with a column of files and one of captions; other tables are not about the sounds."""
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".csv", ".tsv")]
    heads = {path: set(columns(path).fieldnames or []) for path in tables if path.is_file()}
    return [path for path, head in heads.items() if head & {*FILE_COLUMNS} and head & {*CAPTION_COLUMNS}]


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, columns) of a CSV or TSV file with a header; empty cells and cells beyond it are dropped."""
    reader = columns(path)
    for line in reader:
        yield reader.line_num, {name: value.strip() for name, value in line.items() if name and value.strip()}


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of a JSONL file."""
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise AudioLDMError(
                    f"{path}:{number} is not JSON: {error}.", "Write one object per line."
                ) from error
            if not isinstance(value, dict):
                raise AudioLDMError(
                    f"{path}:{number} is not an object.", 'Write {"file_name": ..., "caption": ...}.'
                )
            yield number, value


TABLES = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl}


def _fields(line: Mapping[str, Any], folder: Path, *, where: str) -> tuple[Path, dict[str, Any]]:
    """One line of metadata as a path below ``folder`` and Row fields; every mistake names the line."""
    name = next((line[column] for column in FILE_COLUMNS if column in line), None)
    if not isinstance(name, str):
        raise AudioLDMError(
            f"{where} names no file; it has {sorted(line)}.", f"Use a column {FILE_COLUMNS[0]}."
        )
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise AudioLDMError(f"{where}: {name} lies outside {folder}.", "List only files below the folder.")
    fields: dict[str, Any] = {column: line[column] for column in OTHER_COLUMNS if column in line}
    texts = next((line[column] for column in CAPTION_COLUMNS if column in line), None)
    if texts is not None:
        fields["captions"] = _texts(texts, where)
    if "labels" in fields:
        fields["labels"] = _texts(fields["labels"], where)
    for column in ("start", "seconds"):
        if column in fields:
            fields[column] = _number(fields[column], where, column)
    if fields.get("split", "train") not in SPLITS:
        raise AudioLDMError(
            f"{where}: split={fields['split']!r} is not a split.", f"Use one of {', '.join(SPLITS)}."
        )
    return folder / path.relative_to(folder.resolve()), fields


def _texts(value: Any, where: str) -> tuple[str, ...]:
    """One text, or a list of texts, as a tuple."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise AudioLDMError(f"{where}: {value!r} is no text.", "Write a text or a list of texts.")
    return tuple(text.strip() for text in values)


def _number(value: Any, where: str, column: str) -> float:
    """A number of seconds, 0 or more."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise AudioLDMError(f"{where}: {column}={value!r} is no length in seconds.", "Use 0 or more.")
    return number
