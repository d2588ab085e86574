"""Data sets with classes instead of captions: ESC-10, ESC-50, FSD50K, UrbanSound8K and AudioSet.

A class becomes a phrase that holds for every clip of it (``phrases.json``): no place, number, distance or loudness.
"""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare import shared
from audioldm.datasets.prepare.shared import AnyPath, Findings, Sounds, rows_of, table, words
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.tables import Record, filled, lines, read_text

PHRASES: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("phrases.json").read_text(encoding="utf-8")
)
ESC10: dict[str, tuple[str, ...]] = {name: tuple(texts) for name, texts in PHRASES["esc10"].items()}
ESC10_CLIP = re.compile(r"(?P<fold>\d)-(?P<freesound>\d+)-(?P<take>[A-Z])\.(ogg|wav|flac)")
ESC10_CREDIT = re.compile(
    r"^- \*\*\[(?P<file>[^\]]+)\].*clip derived from \[(?P<title>.*)\]\(.*\) by \*(?P<author>[^*]+)\*"
)
ESC10_AUTHOR = "ESC-10 by K. J. Piczak"


def fold_split(fold: int, test_fold: int, val_fold: int | None) -> str:
    """The split of a fold."""
    return "test" if fold == test_fold else "val" if fold == val_fold else "train"


def esc10_authors(credits: Path) -> dict[str, str]:
    """Who recorded each clip, by its file name, from the set's own list."""
    hits = filter(None, map(ESC10_CREDIT.match, lines(read_text(credits)) if credits.is_file() else ()))
    return {hit["file"]: f"{hit['author']} (Freesound), {ESC10_AUTHOR}" for hit in hits}


def esc10(
    folder: AnyPath, *, test_fold: int = 4, val_fold: int | None = None, val: float = 0.1,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """ESC-10 (CC BY 3.0): 400 clips of 5 s in 10 classes and 5 folds, several captions a class (Piczak 2015).

    One fold is the test set, and either one fold or a share ``val`` of the other folds' recordings is for validation.
    All clips of one Freesound recording share a split.
    """
    folder, out = Path(folder).absolute(), list[Row]()
    if not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Name ESC-10's folder.")
    authors = esc10_authors(folder / "LICENSE-and-attribution.md")
    for path in sorted(folder.glob("[0-9][0-9][0-9] - */*")):
        name, clip = path.parent.name.split(" - ", 1)[1], ESC10_CLIP.fullmatch(path.name)
        if name not in ESC10 or clip is None:
            shared.note(findings, path, "no clip of ESC-10 is called so", strict=False)
            continue
        fold, group = int(clip["fold"]), f"freesound/{clip['freesound']}"
        split = fold_split(fold, test_fold, val_fold)
        if split == "train" and val_fold is None:
            split = split_of(group, val=val, test=0.0)
        author = authors.get(path.name, ESC10_AUTHOR)
        row = Row(str(path), ESC10[name], (name.lower(),), split=split, licence="CC-BY-3.0", source="esc10")
        out.append(replace(row, author=author, fold=fold, group=group))
    if not out:
        raise AudioLDMError(
            f"{folder} holds no ESC-10 clips.",
            "Pass the folder that holds '001 - Dog bark' and its neighbours.",
        )
    return out


def esc50(
    folder: AnyPath, *, only_esc10: bool = False, test_fold: int = 5, val_fold: int = 4,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """ESC-50: 2,000 clips of 5 s in 50 classes (meta/esc50.csv and audio; Piczak 2015).

    ``only_esc10`` keeps the ten classes of ESC-10.
    """
    sounds = Sounds(Path(folder) / "audio")

    def row(line: dict[str, str]) -> Row | None:
        free = line["esc10"] == "True"
        if only_esc10 and not free:
            return None
        fold, phrase = int(line["fold"]), PHRASES["esc50"][line["category"]]
        return Row(
            sounds.place(line["filename"]), (phrase, f"the sound of {phrase}"), (words(line["category"]),),
            split=fold_split(fold, test_fold, val_fold), licence="CC-BY-3.0" if free else "CC-BY-NC-3.0",
            source="esc10" if only_esc10 else "esc50", author="ESC-50 by K. J. Piczak", fold=fold,
            group=f"freesound/{line['src_file']}",
        )  # fmt: skip

    need = ("filename", "fold", "category", "esc10", "src_file")
    return rows_of(table(Path(folder) / "meta" / "esc50.csv", need, findings), row, findings)


def urbansound8k(
    folder: AnyPath, *, test_fold: int = 10, val_fold: int = 9, findings: Findings = None
) -> list[Row]:
    """UrbanSound8K: 8,732 clips of up to 4 s in 10 classes (metadata and audio; Salamon et al. 2014).

    Its ten folds share no recording.  salience 2 is a sound in the background, and the caption says so.
    """
    folder = Path(folder).absolute()

    def row(line: dict[str, str]) -> Row:
        fold, phrase = int(line["fold"]), PHRASES["urbansound8k"][line["class"]]
        near = (phrase, f"the sound of {phrase}")
        return Row(
            str(inside(folder / "audio" / f"fold{fold}", line["slice_file_name"])),
            near if line["salience"] == "1" else (f"{phrase} in the background",), (words(line["class"]),),
            split=fold_split(fold, test_fold, val_fold), licence="CC-BY-NC-3.0", source="urbansound8k",
            author="UrbanSound8K by J. Salamon, C. Jacoby and J. P. Bello", fold=fold,
            group=f"freesound/{line['fsID']}",
        )  # fmt: skip

    need = ("slice_file_name", "fsID", "salience", "fold", "class")
    return rows_of(table(folder / "metadata" / "UrbanSound8K.csv", need, findings), row, findings)


def fsd50k(folder: AnyPath, *, findings: Findings = None) -> list[Row]:
    """FSD50K: 51,000 clips from Freesound in 200 classes (FSD50K.ground_truth, .metadata, .dev_audio, .eval_audio).

    Fonseca et al. 2022.  A clip's first label is its most specific one; the others, its parents among them, make the
    second caption.
    """
    folder, out = Path(folder).absolute(), list[Row]()
    for part, path in shared.by_split(folder / "FSD50K.ground_truth", {"dev.csv": "dev", "eval.csv": "eval"}):
        about = folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
        facts = shared.content_of(about) if about.is_file() else {}

        def row(line: dict[str, str], part: str = part, facts: Any = facts) -> Row:
            names, fact = [words(label) for label in line["labels"].split(",")], facts.get(line["fname"], {})
            captions = dict.fromkeys((f"the sound of {names[0]}", f"sounds of {shared.listing(names[:3])}"))
            return Row(
                str(inside(folder / f"FSD50K.{part}_audio", f"{line['fname']}.wav")), tuple(captions), tuple(names),
                split=line["split"] if part == "dev" else "test", licence=shared.licence(fact.get("license", "")),
                source="fsd50k", author=fact.get("uploader", ""), group=f"freesound/{line['fname']}",
            )  # fmt: skip

        need = ("fname", "labels", *(["split"] if part == "dev" else []))
        out += rows_of(table(path, need, findings), row, findings)
    return out


SEGMENTS = {
    "balanced_train_segments.csv": "train", "unbalanced_train_segments.csv": "train", "eval_segments.csv": "test",
}  # fmt: skip


def audioset(
    folder: AnyPath, *, audio: AnyPath | None = None, val: float = 0.02, findings: Findings = None
) -> list[Row]:
    """AudioSet: class names become captions (*_segments.csv, class_labels_indices.csv; Gemmeke et al. 2017).

    Only clips whose sound is there are listed: hardly anyone has all two million.
    """
    classes = table(Path(folder) / "class_labels_indices.csv", ("mid", "display_name"), findings)
    names = {record.cells["mid"]: words(record.cells["display_name"]) for record in classes}
    sounds, out = Sounds(audio or folder), list[Row]()

    def row(cells: dict[str, str], split: str) -> Row | None:
        """Of a line such as `video, start, end, "class,class"`, which is no CSV: only its last column is quoted."""
        video, start, end, mids = cells["line"].split(", ", 3)
        place = sounds.find(*shared.youtube_names(video, float(start), float(end)))
        labels = [*filter(None, map(names.get, mids.strip().strip('"').split(",")))]
        phrase = shared.listing(labels) if labels else ""
        split = split if split == "test" else split_of(f"youtube/{video}", val=val, test=0.0)
        return None if place is None else shared.youtube_row(
            str(place), video, (phrase, f"the sound of {phrase}") if labels else (), labels=tuple(labels),
            source="audioset", split=split,
        )  # fmt: skip

    for split, path in shared.by_split(Path(folder), SEGMENTS):
        listed = filled(lines(read_text(path)), path)
        records = [Record(f"{path}:{number}", {"line": line}) for number, line in listed if line[0] != "#"]
        out += rows_of(records, partial(row, split=split), findings)
    if not out:
        raise AudioLDMError(
            f"None of AudioSet's clips is below {sounds.folders[0]}.",
            "Pass --audio with the folder of the sounds.",
        )
    return out
