"""Where prompts come from: the command line, standard input, or a table with the settings of each clip."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audioldm import tables
from audioldm.cli.options import leaves
from audioldm.cli.options.conditioning import AudioPrompt, read_audio_prompt
from audioldm.cli.options.groups import Guidance, Prompts, Sampling
from audioldm.errors import AudioLDMError

USE = 'Give one in quotes, for example "a dog barking", or use --prompts FILE.'
SETTINGS = ("seconds", "steps", "guidance", "negative")
NUMBERS = {leaf.name: leaf for part in (Prompts, Sampling, Guidance) for leaf in leaves(part) if leaf.within}
"""the options that are numbers, each with its range"""
COLUMNS = ("prompt", "seed", *SETTINGS, "audio_prompt", "out")


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
    """The prompts asked for, in order: ``prompt`` ("-" is standard input), or the rows of ``file``.

    A file is .txt (one prompt a line), .csv, .tsv or .jsonl.   Raises AudioLDMError that names the first bad row.
    """
    if prompt not in (None, "-"):
        if file is not None:
            what = f"prompt={prompt!r} and --prompts {file} were both given."
            raise AudioLDMError(what, "Give one of them.")
        return [read_row({"prompt": prompt}, "prompt")]
    if prompt is file is None and sys.stdin.isatty():
        raise AudioLDMError("There is no prompt.", USE)
    if file in (None, "-"):
        stream = getattr(sys.stdin, "buffer", None)
        text = sys.stdin.read() if stream is None else tables.read_text(stream, "standard input")
        return read_table(text, Path("standard input"), kind_of(text))
    path = Path(file)
    if (kind := path.suffix.lower()) not in (".txt", *tables.TABLES):
        what = f"--prompts {path}: {path.suffix or 'no suffix'} is not a known kind."
        raise AudioLDMError(what, "Use .txt, .csv, .tsv or .jsonl.")
    return read_table(tables.read_text(path), path, kind)


def kind_of(text: str) -> str:
    """What standard input holds: JSON objects, a table with a column prompt, or a prompt a line."""
    first = next((line for line in tables.lines(text) if line.strip()), "")
    names = {name.strip() for name in first.split(",")}
    is_table = names <= {*COLUMNS, "caption"} and names & {"prompt", "caption"}
    return ".jsonl" if first.lstrip().startswith("{") else ".csv" if is_table else ".txt"


def read_table(text: str, path: Path, kind: str) -> list[Row]:
    lines = tables.lines(text)
    if kind == ".txt":
        filled = tables.filled(lines, path)
        records = [tables.Record(f"{path}:{number}", {"prompt": line}) for number, line in filled]
        table = tables.Table(["prompt"], records)
    else:
        table = tables.json_lines(path, lines) if kind == ".jsonl" else tables.separated(path, lines, ())
    names = table.columns
    if unknown := [name for name in names if name not in (*COLUMNS, "caption")]:
        known = f"Known: {', '.join(COLUMNS)} (or caption for prompt)."
        raise AudioLDMError(f"{path}: column {', '.join(map(repr, unknown))} is unknown.", known)
    if len(set(names)) < len(names):
        raise AudioLDMError(f"{path}: columns {names} name one thing twice.", "Leave one out.")
    if names and not {"prompt", "caption", "audio_prompt"} & set(names):
        raise AudioLDMError(f"{path}: columns {names} have no prompt.", "Name one of them prompt.")
    rows, errors = list[Row](), [AudioLDMError(f"{omission}.", "Mend the row.") for omission in table.omitted]
    for record in table.records:
        try:
            rows.append(read_row(record.cells, record.where))
        except AudioLDMError as error:
            errors.append(error)
    if errors:
        more = f" ({len(errors) - 1} more rows are wrong.)" if len(errors) > 1 else ""
        raise AudioLDMError(f"{errors[0].message}{more}", errors[0].hint)
    if not rows:
        raise AudioLDMError(f"{path} holds no prompt (it is empty).", USE)
    return rows


def read_row(cells: dict[str, Any], place: str) -> Row:
    if {"prompt", "caption"} <= cells.keys():
        raise AudioLDMError(f"{place}: prompt and caption name one thing twice.", "Leave one out.")
    cells = {{"caption": "prompt"}.get(name, name): value for name, value in cells.items()}
    values = {name: read_cell(name, value, f"{place}: {name}") for name, value in cells.items()}
    prompt, reference = values.get("prompt") or "", values.get("audio_prompt")
    if tables.is_null(prompt or reference):
        where = f"{place}: prompt".removeprefix("prompt: ")
        raise AudioLDMError(f"{where}={cells.get('prompt', '')!r} is empty.", USE)
    settings = {name: values[name] for name in SETTINGS if values.get(name) is not None}
    audio_prompt = read_audio_prompt(reference, alone=not prompt, place=f"{place}: audio_prompt")
    return Row(prompt, place, values.get("seed"), settings, audio_prompt, values.get("out"))


def read_cell(name: str, value: Any, place: str) -> Any:
    """A cell by the type of its column, in the range of its option; None where it is empty."""
    if value is None or not str(value).strip():
        return None
    if (leaf := NUMBERS.get(name)) is not None:
        number = leaf.read(value, place=place)
        leaf.check(number, place)
        return number
    if not tables.is_text(value):
        raise AudioLDMError(f"{place}={value!r} is no text.")
    return value.strip()
