"""Which clips a command makes: prompts from a line or a table, and the files of each, checked before any work."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from audioldm import tables
from audioldm.cli.options import groups, leaves
from audioldm.cli.options.groups import Output, Prompts
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256
from audioldm.tables import read_text

with later():
    from audioldm.pipeline import outputs


USE = 'Give one in quotes, for example "a dog barking", or use --prompts FILE.'
SETTINGS = ("seconds", "steps", "guidance", "negative")
PARTS = (Prompts, groups.Sampling, groups.Guidance)
NUMBERS = {leaf.name: leaf for part in PARTS for leaf in leaves(part) if leaf.within}  # each with its range
COLUMNS = ("prompt", "seed", *SETTINGS, "audio_prompt", "out")


@dataclass(frozen=True)
class Row:
    """One prompt and what its table says beside it; what is None comes from the command line."""

    prompt: str
    place: str = "prompt"
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    audio_prompt: groups.AudioPrompt | None = None
    out: str | None = None

    def words(self, title: str) -> tuple[str, str]:
        """What its clips are named after, and what marks them as like a sound; ``title`` stands for no prompt."""
        if self.audio_prompt is None:
            return self.prompt or title, ""
        sound = self.audio_prompt[0].stem
        return (self.prompt, f"like_{plain(sound, 24)}") if self.prompt else (f"audio prompt {sound}", "")


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


def table_of(path: Path, lines: list[str], kind: str) -> tables.Table:
    if kind != ".txt":
        return tables.json_lines(path, lines) if kind == ".jsonl" else tables.separated(path, lines, ())
    filled = tables.filled(lines, path)
    return tables.Table(["prompt"], [tables.Record(f"{path}:{n}", {"prompt": line}) for n, line in filled])


def check_columns(names: list[str], path: Path) -> None:
    if unknown := [name for name in names if name not in (*COLUMNS, "caption")]:
        known = f"Known: {', '.join(COLUMNS)} (or caption for prompt)."
        raise AudioLDMError(f"{path}: column {', '.join(map(repr, unknown))} is unknown.", known)
    if len(set(names)) < len(names):
        raise AudioLDMError(f"{path}: columns {names} name one thing twice.", "Leave one out.")
    if names and not {"prompt", "caption", "audio_prompt"} & set(names):
        raise AudioLDMError(f"{path}: columns {names} have no prompt.", "Name one of them prompt.")


def read_table(text: str, path: Path, kind: str) -> list[Row]:
    table = table_of(path, tables.lines(text), kind)
    check_columns(table.columns, path)
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
    audio_prompt = groups.read_audio_prompt(reference, alone=not prompt, place=f"{place}: audio_prompt")
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


@dataclass(frozen=True)
class Clip:
    """One sound to make: its prompt, its seed, its file name without ending, and its own settings."""

    prompt: str
    seed: int
    stem: str
    title: str = ""
    audio_format: str = "wav"
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    audio_prompt: groups.AudioPrompt | None = None
    share: float = 0.0  # how far it is on the way to a second prompt

    def files(self, output: Output) -> dict[str, Path]:
        """Where it goes: its audio, figure and sidecar; without a figure where none is drawn."""
        kinds = {"audio": suffix_of(self.audio_format), "figure": "png", "sidecar": "json"}
        stem = output.folder / self.stem
        paths = {name: stem.with_name(f"{stem.name}.{kind}") for name, kind in kinds.items()}
        return {name: path for name, path in paths.items() if output.figure or name != "figure"}


def suffix_of(audio_format: str) -> str:
    return re.sub("24|float", "", audio_format)


def plain(text: str, most: int) -> str:
    """At most ``most`` letters and digits of ``text``, fit for a file name.

    >>> plain("../A dog!", 48)
    'a_dog'
    """
    return re.sub(r"\W+", "_", text.casefold()).strip("_")[:most].strip("_")


def stem_of(text: str, seed: int, *marks: str) -> str:
    """``a_dog_barking_seed7``: letters and digits of the text, at most 48, marks, then the seed."""
    return f"{'_'.join(filter(None, (plain(text, 48), *marks))) or 'clip'}_seed{seed}"


def plan(rows: Sequence[Row], prompts: Prompts, output: Output, *, title: str = "") -> list[list[Clip]]:
    """The clips to make, each as its candidates; the one at place i of all prompts times -n has seed SEED + i.

    ``title`` is what they are named after where they have no prompt.   Raises AudioLDMError where a name lies
    outside the folder of results.
    """
    other, shares = prompts.shares()
    clips: list[list[Clip]] = []
    for share, (place, (row, take)) in product(shares, enumerate(product(rows, range(prompts.n)))):
        mark = "" if prompts.interpolate_to is None else f"to_{plain(other, 24)}_{share:g}"
        begin, number = (prompts.seed, place) if row.seed is None else (row.seed, take)
        text, like = row.words(title)
        clips.append([])
        for seed in range(first := begin + number * prompts.rerank, first + prompts.rerank):
            name, audio_format = file_of(row.out, stem_of(text, seed, like, mark), output)
            if row.out and prompts.n > 1:
                name += f"_seed{seed}"
            inside(output.folder, name, where=f"{row.place}, out")
            about = (row.settings, row.audio_prompt, share)
            clips[-1].append(Clip(row.prompt, seed, name, text, audio_format, *about))
    return clips


def file_of(out: str | None, stem: str, output: Output) -> tuple[str, str]:
    """A clip's name without ending and its format: of a table's ``out``, else of --out if it is a file, or ``stem``."""
    place = Path(out or (output.out.name if output.is_file else stem))
    ending = groups.format_of(place)
    audio_format = output.audio_format or ending or "wav"
    if ending not in (None, suffix_of(audio_format)):
        raise AudioLDMError(f"{place} does not end as format={audio_format} does.", "Leave out --format.")
    return (place.with_suffix("") if ending else place).as_posix(), audio_format


def check_outputs(clips: Sequence[list[Clip]], output: Output) -> None:
    """Raise AudioLDMError unless each clip has files of its own, which can be written."""
    if output.is_file and len(clips) > 1:
        what = f"out={output.out} is one file, but {len(clips)} clips are to be made."
        raise AudioLDMError(what, "Name a folder.")
    owners: dict[str, list[Clip]] = {}
    for candidates in clips:
        for clip in candidates:
            if (other := owners.setdefault(clip.stem, candidates)) is not candidates:
                what = f"Two clips would be {clip.stem}: {other[0].prompt!r} and {clip.prompt!r}."
                raise AudioLDMError(what, "Give them other seeds, or names in a column out.")
            if clip.audio_format == "m4a" and shutil.which("ffmpeg") is None:
                raise AudioLDMError("format=m4a needs ffmpeg, which is not here.", "Or use --format ogg.")
    outputs.check_writable(output.folder)


def is_finished(clip: Clip, output: Output, options: dict[str, Any]) -> bool:
    """Whether a clip is there whole.   Raises AudioLDMError where other settings made it, but with --force."""
    files = clip.files(output)
    try:
        record = json.loads(read_text(files["sidecar"]))
        whole = record["sound"]["sha256"] == sha256(files["audio"]) and all(map(Path.exists, files.values()))
        before = {"prompt": record["prompt"], "seed": record["seed"], **record["options"]}
    except (AudioLDMError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    if not whole:
        return False
    now = {"prompt": clip.prompt, "seed": clip.seed, **options}
    other = sorted(name for name in {*before, *now} - {"batch_size"} if before.get(name) != now.get(name))
    if other and not output.force:
        was = ", ".join(f"{name}={before.get(name, 'default')}" for name in other)
        hint = "Use --force to make it again, or another --out."
        raise AudioLDMError(f"{files['audio']} is there, but made with {was}.", hint)
    return not other
