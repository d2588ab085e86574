"""Data sets with classes instead of captions: ESC-10, ESC-50, FSD50K, UrbanSound8K and AudioSet.

A class becomes a phrase that holds for every clip of it.
"""

import json
import re
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare.shared import (
    YOUTUBE,
    Findings,
    Sounds,
    licence,
    listing,
    note,
    rows_of,
    table,
    words,
    youtube_names,
)
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.tables import Record, lines, read_text

ESC10: dict[str, tuple[str, ...]] = {
    "Dog bark": (
        "a dog barking", "a dog barks", "the sound of a dog barking", "dog barking", "barking of a dog",
        "a recording of a barking dog", "a dog is barking",
    ),
    "Rain": (
        "rain", "rain falling", "the sound of rain", "rain is falling", "falling rain", "a recording of rain",
        "the noise of falling rain",
    ),
    "Sea waves": (
        "sea waves", "waves of the sea", "the sound of ocean waves", "waves on the shore", "the sea with waves",
        "a recording of sea waves", "ocean waves rolling in",
    ),
    "Baby cry": (
        "a baby crying", "a baby cries", "the sound of a crying baby", "a baby is crying", "an infant crying",
        "a recording of a baby crying", "crying of a baby",
    ),
    "Clock tick": (
        "a clock ticking", "a ticking clock", "the ticking of a clock", "a clock ticks", "the sound of a clock ticking",
        "a recording of a ticking clock", "clock ticking",
    ),
    "Person sneeze": (
        "a person sneezing", "a person sneezes", "someone sneezes", "a sneeze", "the sound of a sneeze",
        "a recording of a person sneezing", "somebody sneezing",
    ),
    "Helicopter": (
        "a helicopter", "the sound of a helicopter", "helicopter noise", "a helicopter's rotor",
        "the chopping of helicopter blades", "a recording of a helicopter", "the engine and blades of a helicopter",
    ),
    "Chainsaw": (
        "a chainsaw", "a chainsaw running", "the sound of a chainsaw", "chainsaw noise", "the motor of a chainsaw",
        "a recording of a chainsaw", "a chainsaw is running",
    ),
    "Rooster": (
        "a rooster crowing", "a rooster crows", "the crow of a rooster", "a cock crowing", "the sound of a rooster",
        "a recording of a rooster crowing", "a rooster is crowing",
    ),
    "Fire crackling": (
        "fire crackling", "a crackling fire", "the crackling of a fire", "a fire crackles", 
        "the sound of a burning fire", "a recording of a crackling fire", "a fire burning and crackling",
    ),
}  # fmt: skip
"""Class -> phrasings that hold for every clip of it: no place, number, distance or loudness."""

ESC50 = {
    "dog": "a dog barking", "rooster": "a rooster crowing", "pig": "a pig grunting", "cow": "a cow mooing",
    "frog": "a frog croaking", "cat": "a cat meowing", "hen": "a hen clucking", "insects": "insects buzzing",
    "sheep": "a sheep bleating", "crow": "a crow cawing", "rain": "rain falling", "sea_waves": "sea waves",
    "crackling_fire": "a crackling fire", "crickets": "crickets chirping", "chirping_birds": "birds chirping",
    "water_drops": "water dripping", "wind": "wind blowing", "pouring_water": "water being poured",
    "toilet_flush": "a toilet flushing", "thunderstorm": "a thunderstorm", "crying_baby": "a baby crying",
    "sneezing": "a person sneezing", "clapping": "people clapping", "breathing": "a person breathing",
    "coughing": "a person coughing", "footsteps": "footsteps", "laughing": "a person laughing",
    "brushing_teeth": "someone brushing their teeth", "snoring": "a person snoring",
    "drinking_sipping": "a person sipping a drink", "door_wood_knock": "a knock on a wooden door",
    "mouse_click": "a computer mouse clicking", "keyboard_typing": "typing on a keyboard",
    "door_wood_creaks": "a wooden door creaking", "can_opening": "a can being opened",
    "washing_machine": "a washing machine running", "vacuum_cleaner": "a vacuum cleaner running",
    "clock_alarm": "an alarm clock ringing", "clock_tick": "a clock ticking", "glass_breaking": "glass breaking",
    "helicopter": "a helicopter flying", "chainsaw": "a chainsaw running", "siren": "a siren wailing",
    "car_horn": "a car horn honking", "engine": "an engine running", "train": "a train passing",
    "church_bells": "church bells ringing", "airplane": "an aeroplane flying", "fireworks": "fireworks exploding",
    "hand_saw": "a hand saw cutting",
}  # fmt: skip
URBAN = {
    "air_conditioner": "an air conditioner humming", "car_horn": "a car horn honking",
    "children_playing": "children playing", "dog_bark": "a dog barking", "drilling": "drilling",
    "engine_idling": "an engine idling", "gun_shot": "a gunshot", "jackhammer": "a jackhammer",
    "siren": "a siren wailing", "street_music": "street music",
}  # fmt: skip
ESC10_CLIP = re.compile(r"(?P<fold>\d)-(?P<freesound>\d+)-(?P<take>[A-Z])\.(ogg|wav|flac)")
ESC10_CREDIT = re.compile(
    r"^- \*\*\[(?P<file>[^\]]+)\].*clip derived from \[(?P<title>.*)\]\(.*\) by \*(?P<author>[^*]+)\*"
)


def fold_split(fold: int, test_fold: int, val_fold: int | None) -> str:
    """The split of a fold."""
    return "test" if fold == test_fold else "val" if fold == val_fold else "train"


def esc10(
    folder: str | Path,
    *,
    test_fold: int = 4,
    val_fold: int | None = None,
    val: float = 0.1,
    findings: Findings | None = None,
) -> list[Row]:
    """ESC-10 (CC BY 3.0): 400 clips of 5 s in 10 classes and 5 folds, several captions a class (Piczak 2015).

    One fold is the test set, and either one fold or a share ``val`` of the other folds' recordings is for validation.
    All clips of one Freesound recording share a split.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Name ESC-10's folder.")
    listed = folder / "LICENSE-and-attribution.md"
    hits = [ESC10_CREDIT.match(line) for line in (lines(read_text(listed)) if listed.is_file() else [])]
    authors = {hit["file"]: f"{hit['author']} (Freesound), ESC-10 by K. J. Piczak" for hit in hits if hit}
    out = []
    for path in sorted(folder.glob("[0-9][0-9][0-9] - */*")):
        name, hit = path.parent.name.split(" - ", 1)[1], ESC10_CLIP.fullmatch(path.name)
        if hit is None or name not in ESC10:
            if findings is not None:
                note(findings, path, "no clip of ESC-10 is called so")
            continue
        fold, group = int(hit["fold"]), f"freesound/{hit['freesound']}"
        split = fold_split(fold, test_fold, val_fold)
        if split == "train" and val_fold is None:
            split = split_of(group, val=val, test=0.0)
        out.append(
            Row(
                path=str(path), captions=ESC10[name], labels=(name.lower(),), split=split, licence="CC-BY-3.0",
                source="esc10", author=authors.get(path.name, "ESC-10 by K. J. Piczak"), fold=fold, group=group,
            )
        )  # fmt: skip
    if not out:
        raise AudioLDMError(
            f"{folder} holds no ESC-10 clips.",
            "Pass the folder that holds '001 - Dog bark' and its neighbours.",
        )
    return out


def esc50(
    folder: str | Path,
    *,
    only_esc10: bool = False,
    test_fold: int = 5,
    val_fold: int = 4,
    findings: Findings | None = None,
) -> list[Row]:
    """ESC-50: 2,000 clips of 5 s in 50 classes (meta/esc50.csv and audio; Piczak 2015).

    ``only_esc10`` keeps the ten classes of ESC-10.
    """
    sounds = Sounds(Path(folder) / "audio")

    def row(line: dict[str, str]) -> Row | None:
        free = line["esc10"] == "True"
        if only_esc10 and not free:
            return None
        fold, phrase = int(line["fold"]), ESC50[line["category"]]
        return Row(
            sounds.place(line["filename"]), (phrase, f"the sound of {phrase}"), labels=(words(line["category"]),),
            split=fold_split(fold, test_fold, val_fold), licence="CC-BY-3.0" if free else "CC-BY-NC-3.0",
            source="esc10" if only_esc10 else "esc50", author="ESC-50 by K. J. Piczak", fold=fold,
            group=f"freesound/{line['src_file']}",
        )  # fmt: skip

    need = ("filename", "fold", "category", "esc10", "src_file")
    return list(rows_of(table(Path(folder) / "meta" / "esc50.csv", need, findings), row, findings))


def urbansound8k(
    folder: str | Path, *, test_fold: int = 10, val_fold: int = 9, findings: Findings | None = None
) -> list[Row]:
    """UrbanSound8K: 8,732 clips of up to 4 s in 10 classes (metadata and audio; Salamon et al. 2014).

    Its ten folds share no recording.  salience 2 is a sound in the background, and the caption says so.
    """
    folder = Path(folder).absolute()

    def row(line: dict[str, str]) -> Row:
        fold, phrase = int(line["fold"]), URBAN[line["class"]]
        near = (phrase, f"the sound of {phrase}")
        return Row(
            str(inside(folder / "audio" / f"fold{fold}", line["slice_file_name"])),
            near if line["salience"] == "1" else (f"{phrase} in the background",),
            labels=(words(line["class"]),), split=fold_split(fold, test_fold, val_fold), licence="CC-BY-NC-3.0",
            source="urbansound8k", author="UrbanSound8K by J. Salamon, C. Jacoby and J. P. Bello", fold=fold,
            group=f"freesound/{line['fsID']}",
        )  # fmt: skip

    need = ("slice_file_name", "fsID", "salience", "fold", "class")
    return list(rows_of(table(folder / "metadata" / "UrbanSound8K.csv", need, findings), row, findings))


def fsd50k(folder: str | Path, *, findings: Findings | None = None) -> list[Row]:
    """FSD50K: 51,000 clips from Freesound in 200 classes (FSD50K.ground_truth, .metadata, .dev_audio, .eval_audio).

    Fonseca et al. 2022.  A clip's first label is its most specific one; the others, its parents among them, make the
    second caption.
    """
    folder, out = Path(folder).absolute(), list[Row]()
    for part in ("dev", "eval"):
        path = folder / "FSD50K.ground_truth" / f"{part}.csv"
        if not path.is_file():
            continue
        about = folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
        facts = json.loads(read_text(about)) if about.is_file() else {}

        def row(line: dict[str, str], part: str = part, facts: Any = facts) -> Row:
            names, fact = [words(label) for label in line["labels"].split(",")], facts.get(line["fname"], {})
            return Row(
                str(inside(folder / f"FSD50K.{part}_audio", f"{line['fname']}.wav")),
                tuple(dict.fromkeys((f"the sound of {names[0]}", f"sounds of {listing(names[:3])}"))),
                labels=tuple(names), split=line["split"] if part == "dev" else "test",
                licence=licence(fact.get("license", "")), source="fsd50k", author=fact.get("uploader", ""),
                group=f"freesound/{line['fname']}",
            )  # fmt: skip

        need = ("fname", "labels", *(["split"] if part == "dev" else []))
        out += rows_of(table(path, need, findings), row, findings)
    if not out:
        raise AudioLDMError(f"{folder} holds no FSD50K.ground_truth.", "Name FSD50K's folder.")
    return out


SEGMENTS = {"balanced_train_segments": "train", "unbalanced_train_segments": "train", "eval_segments": "test"}


def audioset(
    folder: str | Path,
    *,
    audio: str | Path | None = None,
    val: float = 0.02,
    findings: Findings | None = None,
) -> list[Row]:
    """AudioSet: class names become captions (*_segments.csv, class_labels_indices.csv; Gemmeke et al. 2017).

    Only clips whose sound is there are listed: hardly anyone has all two million.
    """
    folder = Path(folder)
    classes = table(folder / "class_labels_indices.csv", ("mid", "display_name"), findings)
    names = {record.cells["mid"]: words(record.cells["display_name"]) for record in classes}
    sounds = Sounds(audio or folder)
    lists = [(split, folder / f"{stem}.csv") for stem, split in SEGMENTS.items()]
    lists = [(split, path) for split, path in lists if path.is_file()]
    if not lists:
        raise AudioLDMError(f"{folder} holds no *_segments.csv.", "Name the folder of AudioSet's lists.")
    out = list[Row]()
    for split, path in lists:

        def row(cells: dict[str, str], split: str = split) -> Row | None:
            """A line reads `video, start, end, "class,class"`."""
            video, start, end, classes = cells["line"].split(", ", 3)
            place, group = sounds.find(*youtube_names(video, float(start), float(end))), f"youtube/{video}"
            labels = [names[mid] for mid in classes.strip().strip('"').split(",") if mid in names]
            phrases = (listing(labels), f"the sound of {listing(labels)}") if labels else ()
            if place is None:
                return None
            return Row(
                str(place), tuple(dict.fromkeys(phrases)), labels=tuple(labels), licence=YOUTUBE, source="audioset",
                split=split if split == "test" else split_of(group, val=val, test=0.0), group=group,
                author=f"https://youtu.be/{video}",
            )  # fmt: skip

        numbered = enumerate(lines(read_text(path)), start=1)
        records = [
            Record(f"{path}:{number}", {"line": line})
            for number, line in numbered
            if line.strip() and not line.startswith("#")
        ]
        out += rows_of(records, row, findings)
    if not out:
        raise AudioLDMError(
            f"None of AudioSet's clips is below {sounds.folders[0]}.",
            "Pass --audio with the folder of the sounds.",
        )
    return out
