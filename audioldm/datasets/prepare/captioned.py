"""Data sets with written captions: AudioCaps, Clotho, WavCaps, MACS, MusicCaps, from their authors' files."""

import ast
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare.shared import (
    CLIP_SECONDS,
    YOUTUBE,
    Findings,
    Sounds,
    items,
    licence,
    note,
    rows_of,
    table,
    texts,
    youtube_names,
)
from audioldm.datasets.prepare.youtube import Clip
from audioldm.errors import AudioLDMError
from audioldm.tables import read_text, texts_of


def audiocaps(
    folder: str | Path, *, audio: str | Path | None = None, findings: Findings | None = None
) -> list[Row]:
    """AudioCaps 1.0 or 2.0: ten-second clips from YouTube (train.csv, val.csv and test.csv; Kim et al. 2019).

    The captions of one clip are one row.  A clip whose video also is in another split's list belongs to the later of
    train, val and test.
    """
    folder, sounds = Path(folder), Sounds(audio or folder)
    clips: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: {"captions": [], "ids": []})
    split_of_video: dict[str, str] = {}
    lists = [(split, folder / f"{split}.csv") for split in ("train", "val", "test")]
    lists = [(split, path) for split, path in lists if path.is_file()]
    if not lists:
        raise AudioLDMError(
            f"{folder} holds no train.csv, val.csv or test.csv.", "Name AudioCaps' dataset folder."
        )
    for split, path in lists:
        need = ("audiocap_id", "youtube_id", "start_time", "caption")
        for record in table(path, need, findings, text="caption"):
            line = record.cells
            if lost := [name for name in need if name not in line]:
                note(findings, record.where, f"no {lost[0]}")
                continue
            clip = clips[line["youtube_id"], line["start_time"]]
            clip["captions"] += texts_of(line["caption"])
            clip["ids"].append(line["audiocap_id"])
            split_of_video[line["youtube_id"]] = split
    out = []
    for (video, start), clip in clips.items():
        try:
            place = sounds.place(*youtube_names(video, float(start)), *clip["ids"])
        except (ValueError, AudioLDMError) as error:
            note(findings, f"{folder}: {video}", str(error))
            continue
        out.append(
            Row(
                place, tuple(dict.fromkeys(clip["captions"])), split=split_of_video[video], licence=YOUTUBE,
                source="audiocaps", author=f"https://youtu.be/{video}", group=f"youtube/{video}",
            )
        )  # fmt: skip
    return out


def clips(rows: Sequence[Row]) -> list[Clip]:
    """The clips to fetch from YouTube: those of rows whose sound is not there."""
    lost = [Path(row.path).name.rsplit("_", 1) for row in rows if not Path(row.path).is_file()]
    return [Clip(video, float(start), CLIP_SECONDS) for video, start in lost]


CLOTHO_SPLITS = {"development": "train", "validation": "val", "evaluation": "test"}


def clotho(folder: str | Path, *, findings: Findings | None = None) -> list[Row]:
    """Clotho v2: 15 to 30 s with five captions each (Zenodo 4783391, unpacked; Drossos et al. 2020)."""
    folder, out = Path(folder), list[Row]()
    for name, split in CLOTHO_SPLITS.items():
        captions = next(iter(sorted(folder.rglob(f"clotho_captions_{name}.csv"))), None)
        if captions is None:
            continue
        about = next(iter(sorted(folder.rglob(f"clotho_metadata_{name}.csv"))), None)
        facts = table(about, ("file_name",), findings) if about else []
        known = {record.cells["file_name"]: record.cells for record in facts if "file_name" in record.cells}
        places = [path for path in sorted(folder.rglob("*")) if path.is_dir() and name in path.name]
        sounds = Sounds(*(places or [folder]))

        def row(line: dict[str, str], split: str = split, sounds: Sounds = sounds, known: Any = known) -> Row:
            fact = known.get(line["file_name"], {})
            freesound = fact.get("sound_id", "") if fact.get("sound_id", "").isdigit() else ""
            labels = (word.strip() for word in fact.get("keywords", "").split(";"))
            return Row(
                sounds.place(line["file_name"]), texts(line, [f"caption_{i}" for i in range(1, 6)]),
                labels=tuple(filter(None, labels)), split=split, licence=licence(fact.get("license", "")),
                source="clotho", author=fact.get("manufacturer", ""),
                group=f"freesound/{freesound}" if freesound else f"clotho/{line['file_name']}",
            )  # fmt: skip

        out += rows_of(table(captions, ("file_name", "caption_1"), findings), row, findings)
    if not out:
        raise AudioLDMError(f"{folder} holds no clotho_captions_*.csv.", "Name Clotho's folder.")
    return out


WAVCAPS = {
    "as_final": "AudioSet_SL",
    "bbc_final": "BBC_Sound_Effects",
    "fsd_final": "FreeSound",
    "sb_final": "SoundBible",
}
"""name of a list of WavCaps -> the part it lists"""


def wavcaps(
    folder: str | Path,
    *,
    audio: str | Path | None = None,
    exclude: Sequence[str | Path] = (),
    val: float = 0.02,
    findings: Findings | None = None,
) -> list[Row]:
    """WavCaps: 400,000 clips from Freesound, the BBC, SoundBible and AudioSet (json_files; Mei et al. 2023).

    The captions are a language model's.  FLAC files are named by id.  ``exclude``: the authors' blacklists of clips
    that are in the test sets of other data sets.
    """
    folder = Path(folder)
    lists = [path for path in sorted(folder.rglob("*_final.json")) if path.stem in WAVCAPS]
    if not lists:
        raise AudioLDMError(f"{folder} holds no *_final.json.", "Name the folder that holds json_files.")
    banned = {stem_of(name) for path in exclude for name in _names(Path(path))}
    sounds, out = Sounds(audio or folder), list[Row]()
    for path in lists:
        part = WAVCAPS[path.stem]

        def row(item: dict[str, Any], part: str = part) -> Row | None:
            stem = stem_of(str(item["id"]))
            if stem in banned:
                return None
            group = f"wavcaps/{part}/{stem}"
            if part == "AudioSet_SL":
                group = f"youtube/{stem.removeprefix('Y')}"
            elif part == "FreeSound":
                group = f"freesound/{stem}"
            return Row(
                sounds.place(stem), texts_of(item["caption"]), split=split_of(group, val=val, test=0.0),
                licence="WavCaps: academic use", source=f"wavcaps/{part}", group=group,
                author=str(item.get("author") or item.get("href") or ""),
            )  # fmt: skip

        out += rows_of(items(path, json.loads(read_text(path))["data"]), row, findings)
    return out


def stem_of(name: str) -> str:
    """An id of WavCaps without its ending."""
    return name.removesuffix(".wav").removesuffix(".flac")


def _names(path: Path) -> list[str]:
    """Every id in a blacklist: a JSON list, or lists under the parts' names."""
    if not path.is_file():
        raise AudioLDMError(f"There is no list {path}.", "Pass --exclude with one of WavCaps' blacklists.")
    content = json.loads(read_text(path))
    lists = content.values() if isinstance(content, dict) else [content]
    return [str(name) for names in lists for name in names]


def macs(
    folder: str | Path,
    *,
    audio: str | Path | None = None,
    val: float = 0.1,
    test: float = 0.1,
    findings: Findings | None = None,
) -> list[Row]:
    """MACS: urban scenes of 10 s with two to five captions (MACS.yaml; Martín-Morató and Mesaros 2021).

    The sounds are TAU Urban Acoustic Scenes 2019.  A place's recordings share a split: "airport-oslo-0-1-a.wav" is of
    "airport-oslo-0".
    """
    import yaml  # type: ignore[import-untyped]

    path = Path(folder) / "MACS.yaml"
    if not path.is_file():
        raise AudioLDMError(f"There is no {path}.", "Name the folder that holds MACS.yaml.")
    sounds = Sounds(audio or folder)

    def row(item: dict[str, Any]) -> Row:
        notes = item["annotations"]
        group = "macs/" + "-".join(item["filename"].split("-")[:3])
        return Row(
            sounds.place(item["filename"]), tuple(dict.fromkeys(note["sentence"].strip() for note in notes)),
            labels=tuple(dict.fromkeys(tag for note in notes for tag in note.get("tags", []))),
            split=split_of(group, val=val, test=test), licence="TAU: non-commercial", source="macs",
            author="Tampere University", group=group,
        )  # fmt: skip

    return list(rows_of(items(path, yaml.safe_load(read_text(path))["files"]), row, findings))


def musiccaps(
    folder: str | Path,
    *,
    audio: str | Path | None = None,
    val: float = 0.1,
    findings: Findings | None = None,
) -> list[Row]:
    """MusicCaps: ten-second clips of music from YouTube (musiccaps-public.csv; Agostinelli et al. 2023).

    Described by musicians.  AudioSet's evaluation clips are the test set.
    """
    sounds = Sounds(audio or folder)

    def row(line: dict[str, str]) -> Row:
        group = f"youtube/{line['ytid']}"
        names = youtube_names(line["ytid"], float(line["start_s"]), float(line["end_s"]))
        test = line["is_audioset_eval"] == "True"
        return Row(
            sounds.place(*names), texts_of(line["caption"]), labels=tuple(ast.literal_eval(line["aspect_list"])),
            split="test" if test else split_of(group, val=val, test=0.0), licence=YOUTUBE, source="musiccaps",
            author=f"https://youtu.be/{line['ytid']}", group=group,
        )  # fmt: skip

    need = ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval")
    return list(rows_of(table(Path(folder) / "musiccaps-public.csv", need, findings), row, findings))
