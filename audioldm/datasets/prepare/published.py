"""Published sets from their authors' files: captions as they wrote them, or phrases for classes.

A class becomes a phrase that holds for every clip of it (``phrases.json``): no place, number, distance or loudness.
"""

import ast
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import SPLITS, Row, split_of
from audioldm.datasets.prepare import shared
from audioldm.datasets.prepare.shared import AnyPath, Findings, Sounds, rows_of, table, words
from audioldm.datasets.prepare.youtube import CLIP_SECONDS
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.tables import Record, filled, lines, read_content, read_text, texts_of

PHRASES: Any = json.loads(Path(__file__).with_name("phrases.json").read_text(encoding="utf-8"))
ESC10: dict[str, tuple[str, ...]] = {name: tuple(texts) for name, texts in PHRASES["esc10"].items()}
ESC10_CLIP = re.compile(r"(?P<fold>\d)-(?P<freesound>\d+)-(?P<take>[A-Z])\.(ogg|wav|flac)")
ESC10_CREDIT = re.compile(r"^- \*\*\[([^\]]+)\].*clip derived from \[.*\]\(.*\) by \*([^*]+)\*")
ESC10_AUTHOR = "ESC-10 by K. J. Piczak"
AGAIN = "Get the file again."
WAVCAPS = {
    "as_final": ("AudioSet_SL", "youtube/", "Y"),
    "bbc_final": ("BBC_Sound_Effects", "wavcaps/BBC_Sound_Effects/", ""),
    "fsd_final": ("FreeSound", "freesound/", ""),
    "sb_final": ("SoundBible", "wavcaps/SoundBible/", ""),
}
"""name of a list of WavCaps -> the part it lists, how its groups begin, and the letter before the id of each clip"""


def youtube_row(
    sounds: Sounds, video: str, start: float, end: float, captions: Sequence[str], *ids: str, **more: Any
) -> Row:
    """A clip of a video, under any name that is in use for it; the lists say nothing about the rights of its sound."""
    ends = [f"_{start:g}", ""]
    for scale, form in ((1, "g"), (1, ".3f"), (1000, "g"), (1000, ".0f")):
        ends.append(f"_{start * scale:{form}}_{end * scale:{form}}")
    names = [f"{prefix}{video}{span}" for span in ends for prefix in ("", "Y")]
    return Row(
        sounds.place(*names, *ids), tuple(captions), licence="YouTube (none stated)",
        author=f"https://youtu.be/{video}", group=f"youtube/{video}", **more,
    )  # fmt: skip


def audiocaps(folder: AnyPath, *, audio: AnyPath | None = None, findings: Findings = None) -> list[Row]:
    """AudioCaps 1.0 or 2.0: ten-second clips from YouTube (train.csv, val.csv and test.csv; Kim et al. 2019).

    The captions of one clip are one row.  A clip whose video also is in another split's list belongs to the later of
    train, val and test.
    """
    sounds, clips, splits = Sounds(audio or folder), dict[tuple[str, str], Record](), dict[str, str]()
    need = ("audiocap_id", "youtube_id", "start_time", "caption")
    for split, path in shared.by_split(Path(folder), {f"{name}.csv": name for name in SPLITS}):
        for record in table(path, need, findings, text=("caption",)):
            if lost := [name for name in need if name not in record.cells]:
                shared.note(findings, record.where, f"no {lost[0]}")
                continue
            number, video, start, caption = [record.cells[name] for name in need]
            empty = Record(record.where, {"video": video, "start": start, "captions": {}, "ids": []})
            clip = clips.setdefault((video, start), empty).cells
            clip["captions"] |= dict.fromkeys(texts_of(caption))
            clip["ids"].append(number)
            splits[video] = split

    def row(clip: dict[str, Any]) -> Row:
        video, start = clip["video"], float(clip["start"])
        end, more = start + CLIP_SECONDS, {"split": splits[video], "source": "audiocaps"}
        return youtube_row(sounds, video, start, end, clip["captions"], *clip["ids"], **more)

    return rows_of(clips.values(), row, findings)


def clotho(folder: AnyPath, *, findings: Findings = None) -> list[Row]:
    """Clotho v2: 15 to 30 s with five captions each (Zenodo 4783391, unpacked; Drossos et al. 2020)."""
    folder, out = Path(folder), list[Row]()

    def row(line: dict[str, str], facts: dict[str, dict[str, str]], sounds: Sounds, split: str) -> Row:
        file = line["file_name"]
        fact = facts.get(file, {})
        number, labels = fact.get("sound_id", ""), map(str.strip, fact.get("keywords", "").split(";"))
        captions = dict.fromkeys(texts_of([*map(line.get, map("caption_{}".format, range(1, 6)))]))
        return Row(
            sounds.place(file), tuple(captions), tuple(filter(None, labels)), split=split, source="clotho",
            licence=shared.licence(fact.get("license", "")), author=fact.get("manufacturer", ""),
            group=f"freesound/{number}" if number.isdigit() else f"clotho/{file}",
        )  # fmt: skip

    for name, split in {"development": "train", "validation": "val", "evaluation": "test"}.items():
        listed, about = (sorted(folder.rglob(f"clotho_{k}_{name}.csv"))[:1] for k in ("captions", "metadata"))
        for path in listed:
            sounds = Sounds(*(sorted(folder.rglob(f"*{name}*/")) or [folder]))
            facts = {
                line.cells.get("file_name", ""): line.cells
                for other in about for line in table(other, ("file_name",), findings)
            }  # fmt: skip
            records = table(path, ("file_name", "caption_1"), findings)
            out += rows_of(records, partial(row, facts=facts, sounds=sounds, split=split), findings)
    return some(out, folder, "clotho_captions_*.csv")


def wavcaps(
    folder: AnyPath, *, audio: AnyPath | None = None, exclude: Sequence[AnyPath] = (), val: float = 0.02,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """WavCaps: 400,000 clips from Freesound, the BBC, SoundBible and AudioSet (json_files; Mei et al. 2023)."""
    lists = [path for path in sorted(Path(folder).rglob("*_final.json")) if path.stem in WAVCAPS]
    banned, sounds, out = set[str]().union(*map(blacklist, exclude)), Sounds(audio or folder), list[Row]()

    def row(item: dict[str, Any], name: str, prefix: str, letter: str) -> Row | None:
        stem = stem_of(item["id"])
        group = prefix + stem.removeprefix(letter)
        return None if stem in banned else Row(
            sounds.place(stem), texts_of(item["caption"]), split=split_of(group, val=val, test=0.0),
            licence="WavCaps: academic use", source=f"wavcaps/{name}", group=group,
            author=str(item.get("author") or item.get("href") or ""),
        )  # fmt: skip

    for path in lists:
        name, prefix, letter = WAVCAPS[path.stem]
        records = shared.items(path, read_content(path, AGAIN), "data")
        out += rows_of(records, partial(row, name=name, prefix=prefix, letter=letter), findings)
    return some(out, folder, "*_final.json")


def stem_of(name: object) -> str:
    return str(name).removesuffix(".wav").removesuffix(".flac")


def blacklist(path: AnyPath) -> set[str]:
    """The clips of WavCaps that are in other sets' test sets: its authors' list, or lists under the parts' names."""
    content = read_content(path, "Pass --exclude with one of WavCaps' blacklists.")
    parts = content.values() if isinstance(content, dict) else [content]
    return {stem_of(name) for names in parts if isinstance(names, list) for name in names}


def macs(
    folder: AnyPath, *, audio: AnyPath | None = None, val: float = 0.1, test: float = 0.1,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """MACS: urban scenes of 10 s with two to five captions (MACS.yaml; Martín-Morató and Mesaros 2021).

    A place's recordings share a split: "airport-oslo-0-1-a.wav" is of "airport-oslo-0".
    """
    import yaml  # type: ignore[import-untyped]

    path, sounds = Path(folder) / "MACS.yaml", Sounds(audio or folder)

    def row(item: dict[str, Any]) -> Row:
        notes, group = item["annotations"], "macs/" + "-".join(item["filename"].split("-")[:3])
        return Row(
            sounds.place(item["filename"]), tuple(dict.fromkeys(note["sentence"].strip() for note in notes)),
            tuple(dict.fromkeys(tag for note in notes for tag in note.get("tags", []))), group=group, source="macs",
            split=split_of(group, val=val, test=test), licence="TAU: non-commercial", author="Tampere University",
        )  # fmt: skip

    content = read_content(path, AGAIN, yaml.safe_load, "YAML")
    return rows_of(shared.items(path, content, "files"), row, findings)


def musiccaps(
    folder: AnyPath, *, audio: AnyPath | None = None, val: float = 0.1, findings: Findings = None
) -> list[Row]:
    """MusicCaps: ten-second clips of music, described by musicians (musiccaps-public.csv; Agostinelli et al. 2023)."""
    sounds = Sounds(audio or folder)

    def row(line: dict[str, str]) -> Row:
        video, start, end = line["ytid"], float(line["start_s"]), float(line["end_s"])
        test, labels = line["is_audioset_eval"] == "True", tuple(ast.literal_eval(line["aspect_list"]))
        split = "test" if test else split_of(f"youtube/{video}", val=val, test=0.0)
        more = {"labels": labels, "split": split, "source": "musiccaps"}
        return youtube_row(sounds, video, start, end, texts_of(line["caption"]), **more)

    need = ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval")
    return rows_of(table(Path(folder) / "musiccaps-public.csv", need, findings), row, findings)


def fold_split(fold: int, test_fold: int, val_fold: int | None) -> str:
    return "test" if fold == test_fold else "val" if fold == val_fold else "train"


def esc10(
    folder: AnyPath, *, test_fold: int = 4, val_fold: int | None = None, val: float = 0.1,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """ESC-10 (CC BY 3.0): 400 clips of 5 s in 10 classes and 5 folds, several captions a class (Piczak 2015).

    One fold is the test set, and either one fold or a share ``val`` of the other folds' recordings is for validation.
    All clips of one Freesound recording share a split.
    """
    folder, out = Path(folder).absolute(), list[Row]()
    credits = folder / "LICENSE-and-attribution.md"
    hits = filter(None, map(ESC10_CREDIT.match, lines(read_text(credits)) if credits.is_file() else ()))
    authors = {hit[1]: f"{hit[2]} (Freesound), {ESC10_AUTHOR}" for hit in hits}
    for path in sorted(folder.glob("[0-9][0-9][0-9] - */*")):
        name, clip = path.parent.name.split(" - ", 1)[1], ESC10_CLIP.fullmatch(path.name)
        if name not in ESC10 or clip is None:
            shared.note(findings, path, "no clip of ESC-10 is called so", strict=False)
            continue
        fold, group = int(clip["fold"]), f"freesound/{clip['freesound']}"
        split = fold_split(fold, test_fold, val_fold)
        out.append(Row(
            str(path), ESC10[name], (name.lower(),), licence="CC-BY-3.0", source="esc10", fold=fold, group=group,
            split=split_of(group, val=val, test=0.0) if split == "train" and val_fold is None else split,
            author=authors.get(path.name, ESC10_AUTHOR),
        ))  # fmt: skip
    return some(out, folder, "'001 - Dog bark' and its neighbours")


def some(rows: list[Row], folder: AnyPath, lists: str) -> list[Row]:
    if not rows:
        raise AudioLDMError(f"{folder} holds no clip by {lists}.", "Name the folder that holds them.")
    return rows


def esc50(folder: AnyPath, *, test_fold: int = 5, val_fold: int = 4, findings: Findings = None) -> list[Row]:
    """ESC-50: 2,000 clips of 5 s in 50 classes (meta/esc50.csv and audio; Piczak 2015)."""
    sounds = Sounds(Path(folder) / "audio")

    def row(line: dict[str, str]) -> Row:
        fold, phrase = int(line["fold"]), PHRASES["esc50"][line["category"]]
        return Row(
            sounds.place(line["filename"]), (phrase, f"the sound of {phrase}"), (words(line["category"]),),
            split=fold_split(fold, test_fold, val_fold), source="esc50", author="ESC-50 by K. J. Piczak", fold=fold,
            licence="CC-BY-3.0" if line["esc10"] == "True" else "CC-BY-NC-3.0", group=f"freesound/{line['src_file']}",
        )  # fmt: skip

    need = ("filename", "fold", "category", "esc10", "src_file")
    return rows_of(table(Path(folder) / "meta" / "esc50.csv", need, findings), row, findings)


def urbansound8k(
    folder: AnyPath, *, test_fold: int = 10, val_fold: int = 9, findings: Findings = None
) -> list[Row]:
    """UrbanSound8K: 8,732 clips of up to 4 s in 10 classes (metadata and audio; Salamon et al. 2014)."""
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
    """FSD50K: 51,000 clips of 200 classes (FSD50K.ground_truth, .metadata, .*_audio; Fonseca et al. 2022).

    A clip's first label is its most specific one; the others, its parents among them, make the second caption.
    """
    folder, out = Path(folder).absolute(), list[Row]()

    def row(line: dict[str, str], part: str, facts: Any) -> Row:
        names, fact = [words(label) for label in line["labels"].split(",")], facts.get(line["fname"], {})
        captions = dict.fromkeys((f"the sound of {names[0]}", f"sounds of {shared.listing(names[:3])}"))
        return Row(
            str(inside(folder / f"FSD50K.{part}_audio", f"{line['fname']}.wav")), tuple(captions), tuple(names),
            split=line["split"] if part == "dev" else "test", licence=shared.licence(fact.get("license", "")),
            source="fsd50k", author=fact.get("uploader", ""), group=f"freesound/{line['fname']}",
        )  # fmt: skip

    for part, path in shared.by_split(folder / "FSD50K.ground_truth", {"dev.csv": "dev", "eval.csv": "eval"}):
        about = folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
        facts = read_content(about, AGAIN) if about.is_file() else {}
        records = table(path, ("fname", "labels", *(["split"] if part == "dev" else [])), findings)
        out += rows_of(records, partial(row, part=part, facts=facts), findings)
    return out


def audioset(
    folder: AnyPath, *, audio: AnyPath | None = None, val: float = 0.02, findings: Findings = None
) -> list[Row]:
    """Clips of AudioSet that are there, by class (*_segments.csv, class_labels_indices.csv; Gemmeke et al. 2017)."""
    classes = table(Path(folder) / "class_labels_indices.csv", ("mid", "display_name"), findings)
    names = {record.cells["mid"]: words(record.cells["display_name"]) for record in classes}
    sounds, out = Sounds(audio or folder), list[Row]()
    lists = {"balanced_train_segments.csv": "train", "unbalanced_train_segments.csv": "train"}

    def row(cells: dict[str, str], split: str) -> Row | None:
        """Of a line such as `video, start, end, "class,class"`, which is no CSV: only its last column is quoted."""
        video, start, end, mids = cells["line"].split(", ", 3)
        labels = [*filter(None, map(names.get, mids.strip().strip('"').split(",")))]
        phrase = shared.listing(labels) if labels else ""
        clip = youtube_row(
            sounds, video, float(start), float(end), (phrase, f"the sound of {phrase}") if labels else (),
            split=split_of(f"youtube/{video}", val=val, test=split == "test"), source="audioset", labels=tuple(labels),
        )  # fmt: skip
        return clip if Path(clip.path).is_file() else None

    for split, path in shared.by_split(Path(folder), {**lists, "eval_segments.csv": "test"}):
        listed = filled(lines(read_text(path)), path)
        records = [Record(f"{path}:{number}", {"line": line}) for number, line in listed if line[0] != "#"]
        out += rows_of(records, partial(row, split=split), findings)
    return some(out, sounds.folders[0], "AudioSet's lists")
