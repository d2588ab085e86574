"""Where prompts come from: the command line, a file, or standard input."""

import csv
import io
import json
import sys
from pathlib import Path

from audioldm.errors import AudioLDMError

COLUMNS = ("prompt", "caption")
USE = 'Give one in quotes, for example "a dog barking", or use --prompts FILE.'


def read_prompts(prompt: str | None, file: str | None) -> list[str]:
    """The prompts asked for, in order: ``prompt`` ("-" is standard input), or the lines of ``file``."""
    if prompt not in (None, "-") and file is not None:
        raise AudioLDMError(f"prompt={prompt!r} and --prompts {file} were both given.", "Give one of them.")
    if prompt is None and file is None and sys.stdin.isatty():
        raise AudioLDMError("There is no prompt.", USE)
    if file not in (None, "-"):
        return read_file(Path(file))
    if prompt not in (None, "-"):
        return [checked(prompt, "prompt")]
    return read_lines(sys.stdin.read(), "standard input")


def checked(prompt: str, place: str) -> str:
    """``prompt`` without surrounding space, or an error that names ``place``."""
    if not prompt.strip():
        raise AudioLDMError(f"{place}={prompt!r} is empty.", USE)
    return prompt.strip()


def read_file(path: Path) -> list[str]:
    """Prompts of a .txt (one per line), .csv (column prompt or caption) or .jsonl file."""
    readers = {".txt": read_lines, ".csv": read_csv, ".jsonl": read_jsonl}
    if path.suffix.lower() not in readers:
        raise AudioLDMError(
            f"--prompts {path}: {path.suffix or 'no suffix'} is not a known kind.",
            "Use .txt, .csv or .jsonl.",
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AudioLDMError(
            f"--prompts {path}: byte {error.start} is not UTF-8.", "Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise AudioLDMError(f"--prompts {path}: {error.strerror}.", "Check the path.") from error
    return readers[path.suffix.lower()](text, f"--prompts {path}")


def read_lines(text: str, place: str) -> list[str]:
    """One prompt per line; empty lines are skipped.

    >>> read_lines("rain\\n\\n wind \\n", "x.txt")
    ['rain', 'wind']
    """
    return some([line.strip() for line in text.splitlines() if line.strip()], place)


def read_csv(text: str, place: str) -> list[str]:
    """The column ``prompt`` or ``caption``."""
    rows = csv.DictReader(io.StringIO(text))
    column = next((name for name in COLUMNS if name in (rows.fieldnames or [])), None)
    if column is None:
        raise AudioLDMError(
            f"{place}: columns {rows.fieldnames or []} have no prompt.", "Name one of them prompt or caption."
        )
    return some(
        [checked(row[column] or "", f"{place}, line {rows.line_num}: {column}") for row in rows], place
    )


def read_jsonl(text: str, place: str) -> list[str]:
    """One JSON object with ``prompt`` or ``caption`` per line."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return some([json_prompt(line, f"{place}, line {number}") for number, line in lines], place)


def json_prompt(line: str, place: str) -> str:
    """The prompt in one line of JSON."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise AudioLDMError(f"{place}: not JSON ({error.msg}).", "Write one object per line.") from error
    column = next(
        (name for name in COLUMNS if isinstance(row, dict) and isinstance(row.get(name), str)), None
    )
    if column is None:
        raise AudioLDMError(
            f"{place}: no prompt in {line.strip()[:60]}.", 'Write {"prompt": "..."} on each line.'
        )
    return checked(row[column], f"{place}: {column}")


def some(prompts: list[str], place: str) -> list[str]:
    """``prompts``, unless there are none."""
    if not prompts:
        raise AudioLDMError(f"{place} holds no prompt (it is empty).", USE)
    return prompts
