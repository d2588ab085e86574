"""Data sets with written captions: AudioCaps, Clotho, WavCaps, MACS, MusicCaps, from their authors' files."""

import ast
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare import shared
from audioldm.datasets.prepare.shared import AnyPath, Findings, Sounds, rows_of, table, youtube_row
from audioldm.datasets.prepare.youtube import Clip
from audioldm.errors import AudioLDMError
from audioldm.tables import Record, texts_of


def audiocaps(folder: AnyPath, *, audio: AnyPath | None = None, findings: Findings = None) -> list[Row]:
    """AudioCaps 1.0 or 2.0: ten-second clips from YouTube (train.csv, val.csv and test.csv; Kim et al. 2019).

    The captions of one clip are one row.  A clip whose video also is in another split's list belongs to the later of
    train, val and test.
    """
    sounds, clips, splits = Sounds(audio or folder), dict[tuple[str, str], dict[str, Any]](), dict[str, str]()
    need = ("audiocap_id", "youtube_id", "start_time", "caption")
    for split, path in shared.by_split(
        Path(folder), {f"{name}.csv": name for name in ("train", "val", "test")}
    ):
        for record in table(path, need, findings, text=("caption",)):
            line = record.cells
            if lost := [name for name in need if name not in line]:
                shared.note(findings, record.where, f"no {lost[0]}")
                continue
            key = video, start = line["youtube_id"], line["start_time"]
            clip = clips.setdefault(
                key, {"where": record.where, "video": video, "start": start, "captions": [], "ids": []}
            )
            clip["captions"] += texts_of(line["caption"])
            clip["ids"].append(line["audiocap_id"])
            splits[video] = split

    def row(clip: dict[str, Any]) -> Row:
        video, captions = clip["video"], tuple(dict.fromkeys(clip["captions"]))
        place = sounds.place(*shared.youtube_names(video, float(clip["start"])), *clip["ids"])
        return youtube_row(place, video, captions, split=splits[video], source="audiocaps")

    return rows_of((Record(clip["where"], clip) for clip in clips.values()), row, findings)


def clips(rows: Sequence[Row]) -> list[Clip]:
    """The clips to fetch from YouTube: those of rows whose sound is not there."""
    lost = [Path(row.path).name.rsplit("_", 1) for row in rows if not Path(row.path).is_file()]
    return [Clip(video, float(start), shared.CLIP_SECONDS) for video, start in lost]


CLOTHO_SPLITS = {"development": "train", "validation": "val", "evaluation": "test"}


def clotho(folder: AnyPath, *, findings: Findings = None) -> list[Row]:
    """Clotho v2: 15 to 30 s with five captions each (Zenodo 4783391, unpacked; Drossos et al. 2020)."""
    folder, out = Path(folder), list[Row]()

    def row(line: dict[str, str], facts: dict[str, dict[str, str]], sounds: Sounds, split: str) -> Row:
        file = line["file_name"]
        fact = facts.get(file, {})
        number, labels = fact.get("sound_id", ""), map(str.strip, fact.get("keywords", "").split(";"))
        captions = dict.fromkeys(texts_of([line.get(f"caption_{i}") for i in range(1, 6)]))
        return Row(
            sounds.place(file), tuple(captions), tuple(filter(None, labels)), split=split, source="clotho",
            licence=shared.licence(fact.get("license", "")), author=fact.get("manufacturer", ""),
            group=f"freesound/{number}" if number.isdigit() else f"clotho/{file}",
        )  # fmt: skip

    for name, split in CLOTHO_SPLITS.items():
        for captions in sorted(folder.rglob(f"clotho_captions_{name}.csv"))[:1]:
            places = sorted(folder.rglob(f"*{name}*/")) or [folder]
            facts = clotho_facts(folder, name, findings)
            make = partial(row, split=split, sounds=Sounds(*places), facts=facts)
            out += rows_of(table(captions, ("file_name", "caption_1"), findings), make, findings)
    if not out:
        raise AudioLDMError(f"{folder} holds no clotho_captions_*.csv.", "Name Clotho's folder.")
    return out


def clotho_facts(folder: Path, name: str, findings: Findings) -> dict[str, dict[str, str]]:
    """What Clotho's table of metadata says of each file of a split."""
    about = sorted(folder.rglob(f"clotho_metadata_{name}.csv"))[:1]
    facts = [line.cells for path in about for line in table(path, ("file_name",), findings)]
    return {fact.get("file_name", ""): fact for fact in facts}


WAVCAPS = {
    "as_final": ("AudioSet_SL", "youtube/", "Y"),
    "bbc_final": ("BBC_Sound_Effects", "wavcaps/BBC_Sound_Effects/", ""),
    "fsd_final": ("FreeSound", "freesound/", ""),
    "sb_final": ("SoundBible", "wavcaps/SoundBible/", ""),
}
"""name of a list of WavCaps -> the part it lists, how its groups begin, and the letter before the id of each clip"""


def wavcaps(
    folder: AnyPath, *, audio: AnyPath | None = None, exclude: Sequence[AnyPath] = (), val: float = 0.02,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """WavCaps: 400,000 clips from Freesound, the BBC, SoundBible and AudioSet (json_files; Mei et al. 2023).

    The captions are a language model's.  FLAC files are named by id.  ``exclude``: the authors' blacklists of clips
    that are in the test sets of other data sets.
    """
    lists = [path for path in sorted(Path(folder).rglob("*_final.json")) if path.stem in WAVCAPS]
    if not lists:
        raise AudioLDMError(f"{folder} holds no *_final.json.", "Name the folder that holds json_files.")
    banned = set(map(stem_of, chain.from_iterable(map(blacklist, map(Path, exclude)))))
    sounds = Sounds(audio or folder)

    def row(item: dict[str, Any], name: str, prefix: str, letter: str) -> Row | None:
        stem = stem_of(str(item["id"]))
        group = prefix + stem.removeprefix(letter)
        return None if stem in banned else Row(
            sounds.place(stem), texts_of(item["caption"]), split=split_of(group, val=val, test=0.0),
            licence="WavCaps: academic use", source=f"wavcaps/{name}", group=group,
            author=str(item.get("author") or item.get("href") or ""),
        )  # fmt: skip

    out = list[Row]()
    for path in lists:
        name, prefix, letter = WAVCAPS[path.stem]
        records = shared.items(path, shared.content_of(path), "data")
        out += rows_of(records, partial(row, name=name, prefix=prefix, letter=letter), findings)
    return out


def stem_of(name: str) -> str:
    """An id of WavCaps without its ending."""
    return name.removesuffix(".wav").removesuffix(".flac")


def blacklist(path: Path) -> list[str]:
    """Every id in a blacklist: a JSON list, or lists under the parts' names."""
    if not path.is_file():
        raise AudioLDMError(f"There is no list {path}.", "Pass --exclude with one of WavCaps' blacklists.")
    content = shared.content_of(path)
    lists = content.values() if isinstance(content, dict) else [content]
    return [str(name) for names in lists if isinstance(names, list) for name in names]


def macs(
    folder: AnyPath, *, audio: AnyPath | None = None, val: float = 0.1, test: float = 0.1,
    findings: Findings = None,
) -> list[Row]:  # fmt: skip
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
        notes, group = item["annotations"], "macs/" + "-".join(item["filename"].split("-")[:3])
        return Row(
            sounds.place(item["filename"]), tuple(dict.fromkeys(note["sentence"].strip() for note in notes)),
            tuple(dict.fromkeys(tag for note in notes for tag in note.get("tags", []))), group=group, source="macs",
            split=split_of(group, val=val, test=test), licence="TAU: non-commercial", author="Tampere University",
        )  # fmt: skip

    return rows_of(shared.items(path, shared.content_of(path, yaml.safe_load), "files"), row, findings)


def musiccaps(
    folder: AnyPath, *, audio: AnyPath | None = None, val: float = 0.1, findings: Findings = None
) -> list[Row]:
    """MusicCaps: ten-second clips of music from YouTube (musiccaps-public.csv; Agostinelli et al. 2023).

    Described by musicians.  AudioSet's evaluation clips are the test set.
    """
    sounds = Sounds(audio or folder)

    def row(line: dict[str, str]) -> Row:
        video, test = line["ytid"], line["is_audioset_eval"] == "True"
        place = sounds.place(*shared.youtube_names(video, float(line["start_s"]), float(line["end_s"])))
        split = "test" if test else split_of(f"youtube/{video}", val=val, test=0.0)
        labels, captions = tuple(ast.literal_eval(line["aspect_list"])), texts_of(line["caption"])
        return youtube_row(place, video, captions, labels=labels, split=split, source="musiccaps")

    need = ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval")
    return rows_of(table(Path(folder) / "musiccaps-public.csv", need, findings), row, findings)
