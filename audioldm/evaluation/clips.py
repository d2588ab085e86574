"""The sounds that are compared: which ones, what is wrong with them, which belong together."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from audioldm.datasets.decode import FOREIGN, SUFFIXES, opened
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.tables import read_table, read_text

CAPTION_FILE = "captions.csv"
POLICIES = ("first", "all", "hash")
UNEVEN = 0.1
"""share by which the longest clips of two sets may differ"""


@dataclass(frozen=True)
class Clip:
    """``id`` pairs it with a clip of the other set; ``start`` and ``seconds`` choose a part of the file."""

    id: str
    path: Path
    caption: str = ""
    start: float = 0.0
    seconds: float | None = None
    group: str = ""


def from_folder(folder: Path) -> list[Clip]:
    """The sound files of a folder by name; captions from ``captions.csv`` (id, caption) or each clip's JSON sidecar."""
    if not folder.is_dir():
        raise AudioLDMError(
            f"There is no folder {folder}.", "Name a folder of clips, or a manifest (.jsonl)."
        )
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES + FOREIGN)
    if not paths:
        raise AudioLDMError(
            f"{folder} holds no sound files (such as .wav, .flac, .ogg).", "Name the folder of the clips."
        )
    captions = read_captions(folder / CAPTION_FILE) if (folder / CAPTION_FILE).is_file() else {}
    return unique(
        [Clip(path.stem, path, captions.get(path.stem) or prompt_of(path)) for path in paths], str(folder)
    )


def read_captions(path: Path) -> dict[str, str]:
    """id -> caption of a table with these columns; AudioLDMError for a row that is not read whole."""
    table = read_table(path, need=("id", "caption"), text=("caption",))
    if table.omitted:
        raise AudioLDMError(f"{table.omitted[0]}.", "Correct this row: its caption would be lost.")
    return {
        str(row.cells["id"]): str(row.cells.get("caption", "")) for row in table.records if "id" in row.cells
    }


def prompt_of(path: Path) -> str:
    """The prompt in the JSON file that ``audioldm generate`` wrote beside a clip, or nothing."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return ""
    try:
        content = json.loads(read_text(sidecar))
    except (ValueError, RecursionError) as error:
        raise AudioLDMError(
            f"{sidecar} is not JSON: {error}.", "Remove it, or make the clip again."
        ) from error
    prompt = content.get("prompt") if isinstance(content, dict) else None
    return prompt if isinstance(prompt, str) else ""


def from_rows(rows: Sequence[Row], *, captions: str = "first") -> list[Clip]:
    """Manifest rows as clips.   ``captions``: the first, all (one clip each), or one by the hash of the id."""
    if captions not in POLICIES:
        raise AudioLDMError(f"captions={captions!r} is unknown.", f"Known: {', '.join(POLICIES)}.")
    clips = []
    for row in rows:
        name = Path(row.path).stem + (f"@{row.start:g}" if row.start else "")
        texts = row.captions or ("",)
        if captions == "first":
            texts = texts[:1]
        elif captions == "hash":
            texts = (texts[int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % len(texts)],)
        for i, text in enumerate(texts):
            key = name if len(texts) == 1 else f"{name}#{i}"
            clips.append(Clip(key, Path(row.path), text, row.start, row.seconds, row.group or row.path))
    return unique(clips, "the manifest")


def shuffled(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """The rows in an order that depends on their contents' hashes and ``seed`` only, not on the manifest's order."""
    ordered = sorted(rows, key=lambda row: (row.sha256, row.path, row.start))
    order = torch.randperm(len(ordered), generator=torch.Generator().manual_seed(seed))
    return [ordered[i] for i in order.tolist()]


def unique(clips: list[Clip], where: str) -> list[Clip]:
    """The clips, if no two share an id."""
    twice = [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]
    if twice:
        raise AudioLDMError(
            f"{where} has {len(twice)} ids more than once, {twice[0]!r} first.",
            "Give every clip its own name.",
        )
    return clips


def check_files(clips: Sequence[Clip], what: str) -> int:
    """Two clips or more, every file there, all of one sample rate, which is returned (Hz)."""
    if len(clips) < 2:
        raise AudioLDMError(f"{len(clips)} {what} clips are too few.", "A set is compared from 2 clips on.")
    missing = [clip.path for clip in clips if not clip.path.is_file()]
    if missing:
        raise AudioLDMError(
            f"{len(missing)} of {len(clips)} {what} files are missing, {missing[0]} first.",
            "A smaller set would give another number: get them, or make a manifest without them.",
        )
    rates = Counter(length_of(clip)[0] for clip in clips)
    if len(rates) > 1:
        listed = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common())
        raise AudioLDMError(
            f"The {what} files have {len(rates)} sample rates: {listed}.",
            "Resample them alike first: a mixed band width is measured as quality.",
        )
    return int(next(iter(rates)))


def length_of(clip: Clip) -> tuple[int, float]:
    """Rate in Hz and seconds of a clip's file, which is decoded where its header does not say."""
    with opened(clip.path) as file:
        frames = sum(map(len, file.blocks())) if file.frames is None else file.frames
        return file.rate, frames / file.rate


def longest(clips: Sequence[Clip]) -> float:
    """Seconds of the longest clip."""

    def seconds(clip: Clip) -> float:
        rest = length_of(clip)[1] - clip.start
        return rest if clip.seconds is None else min(rest, clip.seconds)

    return max(map(seconds, clips))


def common_length(generated: Sequence[Clip], real: Sequence[Clip]) -> float:
    """The length that both sets get where none is asked for: the generated clips' own, if the real ones are like it."""
    ours, theirs = longest(generated), longest(real)
    if abs(ours - theirs) > UNEVEN * max(ours, theirs):
        raise AudioLDMError(
            f"Generated clips last up to {ours:.3g} s, references up to {theirs:.3g} s.",
            "Give --crop SECONDS: both are cut, or filled with zeros, to that length.",
        )
    return ours


def paired(generated: Sequence[Clip], real: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Both sets in the order of their ids; ids that only one of them has are an error."""
    ours, theirs = {clip.id: clip for clip in generated}, {clip.id: clip for clip in real}
    lone, lacking = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if lone or lacking:
        shown = ", ".join([*lone, *lacking][:3])
        raise AudioLDMError(
            f"{len(lone)} generated clips have no reference and {len(lacking)} references no clip ({shown}, ...).",
            "Give both the same names, or --unpaired for the metrics that need no pairs.",
        )
    order = sorted(ours)
    return [ours[name] for name in order], [theirs[name] for name in order]


def paired_runs(runs: Sequence[list[Clip]], real: Sequence[Clip]) -> tuple[list[list[Clip]], list[Clip]]:
    """Every set and the references in the order of their ids, captioned as the references are."""
    ordered = paired(runs[0], real)[1]
    captions = {clip.id: clip.caption for clip in ordered}
    return [
        [replace(clip, caption=captions[clip.id] or clip.caption) for clip in paired(run, real)[0]]
        for run in runs
    ], ordered
