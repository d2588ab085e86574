"""The two sets of sounds that are compared: who is in them, what is wrong with them, who belongs to whom."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError

SUFFIXES = (".wav", ".flac", ".ogg")
CAPTION_FILE = "captions.csv"
POLICIES = ("first", "all", "hash")


@dataclass(frozen=True)
class Item:
    """One clip: its id pairs it with the other set; ``start`` and ``seconds`` choose a part of the file."""

    id: str
    path: Path
    caption: str = ""
    start: float = 0.0
    seconds: float | None = None
    group: str = ""


def from_folder(folder: Path) -> list[Item]:
    """The sound files of a folder by name; captions from ``captions.csv`` (id, caption) or each clip's JSON sidecar."""
    if not folder.is_dir():
        raise AudioLDMError(
            f"There is no folder {folder}.", "Name a folder of clips, or a manifest (.jsonl)."
        )
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise AudioLDMError(
            f"{folder} holds no {', '.join(SUFFIXES)} files.", "Name the folder of the clips."
        )
    told = captions_of(folder)
    items = [Item(path.stem, path, told.get(path.stem) or sidecar(path)) for path in paths]
    return unique(items, str(folder))


def captions_of(folder: Path) -> dict[str, str]:
    """id -> caption of a folder's ``captions.csv``, if it has one."""
    path = folder / CAPTION_FILE
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"id", "caption"} <= rows[0].keys():
        raise AudioLDMError(f"{path} lacks the columns id and caption.", "Write them in its first line.")
    return {row["id"]: row["caption"] for row in rows}


def sidecar(path: Path) -> str:
    """The prompt that ``audioldm generate`` wrote beside a clip, or nothing."""
    note = path.with_suffix(".json")
    if not note.is_file():
        return ""
    content = json.loads(note.read_text(encoding="utf-8"))
    prompt = content.get("prompt", "") if isinstance(content, dict) else ""
    return prompt if isinstance(prompt, str) else ""


def from_rows(rows: Sequence[Row], *, captions: str = "first") -> list[Item]:
    """Manifest rows as items.   ``captions``: the first, all (one item each), or one chosen by the hash of the id."""
    if captions not in POLICIES:
        raise AudioLDMError(f"captions={captions!r} is unknown.", f"Known: {', '.join(POLICIES)}.")
    items = []
    for row in rows:
        name = Path(row.path).stem + (f"@{row.start:g}" if row.start else "")
        texts = row.captions or ("",)
        if captions == "first":
            texts = texts[:1]
        elif captions == "hash":
            texts = (texts[int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % len(texts)],)
        for i, text in enumerate(texts):
            own = name if len(texts) == 1 else f"{name}#{i}"
            items.append(Item(own, Path(row.path), text, row.start, row.seconds, row.group or row.path))
    return unique(items, "the manifest")


def unique(items: list[Item], where: str) -> list[Item]:
    """The items, if no two share an id."""
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise AudioLDMError(
            f"{where} has {len(twice)} ids more than once, {twice[0]!r} first.",
            "Give every clip a name of its own.",
        )
    return items


def check_files(items: Sequence[Item], what: str) -> int:
    """Every file is there and all have one sample rate, which is returned (Hz)."""
    missing = [item.path for item in items if not item.path.is_file()]
    if missing:
        raise AudioLDMError(
            f"{len(missing)} of {len(items)} {what} files are missing, {missing[0]} first.",
            "A smaller set would give another number: get them, or make a manifest without them.",
        )
    rates: Counter[int] = Counter()
    for item in items:
        try:
            rates[soundfile.info(str(item.path)).samplerate] += 1
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise AudioLDMError(
                f"{item.path} cannot be read: {error}.", "Replace this file.", code=1
            ) from error
    if len(rates) > 1:
        told = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common())
        raise AudioLDMError(
            f"The {what} files have {len(rates)} sample rates: {told}.",
            "Resample them alike first: a mixed band width is measured as quality.",
        )
    return next(iter(rates))


def paired(made: Sequence[Item], real: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Both sets in the order of their ids; ids that only one of them has are an error."""
    ours, theirs = {item.id: item for item in made}, {item.id: item for item in real}
    lone, lacking = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if lone or lacking:
        shown = ", ".join([*lone, *lacking][:3])
        raise AudioLDMError(
            f"{len(lone)} generated clips have no reference and {len(lacking)} references no clip ({shown}, ...).",
            "Give both the same names, or --unpaired for the metrics that need no pairs.",
        )
    order = sorted(ours)
    return [ours[name] for name in order], [theirs[name] for name in order]


def seconds_of(item: Item) -> float:
    """Length of an item without decoding it."""
    info = soundfile.info(str(item.path))
    rest = info.frames / info.samplerate - item.start
    return rest if item.seconds is None else min(rest, item.seconds)
