"""Which clips a command makes, and the files of each: named after prompt and seed, checked before any work."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from audioldm.cli.checks import check_free
from audioldm.cli.options.conditioning import AudioPrompt
from audioldm.cli.options.groups import FORMATS, Output, Prompts
from audioldm.cli.prompts import Row
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256
from audioldm.tables import read_text

SUFFIX = {name: re.sub("24|float", "", name) for name in FORMATS}
UNWRITTEN = ("aif", "aiff", "aac", "au", "caf", "mp4", "oga", "opus", "w64", "webm", "wma")
"""endings of sounds that nothing here writes; a file or folder of such a name would be taken for one"""


@dataclass(frozen=True)
class Clip:
    """One sound to make: its prompt, its seed, its file name without ending, and its own settings."""

    prompt: str
    seed: int
    stem: str
    title: str = ""
    audio_format: str = "wav"
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    audio_prompt: AudioPrompt | None = None
    share: float = 0.0
    """how far it is on the way to a second prompt"""


@dataclass(frozen=True)
class Files:
    """Where one clip goes."""

    audio: Path
    sidecar: Path
    figure: Path | None

    def all(self) -> list[Path]:
        """Every path, the sound first."""
        return [path for path in (self.audio, self.figure, self.sidecar) if path is not None]


def files_of(clip: Clip, output: Output) -> Files:
    """The paths of ``clip``."""
    base = output.folder / clip.stem
    return Files(
        audio=base.with_name(f"{base.name}.{SUFFIX[clip.audio_format]}"),
        sidecar=base.with_name(f"{base.name}.json"),
        figure=base.with_name(f"{base.name}.png") if output.figure else None,
    )


def plain(text: str, most: int) -> str:
    """At most ``most`` letters and digits of ``text``, fit for a file name.

    >>> plain("../A dog!", 48)
    'a_dog'
    """
    return re.sub(r"\W+", "_", text.casefold()).strip("_")[:most].strip("_")


def stem_of(text: str, seed: int, *marks: str) -> str:
    """``a_dog_barking_seed7``: letters and digits of the text, at most 48, marks, then the seed."""
    name = "_".join(filter(None, (plain(text, 48), *marks)))
    return f"{name or 'clip'}_seed{seed}"


def plan(rows: Sequence[Row], prompts: Prompts, output: Output, *, title: str = "") -> list[list[Clip]]:
    """The clips to make, each as its candidates; the one at place i of all prompts times -n has seed SEED + i.

    ``title`` is what they are named after where they have no prompt.   Raises AudioLDMError where two would be one
    file, or a name lies outside the folder of results.
    """
    other, shares = prompts.shares()
    groups: list[list[Clip]] = []
    for share in shares:
        mark = "" if prompts.interpolate_to is None else f"to_{plain(other, 24)}_{share:g}"
        for place, row in enumerate(row for row in rows for _ in range(prompts.n)):
            begin, number = (prompts.seed, place) if row.seed is None else (row.seed, place % prompts.n)
            first = begin + number * prompts.rerank
            seeds = range(first, first + prompts.rerank)
            groups.append(
                [replace(clip_of(row, seed, mark, title, prompts, output), share=share) for seed in seeds]
            )
    check_names(groups, output)
    return groups


def clip_of(row: Row, seed: int, mark: str, title: str, prompts: Prompts, output: Output) -> Clip:
    """One candidate of a row."""
    text, marks = row.prompt or title, [mark]
    if row.audio_prompt is not None:
        sound = row.audio_prompt[0].stem
        text, marks = (
            row.prompt or f"audio prompt {sound}",
            [f"like_{plain(sound, 24)}" if row.prompt else "", mark],
        )
    name, audio_format = Path(stem_of(text, seed, *marks)), output.audio_format or "wav"
    if place := row.out or output.file_name:
        name, audio_format = named_file(Path(place), output.audio_format)
    if row.out and prompts.n > 1:
        name = name.with_name(f"{name.name}_seed{seed}")
    inside(output.folder, name.as_posix(), where=f"{row.place}, out")
    return Clip(row.prompt, seed, name.as_posix(), text, audio_format, row.settings, row.audio_prompt)


def named_file(name: Path, audio_format: str | None) -> tuple[Path, str]:
    """A file's name without its ending, and the format, which the ending chooses where nothing else does."""
    ending = name.suffix.lstrip(".").lower()
    if ending in UNWRITTEN:
        raise AudioLDMError(f"{name}: {ending} is not written.", f"Use {', '.join(FORMATS)}.")
    if ending not in FORMATS:
        return name, audio_format or "wav"
    if SUFFIX[audio_format or ending] != ending:
        raise AudioLDMError(f"{name} does not end as format={audio_format} does.", "Leave out --format.")
    return name.with_suffix(""), audio_format or ending


def check_names(groups: list[list[Clip]], output: Output) -> None:
    """Refuse two clips of one name."""
    if output.is_file and len(groups) > 1:
        raise AudioLDMError(
            f"out={output.out} is one file, but {len(groups)} clips are to be made.", "Name a folder."
        )
    names: dict[str, Clip] = {}
    for clip in (clip for group in groups for clip in {one.stem: one for one in group}.values()):
        if clip.stem in names:
            raise AudioLDMError(
                f"Two clips would be {clip.stem}: {names[clip.stem].prompt!r} and {clip.prompt!r}.",
                "Give them other seeds, or names in a column out.",
            )
        names[clip.stem] = clip


def check_outputs(groups: Iterable[list[Clip]], output: Output) -> None:
    """Raise AudioLDMError unless every file can be written, and none is there already (but for --force)."""
    from audioldm.pipeline.outputs import check_writable

    paths = [path for group in groups for clip in group for path in files_of(clip, output).all()]
    if output.out.suffix.lstrip(".").lower() in UNWRITTEN:
        named_file(output.out, None)
    check_free(*paths, force=output.force)
    check_writable(output.folder)


def is_finished(clip: Clip, output: Output, options: dict[str, Any]) -> bool:
    """Whether a clip is there whole, as its sidecar describes it.

    Raises AudioLDMError where it is whole but was made with other settings, unless --force may overwrite it.
    """
    files = files_of(clip, output)
    try:
        record = json.loads(read_text(files.sidecar))
        whole = record["sound"]["sha256"] == sha256(files.audio)
        before = {"prompt": record["prompt"], "seed": record["seed"], **record["options"]}
    except (AudioLDMError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    if not whole or not all(path.exists() for path in files.all()):
        return False
    now = {"prompt": clip.prompt, "seed": clip.seed, **json.loads(json.dumps(options))}
    other = sorted(name for name in {*before, *now} - {"batch_size"} if before.get(name) != now.get(name))
    if other and not output.force:
        was = ", ".join(f"{name}={before.get(name, 'default')}" for name in other)
        raise AudioLDMError(
            f"{files.audio} is there, but made with {was}.", "Use --force to make it again, or another --out."
        )
    return not other


def process_slice(groups: list[list[Clip]]) -> list[list[Clip]]:
    """What this process makes where torchrun started several: every n-th group of n processes; else all."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    return groups[rank::world]
