"""The list of clips: one JSON object a line, checked before anything trains on it."""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from audioldm.errors import AudioLDMError
from audioldm.paths import inside, locate, sha256, write_text
from audioldm.tables import Record, is_text, json_lines, lines, read_text

SPLITS = ("train", "val", "test")
RANK = {"test": 0, "val": 1, "train": 2}  # of two splits that share a clip, the lower has it
SILENT_PEAK = 1e-3  # a clip whose largest sample is below -60 dB of full scale holds nothing to learn


@dataclass(frozen=True)
class Row:
    """One clip.  start and seconds choose a part of the file (seconds None is the rest); loudness is in LUFS."""

    path: str
    captions: tuple[str, ...]
    labels: tuple[str, ...] = ()
    start: float = 0.0
    seconds: float | None = None
    split: str = "train"
    licence: str = ""
    source: str = ""
    sha256: str = ""
    loudness: float | None = None
    author: str = ""
    fold: int = 0
    group: str = ""  # clips that share a group share a split: they come from one recording
    parts: tuple[str, ...] = ()  # sha256 of the clips that a composed scene is put together from
    weight: float = 1.0  # how often it is drawn, beside others of its source
    rate: float = 0.0  # of the file, in Hz; 0 is not known
    clipping: float = 0.0  # share of samples that are cut off


def is_number(value: Any, least: float = -math.inf) -> bool:
    """Whether a value is a number of ``least`` or more that a float can hold."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and least <= value and abs(value) <= sys.float_info.max


def are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


NO_NUMBER = "no number that it can have"
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "path": (lambda value: isinstance(value, str), "no text"),  # it may be in bytes of another encoding
    **dict.fromkeys(("licence", "source", "sha256", "author", "group"), (is_text, "no text")),
    **dict.fromkeys(("captions", "labels", "parts"), (are_texts, "no list of texts")),
    **dict.fromkeys(("start", "weight", "rate", "clipping"), (lambda value: is_number(value, 0), NO_NUMBER)),
    "seconds": (lambda value: value is None or is_number(value, 0), NO_NUMBER),
    "loudness": (lambda value: value is None or is_number(value), NO_NUMBER),
    "fold": (lambda value: is_number(value) and isinstance(value, int), "no whole number"),
    "split": (lambda value: value in SPLITS, f"not one of {', '.join(SPLITS)}"),
}
"""What each field of a row may be, and what is said of anything else."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with one row; ``kind`` is one word, ``path`` the file or FILE:LINE."""

    kind: str
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}" + (f" ({self.detail})" if self.detail else "")


def read(path: str | Path, *, split: str | None = None, findings: list[Finding] | None = None) -> list[Row]:
    """The rows of a manifest (of one ``split`` if given); relative paths lie in the manifest's own folder.

    Paths may be absolute, as ``write`` gives them to sounds elsewhere on this machine; nothing but a sound is read
    there, and nothing is written or removed.  Lines that are wrong are added to ``findings``, or refused without it.
    """
    path = Path(path)
    if split not in (None, *SPLITS):
        raise AudioLDMError(f"split={split!r} is not a split.", f"Use one of {', '.join(SPLITS)}.")
    table, rows = json_lines(path, lines(read_text(path))), list[Row]()
    for record in (*table.omitted, *table.records):
        try:
            row = row_of(record, path.parent)
        except AudioLDMError as error:
            if findings is None:
                raise
            why = error.message.removeprefix(f"{record.where}: ").rstrip(".")
            findings.append(Finding("line", record.where, why))
        else:
            rows += [row] if split in (None, row.split) else []
    return rows


def fault_of(values: dict[str, Any]) -> str:
    if not isinstance(values.get("path"), str) or "captions" not in values:
        return "it has no text 'path' and list 'captions'"
    if unknown := sorted(set(values) - set(FIELDS)):
        return f"unknown fields {unknown}; known are {sorted(FIELDS)}"
    wrong = (name for name, value in values.items() if not FIELDS[name][0](value))
    return next((f"{name}={values[name]!r} is {FIELDS[name][1]}" for name in wrong), "")


def row_of(record: Record, folder: Path) -> Row:
    """A line as a row; its relative path lies in ``folder``.   Raises AudioLDMError for one that is wrong."""
    if why := record.fault or fault_of(record.cells):
        raise AudioLDMError(f"{record.where}: {why}.", "Correct this line.")
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.cells.items()}
    if not Path(fields["path"]).is_absolute():
        fields["path"] = str(locate(folder, fields["path"], where=record.where))
    return Row(**fields)


def write(rows: Iterable[Row], path: str | Path) -> Path:
    """Write a manifest in one step; files below its folder get relative paths, so that the folder can move."""
    folder, text = Path(path).parent.absolute(), list[str]()
    for row in rows:
        place = Path(row.path).absolute()
        if place.is_relative_to(folder):
            try:
                place = inside(folder, str(place.relative_to(folder))).relative_to(folder)
            except AudioLDMError:  # a link that leads out of the folder
                place = place.resolve()
        text.append(json_line(asdict(replace(row, path=str(place)))))
    return write_text(path, "".join(text))


def json_line(values: dict[str, Any]) -> str:
    """One line of JSON; a file name whose bytes are no UTF-8 is kept by escapes."""
    line = json.dumps(values, ensure_ascii=False)
    return f"{line if is_text(line) else json.dumps(values)}\n"


def verified(row: Row) -> Path:
    """A row's file.   Raises AudioLDMError if its bytes are not those that were checked."""
    path = Path(row.path)
    if row.sha256 and path.is_file() and sha256(path) != row.sha256:
        hint = "Check the manifest again: `audioldm data check MANIFEST -o MANIFEST --force`."
        raise AudioLDMError(f"{path} has changed since it was checked.", hint, code=1)
    return path


def split_of(group: str, *, val: float = 0.1, test: float = 0.1) -> str:
    """The split of a recording, decided by the hash of its name alone, so that adding files moves none."""
    place = int.from_bytes(hashlib.sha256(group.encode(errors="surrogatepass")).digest()[:8]) / 2**64
    return "test" if place < test else "val" if place < test + val else "train"


def leaks(rows: Sequence[Row], more: Sequence[Collection[str]] = ()) -> list[str | None]:
    """For each row, what it shares with a row of a split that ranks higher (test, val, train); None if nothing.

    Shared is a file (``sha256``), a recording (``group``), a clip of a composed scene (``parts``), or one of the row's
    ``more`` marks.  No sound is read.
    """
    owners: dict[str, Row] = {}
    out: list[str | None] = [None] * len(rows)
    for place in sorted(range(len(rows)), key=lambda index: RANK[rows[index].split]):
        row = rows[place]
        sounds = more[place] if more else ()
        marks = {"recording": [row.group], "file": [row.sha256, *row.parts], "sound": sounds}
        for what, names in marks.items():
            for owner in [owners.setdefault(name, row) for name in names if name]:
                if owner.split != row.split:
                    out[place] = out[place] or f"{owner.path} is in {owner.split} and of the same {what}"
    return out


def refuse_leaks(rows: Sequence[Row]) -> None:
    if shared := [(row.path, why) for row, why in zip(rows, leaks(rows), strict=True) if why]:
        hint = "Clean the manifests together: `audioldm data check A.jsonl B.jsonl -o CLEAN.jsonl`."
        raise AudioLDMError(f"{len(shared)} rows leak between splits; {shared[0][0]}: {shared[0][1]}.", hint)
