"""Where prompts come from: the command line, standard input, or a table with the settings of each clip."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.checks import RANGES
from audioldm.cli.console import say
from audioldm.cli.options.conditioning import AudioPrompt, read_audio_prompt
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

USE = 'Give one in quotes, for example "a dog barking", or use --prompts FILE.'
COLUMNS: dict[str, type] = {
    "prompt": str, "seed": int, "seconds": float, "steps": int, "guidance": float, "negative": str,
    "audio_prompt": str, "out": str,
}  # fmt: skip
EMPTY = ("nan", "none", "null", "n/a")
"""What other programs write where a cell is empty; no prompts"""
SETTINGS = ("seconds", "steps", "guidance", "negative")


@dataclass(frozen=True)
class Row:
    """One prompt and what its table says beside it; what is None comes from the command line."""

    prompt: str
    place: str = "prompt"
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    audio_prompt: AudioPrompt | None = None
    out: str | None = None


def read_rows(prompt: str | None, file: str | None) -> list[Row]:
    """The prompts asked for, in order: ``prompt`` ("-" is standard input), or the rows of ``file``."""
    if prompt not in (None, "-") and file is not None:
        raise AudioLDMError(f"prompt={prompt!r} and --prompts {file} were both given.", "Give one of them.")
    if prompt is None and file is None and sys.stdin.isatty():
        raise AudioLDMError("There is no prompt.", USE)
    if file not in (None, "-"):
        return read_file(Path(file))
    if prompt not in (None, "-"):
        return [read_row({"prompt": prompt}, "prompt")]
    stream = getattr(sys.stdin, "buffer", None)
    text = sys.stdin.read() if stream is None else decoded(stream.read(), "standard input")
    return read_table(text, "standard input", kind_of(text))


def read_file(path: Path) -> list[Row]:
    """Rows of a .txt (one prompt a line), .csv or .jsonl file."""
    if path.suffix.lower() not in (".txt", ".csv", ".jsonl"):
        raise AudioLDMError(
            f"--prompts {path}: {path.suffix or 'no suffix'} is not a known kind.",
            "Use .txt, .csv or .jsonl.",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AudioLDMError(f"--prompts {path}: {error.strerror}.", "Check the path.") from error
    return read_table(decoded(data, str(path)), str(path), path.suffix.lower())


def decoded(data: bytes, place: str) -> str:
    """Text in UTF-8 with or without a mark, in UTF-16 with one, or, said in one line, in Windows-1252."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError as error:
        raise AudioLDMError(
            f"{place}, line {line}: byte {error.start} is neither UTF-8 nor Windows-1252.",
            "Save the file as UTF-8.",
        ) from error
    say(f"warning: {place}, line {line} is not UTF-8; the file is read as Windows-1252.")
    return text


def kind_of(text: str) -> str:
    """What standard input holds: JSON objects, a table with a column prompt, or a prompt a line."""
    first = re.split(r"\r\n|\r|\n", text.lstrip(), maxsplit=1)[0]
    if first.startswith("{"):
        return ".jsonl"
    names = [name.strip() for name in first.split(",")]
    return ".csv" if set(names) <= set(COLUMNS) and "prompt" in names else ".txt"


def read_table(text: str, place: str, kind: str) -> list[Row]:
    """Every row of a text.   Raises AudioLDMError that names the first bad row, and counts the others."""
    readers: dict[str, Callable[[str, str], Iterator[tuple[int, dict[str, Any] | AudioLDMError]]]] = {
        ".txt": txt_rows, ".csv": csv_rows, ".jsonl": jsonl_rows,
    }  # fmt: skip
    rows: list[Row] = []
    errors: list[AudioLDMError] = []
    for number, cells in readers[kind](text, place):
        try:
            if isinstance(cells, AudioLDMError):
                raise cells
            rows.append(read_row(cells, f"{place}, line {number}"))
        except AudioLDMError as error:
            errors.append(error)
    if errors:
        more = f" ({len(errors) - 1} more rows are wrong.)" if len(errors) > 1 else ""
        raise AudioLDMError(f"{errors[0].message}{more}", errors[0].hint)
    if not rows:
        raise AudioLDMError(f"{place} holds no prompt (it is empty).", USE)
    return rows


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    r"""Lines that are not blank, with their numbers; \n, \r and \r\n end a line, and no other character does."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line.strip():
            yield number, line


def txt_rows(text: str, place: str) -> Iterator[tuple[int, dict[str, Any] | AudioLDMError]]:
    """A prompt a line."""
    for number, line in lines_of(text):
        yield number, {"prompt": line}


def csv_rows(text: str, place: str) -> Iterator[tuple[int, dict[str, Any] | AudioLDMError]]:
    """Cells by the names of the first row; commas, semicolons or tabs between them."""
    head = text.lstrip().partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    names: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = [name.strip() for name in cells]
                check_columns(names, place)
            elif len(cells) != len(names):
                yield (
                    reader.line_num,
                    AudioLDMError(
                        f"{place}, line {reader.line_num} has {len(cells)} cells, the first line {len(names)}: "
                        f"{','.join(cells)[:60]!r}.",
                        "Put a prompt that holds a comma in double quotes.",
                    ),
                )
            else:
                yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise AudioLDMError(
            f"{place}, line {reader.line_num}: {error}.", "Close every quote; double those inside a cell."
        ) from error


def jsonl_rows(text: str, place: str) -> Iterator[tuple[int, dict[str, Any] | AudioLDMError]]:
    """One JSON object a line."""
    for number, line in lines_of(text):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"{type(row).__name__} instead of an object")
            check_columns(list(row), f"{place}, line {number}")
        except (ValueError, RecursionError) as error:
            yield (
                number,
                AudioLDMError(
                    f"{place}, line {number}: not JSON ({error}).", 'Write {"prompt": "..."} on each line.'
                ),
            )
        except AudioLDMError as error:
            yield number, error
        else:
            yield number, row


def check_columns(names: list[str], place: str) -> None:
    """Refuse columns that are unknown or double, and a table without prompts."""
    if unknown := [name for name in names if name not in (*COLUMNS, "caption")]:
        raise AudioLDMError(
            f"{place}: column {', '.join(map(repr, unknown))} is unknown.",
            f"Known: {', '.join(COLUMNS)} (or caption for prompt).",
        )
    if len(set(names)) < len(names) or {"prompt", "caption"} <= set(names):
        raise AudioLDMError(f"{place}: columns {names} name one thing twice.", "Leave one out.")
    if not {"prompt", "caption", "audio_prompt"} & set(names):
        raise AudioLDMError(f"{place}: columns {names} have no prompt.", "Name one of them prompt.")


def read_row(cells: dict[str, Any], place: str) -> Row:
    """One row with every cell checked."""
    cells = {"prompt" if name == "caption" else name: value for name, value in cells.items()}
    values = {name: read_cell(name, value, place) for name, value in cells.items()}
    prompt, reference = values.get("prompt") or "", values.get("audio_prompt")
    if (not prompt and not reference) or prompt.casefold() in EMPTY:
        where = place if place == "prompt" else f"{place}: prompt"
        raise AudioLDMError(f"{where}={cells.get('prompt', '')!r} is empty.", USE)
    return Row(
        prompt,
        place,
        values.get("seed"),
        {name: values[name] for name in SETTINGS if values.get(name) is not None},
        read_audio_prompt(reference, alone=not prompt, place=f"{place}: audio_prompt"),
        values.get("out"),
    )


def read_cell(name: str, value: Any, place: str) -> Any:
    """A cell by the type of its column; None where it is empty."""
    kind = COLUMNS[name]
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, list | dict | bool) or (kind is str and not isinstance(value, str)):
        raise AudioLDMError(f"{place}: {name}={value!r} is no {'text' if kind is str else 'number'}.")
    if kind is str:
        return value.strip()
    try:
        number = kind(value) if isinstance(value, str) else kind(str(value))
    except ValueError as error:
        raise AudioLDMError(
            f"{place}: {name}={value!r} is no {'whole ' if kind is int else ''}number.",
            "Leave it empty for the default.",
        ) from error
    RANGES[name].check(f"{place}: {name}", number)
    return number


def warn_of_unread(pipe: "AudioLDM", prompt: str) -> None:
    """Say which words of a prompt the model's text encoder does not read: what is beyond its longest text."""
    encoder: Any = getattr(pipe.token_encoder, "t5", pipe.token_encoder) or pipe.clap
    tokenizer = getattr(encoder, "tokenizer", None)
    longest = getattr(encoder, "max_tokens", None) or getattr(encoder, "longest", None)
    longest = longest or getattr(tokenizer, "model_max_length", 10**9)
    if tokenizer is None or not tokenizer.is_fast or len(prompt) < longest // 2:
        return
    read = tokenizer(prompt, truncation=True, max_length=longest, return_offsets_mapping=True)
    rest = prompt[max((end for _, end in read["offset_mapping"]), default=0) :].split()
    if rest:
        say(
            f"warning: the text encoder reads {longest} tokens; the last {len(rest)} words of the prompt are not "
            f"read: {' '.join(rest)[:200]!r}."
        )
