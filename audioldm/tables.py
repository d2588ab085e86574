"""Text files and tables as people make them: any usual encoding and line end; tables as Markdown and as CSV."""

import csv
import io
import json
import math
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from audioldm.errors import AudioLDMError, AudioLDMWarning

LONGEST_TEXT = 2**30  # bytes
LINE_END = re.compile(r"\r\n|\n|\r")
TABLES = (".csv", ".tsv", ".jsonl")
UTF_16 = {rb"\xff\xfe|\xfe\xff": "utf-16", rb"[^\0]\0": "utf-16-le", rb"\0[^\0]": "utf-16-be"}
"""How bytes in UTF-16 begin, with a mark or with a letter of ASCII."""
NULLS = frozenset({"nan", "none", "null", "<na>", "n/a", "#n/a", "nat"})  # what programs write
LONGEST_RECORD = 200  # lines; a quotation mark that stays open longer was never closed


@dataclass(frozen=True)
class Record:
    """One row: where it stands (FILE:LINE), its cells by column (empty ones are absent), and why it was left out."""

    where: str
    cells: dict[str, Any]
    fault: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}"


@dataclass(frozen=True)
class Table:
    """A table's columns, its rows, and the rows that could not be read."""

    columns: list[str]
    records: list[Record] = field(default_factory=list)
    omitted: list[Record] = field(default_factory=list)


def read_text(source: str | Path | bytes | BinaryIO, name: str = "") -> str:
    """The text of a file, or of bytes: UTF-8 with or without a mark, UTF-16 with one, else Windows-1252.

    AudioLDMWarning says where the last was needed.   Raises AudioLDMError for a file that is missing, holds no text, or
    goes on after LONGEST_TEXT bytes; no more of it are read.   ``name`` is what messages call it.
    """
    name = name or ("the text" if isinstance(source, bytes) else str(source))
    raw = source if isinstance(source, bytes) else bytes_of(source, name)
    for start, encoding in UTF_16.items():
        if re.match(start, raw, re.DOTALL):
            return raw.decode(encoding, errors="replace")
    with suppress(UnicodeDecodeError):
        return raw.decode("utf-8-sig")
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"{name}:{line} is text neither in UTF-8 nor in Windows-1252 (byte 0x{raw[error.start]:02x})."
        raise AudioLDMError(what, "Save it as UTF-8.") from None
    warnings.warn(AudioLDMWarning(f"{name} is not UTF-8: it is read as Windows-1252."), stacklevel=2)
    return text


def bytes_of(source: str | Path | BinaryIO, name: str) -> bytes:
    """The bytes of a text file, or all that is left of one.   Raises AudioLDMError where it is too long for a text."""
    try:
        if not isinstance(source, str | Path):
            raw = source.read(LONGEST_TEXT + 1)
        elif os.path.exists(source) and not os.path.isfile(source):  # a pipe may never end
            raise AudioLDMError(f"{name} is no file.", "Name a text file.")
        elif os.path.getsize(source) > LONGEST_TEXT:
            raw = bytes(LONGEST_TEXT + 1)
        else:
            raw = Path(source).read_bytes()
    except OSError as error:
        raise AudioLDMError(f"{name} cannot be read: {error.strerror}.", "Name a text file.") from error
    if len(raw) > LONGEST_TEXT:
        hint = f"Name one of {LONGEST_TEXT >> 20} MiB or less."
        raise AudioLDMError(f"{name} is too long for a text.", hint)
    return raw


def lines(text: str) -> list[str]:
    """The lines of a text without their ends: \\n, \\r\\n or \\r alone (``str.splitlines`` knows seven more)."""
    out = LINE_END.split(text)
    return out[:-1] if out[-1] == "" else out


def filled(rows: Sequence[str], name: str | Path) -> list[tuple[int, str]]:
    """Each line that says something, with its number; AudioLDMWarning counts the others."""
    out = [(number, row) for number, row in enumerate(rows, start=1) if row.strip()]
    if out:
        warn_of_blank([number for number, row in enumerate(rows, start=1) if not row.strip()], name)
    return out


def warn_of_blank(numbers: Sequence[int], name: str | Path) -> None:
    if numbers:
        listed = ", ".join(map(str, numbers[:8])) + (" and so on" if len(numbers) > 8 else "")
        what = f"{len(numbers)} empty lines are" if len(numbers) > 1 else "an empty line is"
        warnings.warn(AudioLDMWarning(f"{name}: {what} left out: {listed}."), stacklevel=3)


def read_table(path: str | Path, *, need: Sequence[str] = (), text: Collection[str] = ()) -> Table:
    """The rows of a CSV, TSV or JSONL file; those of another shape are omitted and named.

    ``need`` are columns that must be there.  ``text`` are names of free text: such a column, as the last one of a CSV
    file, may hold separators without quotation marks.  Raises AudioLDMError for a file that is no such table.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in TABLES or not path.is_file():
        what = f"There is no table {path}." if kind in TABLES else f"{path} is no table."
        raise AudioLDMError(what, f"Name a file ending in {', '.join(TABLES)}.")
    rows = lines(read_text(path))
    table = json_lines(path, rows) if kind == ".jsonl" else separated(path, rows, text)
    if lost := [name for name in need if name not in table.columns]:
        hint = "Is this the right file?"
        raise AudioLDMError(f"{path} has no columns {lost}; it has {table.columns}.", hint)
    if twice := sorted(repeated(filter(None, table.columns))):
        raise AudioLDMError(f"{path} has columns {twice} twice.", "Give each column a name of its own.")
    return table


def json_lines(path: Path, rows: Sequence[str]) -> Table:
    table = Table([])
    for number, row in filled(rows, path):
        value, fault = None, "no object in braces"
        try:
            value = json.loads(row, object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            fault = f"no JSON ({error})"
        if isinstance(value, dict):
            table.records.append(Record(f"{path}:{number}", value))
        else:
            table.omitted.append(Record(f"{path}:{number}", {}, fault))
    table.columns.extend(dict.fromkeys(name for record in table.records for name in record.cells))
    return table


def read_content(
    path: str | Path, hint: str, parse: Callable[[str], Any] = json.loads, kind: str = "JSON"
) -> Any:
    """What ``parse`` makes of a text file.   Raises AudioLDMError with ``hint`` where it cannot."""
    text = read_text(path)
    try:
        return parse(text)
    except Exception as error:  # each parser has errors of its own
        reason = " ".join(str(error).split())[:160]
        raise AudioLDMError(f"{path} is not {kind}: {reason}.", hint) from None


def read_object(path: str | Path, hint: str) -> dict[str, Any]:
    """A file's JSON object.   Raises AudioLDMError with ``hint`` for anything else."""
    content = read_content(path, hint)
    if not isinstance(content, dict):
        raise AudioLDMError(f"{path} holds no JSON object.", hint)
    return content


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.   Raises ValueError where a name comes twice: one of the values would be lost."""
    if twice := repeated(name for name, _ in pairs):
        raise ValueError(f"{twice[0]!r} comes twice")
    return dict(pairs)


def repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def separated(path: Path, rows: Sequence[str], text: Collection[str]) -> Table:
    """A header, then rows, separated by the one of , ; | and tab that the header has most of."""
    start, separator = header(rows)
    table, blank = Table([]), list[int]()
    for number, raw, fault in records(rows, start, separator):
        columns, cells = table.columns, list(map(str.strip, raw))
        last = len(columns) - 1
        if not fault and not columns:  # without the empty ones at their end
            columns.extend(cells[: max((place for place, name in enumerate(cells, 1) if name), default=0)])
        elif not fault and not any(cells):
            blank.append(number)
        else:
            # where the last column is free text, all from there on are one, unless quoted
            if len(cells) > len(columns) and columns[last] in text and '"' not in rows[number - 1]:
                cells[last:] = [separator.join(raw[last:]).strip().rstrip(separator)]
            fault = fault or misshapen(cells, len(columns), separator)
            values = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
            (table.omitted if fault else table.records).append(Record(f"{path}:{number}", values, fault))
    if table.records:
        warn_of_blank(blank, path)
    return table


def misshapen(cells: Sequence[str], width: int, separator: str) -> str:
    """Why cells do not make a row of so many columns; "" if they do, empty ones beyond the last aside."""
    sizes = f"{len(cells)} cells for {width} columns"
    if len(cells) < width:
        return f"a short row: {sizes}"
    return f'{sizes}: put quotation marks round a text with "{separator}" in it' if any(cells[width:]) else ""


def header(rows: Sequence[str]) -> tuple[int, str]:
    """Where the header stands, and the separator, which Excel may name in a line before it (``sep=;``)."""
    start = next((number for number, row in enumerate(rows) if row.strip()), len(rows))
    first = rows[start] if start < len(rows) else ""
    if match := re.fullmatch(r"sep=([,;|\t])", first.strip(" ")):
        return start + 1, match[1]
    return start, max(",;\t|", key=first.count)


def records(rows: Sequence[str], start: int, separator: str) -> Iterator[tuple[int, list[str], str]]:
    """(line number, cells, what is wrong) of each record from ``start`` on; a quoted cell may go over several lines."""
    place = start
    while place < len(rows):
        ahead = range(place, min(len(rows), place + LONGEST_RECORD))
        reader = csv.reader((f"{rows[row]}\n" for row in ahead), delimiter=separator, strict=True)
        try:
            yield place + 1, next(reader, []), ""
            place += reader.line_num
        except csv.Error as error:
            unclosed = "unexpected end" in str(error)
            why = "a quotation mark is not closed" if unclosed else f"no cells between separators ({error})"
            yield place + 1, [], why
            place += 1


def is_text(value: Any) -> bool:
    """Whether a value is a text that a file can hold: JSON also knows halves of surrogate pairs."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_null(value: Any) -> bool:
    """True of nothing at all, of a text of spaces and punctuation only, and of what programs write for nothing."""
    if isinstance(value, str):
        return value.strip().lower() in NULLS or all(unicodedata.category(sign)[0] in "ZCP" for sign in value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def texts_of(value: Any) -> tuple[str, ...]:
    """A text, or a list of texts, as a tuple of those that say something.  Raises ValueError for anything else."""
    values = [item for item in (value if isinstance(value, list | tuple) else [value]) if not is_null(item)]
    if wrong := [item for item in values if not is_text(item)]:
        raise ValueError(f"{wrong[0]!r} is no text")
    return tuple(item.strip() for item in values)


def number_of(value: Any) -> float | None:
    """A number of 0 or more, None for an empty cell.  Raises ValueError for anything else."""
    if is_null(value):
        return None
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{value!r} is no number of 0 or more")
    return number


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers get three digits, None a dash."""

    def cell(value: object) -> str:
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    body = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *body])


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV whose text cells no spreadsheet takes for a formula: those that begin like one get a quote in front."""

    def cell(value: object) -> object:
        if not isinstance(value, str):
            return value
        text = LINE_END.sub("\n", value)  # csv leaves a \r unquoted, and many programs begin a row there
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\n")) else text

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([cell(value) for value in row] for row in (head, *rows))
    return buffer.getvalue()
