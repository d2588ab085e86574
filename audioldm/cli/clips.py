"""Which clips a command makes, and the files of each: named after prompt and seed, checked before any work."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path
from typing import Any

from audioldm.cli.checks import check_free
from audioldm.cli.options.conditioning import AudioPrompt
from audioldm.cli.options.groups import Output, Prompts, format_of
from audioldm.cli.prompts import Row
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, sha256
from audioldm.tables import read_text

with later():
    from audioldm.pipeline import outputs


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
    name = "_".join(filter(None, (plain(text, 48), *marks)))
    return f"{name or 'clip'}_seed{seed}"


def plan(rows: Sequence[Row], prompts: Prompts, output: Output, *, title: str = "") -> list[list[Clip]]:
    """The clips to make, each as its candidates; the one at place i of all prompts times -n has seed SEED + i.

    ``title`` is what they are named after where they have no prompt.   Raises AudioLDMError where two would be one
    file, or a name lies outside the folder of results.
    """
    other, shares = prompts.shares()
    groups: list[list[Clip]] = []
    for share, (place, (row, take)) in product(shares, enumerate(product(rows, range(prompts.n)))):
        mark = "" if prompts.interpolate_to is None else f"to_{plain(other, 24)}_{share:g}"
        begin, number = (prompts.seed, place) if row.seed is None else (row.seed, take)
        text, like = row.prompt or title, ""
        if row.audio_prompt is not None:
            sound = row.audio_prompt[0].stem
            like = f"like_{plain(sound, 24)}" if row.prompt else ""
            text = row.prompt or f"audio prompt {sound}"
        groups.append([])
        for seed in range(first := begin + number * prompts.rerank, first + prompts.rerank):
            name, audio_format = file_of(row.out, stem_of(text, seed, like, mark), output)
            if row.out and prompts.n > 1:
                name += f"_seed{seed}"
            inside(output.folder, name, where=f"{row.place}, out")
            about = (row.settings, row.audio_prompt, share)
            groups[-1].append(Clip(row.prompt, seed, name, text, audio_format, *about))
    check_names(groups, output)
    return groups


def file_of(out: str | None, stem: str, output: Output) -> tuple[str, str]:
    """A clip's name without ending and its format, of a table's ``out``, else of --out if it is a file, or ``stem``.

    The ending chooses the format where nothing else does.
    """
    place = Path(out or (output.out.name if output.is_file else stem))
    ending = format_of(place)
    audio_format = output.audio_format or ending or "wav"
    if ending not in (None, suffix_of(audio_format)):
        raise AudioLDMError(f"{place} does not end as format={audio_format} does.", "Leave out --format.")
    return (place.with_suffix("") if ending else place).as_posix(), audio_format


def check_names(groups: Sequence[list[Clip]], output: Output) -> None:
    if output.is_file and len(groups) > 1:
        what = f"out={output.out} is one file, but {len(groups)} clips are to be made."
        raise AudioLDMError(what, "Name a folder.")
    names: dict[str, Clip] = {}
    for clip in chain.from_iterable({clip.stem: clip for clip in group}.values() for group in groups):
        if clip.stem in names:
            what = f"Two clips would be {clip.stem}: {names[clip.stem].prompt!r} and {clip.prompt!r}."
            raise AudioLDMError(what, "Give them other seeds, or names in a column out.")
        names[clip.stem] = clip
        if clip.audio_format == "m4a" and shutil.which("ffmpeg") is None:
            raise AudioLDMError("format=m4a needs ffmpeg, which is not here.", "Or use --format ogg.")


def check_outputs(groups: Iterable[list[Clip]], output: Output) -> None:
    """Raise AudioLDMError unless every file can be written, and none is there already (but for --force)."""
    paths = (path for clip in chain.from_iterable(groups) for path in clip.files(output).values())
    check_free(*paths, force=output.force)
    outputs.check_writable(output.folder)


def is_finished(clip: Clip, output: Output, options: dict[str, Any]) -> bool:
    """Whether a clip is there whole, as its sidecar describes it.

    Raises AudioLDMError where it is whole but was made with other settings, unless --force may overwrite it.
    """
    files = clip.files(output)
    try:
        record = json.loads(read_text(files["sidecar"]))
        whole = record["sound"]["sha256"] == sha256(files["audio"]) and all(map(Path.exists, files.values()))
        before = {"prompt": record["prompt"], "seed": record["seed"], **record["options"]}
    except (AudioLDMError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    now = {"prompt": clip.prompt, "seed": clip.seed, **options}
    other = sorted(name for name in {*before, *now} - {"batch_size"} if before.get(name) != now.get(name))
    if whole and other and not output.force:
        was = ", ".join(f"{name}={before.get(name, 'default')}" for name in other)
        hint = "Use --force to make it again, or another --out."
        raise AudioLDMError(f"{files['audio']} is there, but made with {was}.", hint)
    return whole and not other
