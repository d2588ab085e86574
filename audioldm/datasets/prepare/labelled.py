"""Data sets with classes instead of captions: ESC-50, FSD50K, UrbanSound8K and AudioSet; a class becomes a phrase."""

import json
from pathlib import Path

from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare.captioned import YOUTUBE, youtube_names
from audioldm.datasets.prepare.tables import Sounds, licence, listing, table, words
from audioldm.errors import AudioLDMError
from audioldm.paths import inside

ESC50 = {
    "dog": "a dog barking",
    "rooster": "a rooster crowing",
    "pig": "a pig grunting",
    "cow": "a cow mooing",
    "frog": "a frog croaking",
    "cat": "a cat meowing",
    "hen": "a hen clucking",
    "insects": "insects buzzing",
    "sheep": "a sheep bleating",
    "crow": "a crow cawing",
    "rain": "rain falling",
    "sea_waves": "sea waves",
    "crackling_fire": "a crackling fire",
    "crickets": "crickets chirping",
    "chirping_birds": "birds chirping",
    "water_drops": "water dripping",
    "wind": "wind blowing",
    "pouring_water": "water being poured",
    "toilet_flush": "a toilet flushing",
    "thunderstorm": "a thunderstorm",
    "crying_baby": "a baby crying",
    "sneezing": "a person sneezing",
    "clapping": "people clapping",
    "breathing": "a person breathing",
    "coughing": "a person coughing",
    "footsteps": "footsteps",
    "laughing": "a person laughing",
    "brushing_teeth": "someone brushing their teeth",
    "snoring": "a person snoring",
    "drinking_sipping": "a person sipping a drink",
    "door_wood_knock": "a knock on a wooden door",
    "mouse_click": "a computer mouse clicking",
    "keyboard_typing": "typing on a keyboard",
    "door_wood_creaks": "a wooden door creaking",
    "can_opening": "a can being opened",
    "washing_machine": "a washing machine running",
    "vacuum_cleaner": "a vacuum cleaner running",
    "clock_alarm": "an alarm clock ringing",
    "clock_tick": "a clock ticking",
    "glass_breaking": "glass breaking",
    "helicopter": "a helicopter flying",
    "chainsaw": "a chainsaw running",
    "siren": "a siren wailing",
    "car_horn": "a car horn honking",
    "engine": "an engine running",
    "train": "a train passing",
    "church_bells": "church bells ringing",
    "airplane": "an aeroplane flying",
    "fireworks": "fireworks exploding",
    "hand_saw": "a hand saw cutting",
}
URBAN = {
    "air_conditioner": "an air conditioner humming",
    "car_horn": "a car horn honking",
    "children_playing": "children playing",
    "dog_bark": "a dog barking",
    "drilling": "drilling",
    "engine_idling": "an engine idling",
    "gun_shot": "a gunshot",
    "jackhammer": "a jackhammer",
    "siren": "a siren wailing",
    "street_music": "street music",
}


def esc50(
    folder: str | Path, *, only_esc10: bool = False, test_fold: int = 5, val_fold: int = 4
) -> list[Row]:
    """ESC-50 (Piczak 2015): meta/esc50.csv and audio/; ``only_esc10`` keeps the ten classes of ESC-10."""
    folder = Path(folder)
    sounds = Sounds(folder / "audio")
    out = []
    for line in table(folder / "meta" / "esc50.csv", ("filename", "fold", "category", "esc10", "src_file")):
        esc10 = line["esc10"] == "True"
        if only_esc10 and not esc10:
            continue
        fold, phrase = int(line["fold"]), ESC50[line["category"]]
        out.append(
            Row(
                sounds.place(line["filename"]),
                (phrase, f"the sound of {phrase}"),
                labels=(words(line["category"]),),
                split="test" if fold == test_fold else "val" if fold == val_fold else "train",
                licence="CC-BY-3.0" if esc10 else "CC-BY-NC-3.0",
                source="esc10" if only_esc10 else "esc50",
                author="ESC-50 by K. J. Piczak",
                fold=fold,
                group=f"freesound/{line['src_file']}",
            )
        )
    return out


def urbansound8k(folder: str | Path, *, test_fold: int = 10, val_fold: int = 9) -> list[Row]:
    """UrbanSound8K (Salamon et al. 2014): metadata/UrbanSound8K.csv and audio/fold1 to 10, which share no recording.

    salience 2 is a sound in the background, and the caption says so.
    """
    folder = Path(folder)
    need = ("slice_file_name", "fsID", "salience", "fold", "class")
    out = []
    for line in table(folder / "metadata" / "UrbanSound8K.csv", need):
        fold, phrase = int(line["fold"]), URBAN[line["class"]]
        captions = (
            (phrase, f"the sound of {phrase}")
            if line["salience"] == "1"
            else (f"{phrase} in the background",)
        )
        out.append(
            Row(
                str(inside(folder / "audio" / f"fold{fold}", line["slice_file_name"])),
                captions,
                labels=(words(line["class"]),),
                split="test" if fold == test_fold else "val" if fold == val_fold else "train",
                licence="CC-BY-NC-3.0",
                source="urbansound8k",
                author="UrbanSound8K by J. Salamon, C. Jacoby and J. P. Bello",
                fold=fold,
                group=f"freesound/{line['fsID']}",
            )
        )
    return out


def fsd50k(folder: str | Path) -> list[Row]:
    """FSD50K (Fonseca et al. 2022): FSD50K.ground_truth, FSD50K.metadata, FSD50K.dev_audio and FSD50K.eval_audio.

    A clip's first label is its most specific one; the others, its parents among them, make the second caption.
    """
    folder = Path(folder)
    out = []
    for part in ("dev", "eval"):
        path = folder / "FSD50K.ground_truth" / f"{part}.csv"
        if not path.is_file():
            continue
        about = folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
        facts = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
        for line in table(path, ("fname", "labels", *(["split"] if part == "dev" else []))):
            names = [words(label) for label in line["labels"].split(",")]
            known = facts.get(line["fname"], {})
            out.append(
                Row(
                    str(inside(folder / f"FSD50K.{part}_audio", f"{line['fname']}.wav")),
                    tuple(dict.fromkeys((f"the sound of {names[0]}", f"sounds of {listing(names[:3])}"))),
                    labels=tuple(names),
                    split=line["split"] if part == "dev" else "test",
                    licence=licence(known.get("license", "")),
                    source="fsd50k",
                    author=known.get("uploader", ""),
                    group=f"freesound/{line['fname']}",
                )
            )
    if not out:
        raise AudioLDMError(f"{folder} holds no FSD50K.ground_truth.", "Pass --from with FSD50K's folder.")
    return out


SEGMENTS = {"balanced_train_segments": "train", "unbalanced_train_segments": "train", "eval_segments": "test"}


def audioset(folder: str | Path, audio: str | Path | None = None, *, val: float = 0.02) -> list[Row]:
    """AudioSet (Gemmeke et al. 2017): *_segments.csv and class_labels_indices.csv; class names become captions.

    Only clips whose sound is there are listed: hardly anyone has all two million.
    """
    folder = Path(folder)
    names = {
        line["mid"]: words(line["display_name"])
        for line in table(folder / "class_labels_indices.csv", ("mid", "display_name"))
    }
    sounds = Sounds(audio or folder)
    lists = [
        (split, folder / f"{stem}.csv")
        for stem, split in SEGMENTS.items()
        if (folder / f"{stem}.csv").is_file()
    ]
    if not lists:
        raise AudioLDMError(f"{folder} holds no *_segments.csv.", "Pass --from with AudioSet's lists.")
    out = []
    for split, path in lists:
        for video, start, end, mids in segments(path):
            place = sounds.find(*youtube_names(video, start, end))
            if place is None:
                continue
            labels = [names[mid] for mid in mids if mid in names]
            group = f"youtube/{video}"
            out.append(
                Row(
                    str(place),
                    tuple(dict.fromkeys((listing(labels), f"the sound of {listing(labels)}")))
                    if labels
                    else (),
                    labels=tuple(labels),
                    split=split if split == "test" else split_of(group, val=val, test=0.0),
                    licence=YOUTUBE,
                    source="audioset",
                    author=f"https://youtu.be/{video}",
                    group=group,
                )
            )
    if not out:
        raise AudioLDMError(
            f"None of AudioSet's clips is below {sounds.folders[0]}.",
            "Pass --audio with the folder of the sounds.",
        )
    return out


def segments(path: Path) -> list[tuple[str, float, float, list[str]]]:
    """(video, start, end, class ids) of each line: three lines of remarks, then `id, start, end, "class,class"`."""
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            try:
                video, start, end, mids = line.split(", ", 3)
                out.append((video, float(start), float(end), mids.strip().strip('"').split(",")))
            except ValueError:
                raise AudioLDMError(
                    f"{path}:{number} is no segment: {line[:60]!r}.",
                    'Lines read `id, start, end, "classes"`.',
                ) from None
    return out
