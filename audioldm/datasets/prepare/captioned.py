"""Data sets with written captions: AudioCaps, Clotho, WavCaps, MACS, MusicCaps, from their authors' files."""

import ast
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare.tables import Sounds, licence, table, texts
from audioldm.datasets.prepare.youtube import Clip
from audioldm.errors import AudioLDMError

YOUTUBE = "YouTube (none stated)"
"""The licence of a clip from YouTube: the lists say nothing about the rights of the sound."""
CLIP_SECONDS = 10


def youtube_names(video: str, start: float, end: float | None = None) -> list[str]:
    """The file names (without ending) that are in use for a clip of a video.

    >>> youtube_names("abc", 30)[:4]
    ['abc_30', 'Yabc_30', 'abc', 'Yabc']
    """
    stop = start + CLIP_SECONDS if end is None else end
    whole = [f"{video}_{start:g}", f"Y{video}_{start:g}", video, f"Y{video}"]
    spans = (
        f"{start:g}_{stop:g}",
        f"{start:.3f}_{stop:.3f}",
        f"{start * 1000:g}_{stop * 1000:g}",
        f"{start * 1000:.0f}_{stop * 1000:.0f}",
    )
    return whole + [f"{prefix}{video}_{span}" for span in spans for prefix in ("", "Y")]


def audiocaps(folder: str | Path, audio: str | Path | None = None) -> list[Row]:
    """AudioCaps 1.0 or 2.0: train.csv, val.csv and test.csv (Kim et al. 2019); the captions of one clip are one row.

    A clip whose video also is in another split's list belongs to the later of train, val and test.
    """
    folder = Path(folder)
    sounds = Sounds(audio or folder)
    clips: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: {"captions": [], "ids": []})
    split_of_video: dict[str, str] = {}
    found = [
        (split, folder / f"{split}.csv")
        for split in ("train", "val", "test")
        if (folder / f"{split}.csv").is_file()
    ]
    if not found:
        raise AudioLDMError(
            f"{folder} holds no train.csv, val.csv or test.csv.",
            "Pass --from with AudioCaps' dataset folder.",
        )
    for split, path in found:
        for line in table(path, ("audiocap_id", "youtube_id", "start_time", "caption")):
            clip = clips[line["youtube_id"], line["start_time"]]
            clip["captions"].append(line["caption"])
            clip["ids"].append(line["audiocap_id"])
            split_of_video[line["youtube_id"]] = split
    out = []
    for (video, start), clip in clips.items():
        names = [*youtube_names(video, float(start)), *clip["ids"]]
        out.append(
            Row(
                sounds.place(*names),
                tuple(dict.fromkeys(clip["captions"])),
                split=split_of_video[video],
                licence=YOUTUBE,
                source="audiocaps",
                author=f"https://youtu.be/{video}",
                group=f"youtube/{video}",
            )
        )
    return out


def clips(rows: Sequence[Row]) -> list[Clip]:
    """The clips to fetch from YouTube: those of rows whose sound is not there."""
    out = []
    for row in rows:
        video, start = Path(row.path).name.rsplit("_", 1) if not Path(row.path).is_file() else ("", "")
        if video:
            out.append(Clip(video, float(start), CLIP_SECONDS))
    return out


CLOTHO_SPLITS = {"development": "train", "validation": "val", "evaluation": "test"}


def clotho(folder: str | Path) -> list[Row]:
    """Clotho v2 (Drossos et al. 2020): clotho_captions_SPLIT.csv, clotho_metadata_SPLIT.csv, a folder of each split."""
    folder = Path(folder)
    out = []
    for name, split in CLOTHO_SPLITS.items():
        captions = next(iter(sorted(folder.rglob(f"clotho_captions_{name}.csv"))), None)
        if captions is None:
            continue
        about = next(iter(sorted(folder.rglob(f"clotho_metadata_{name}.csv"))), None)
        known = {line["file_name"]: line for line in table(about, ("file_name",))} if about else {}
        places = [path for path in sorted(folder.rglob("*")) if path.is_dir() and name in path.name]
        sounds = Sounds(*(places or [folder]))
        for line in table(captions, ("file_name", "caption_1")):
            facts = known.get(line["file_name"], {})
            freesound = facts.get("sound_id", "") if facts.get("sound_id", "").isdigit() else ""
            out.append(
                Row(
                    sounds.place(line["file_name"]),
                    texts(line, [f"caption_{i}" for i in range(1, 6)]),
                    labels=tuple(
                        word.strip() for word in facts.get("keywords", "").split(";") if word.strip()
                    ),
                    split=split,
                    licence=licence(facts.get("license", "")),
                    source="clotho",
                    author=facts.get("manufacturer", ""),
                    group=f"freesound/{freesound}" if freesound else f"clotho/{line['file_name']}",
                )
            )
    if not out:
        raise AudioLDMError(f"{folder} holds no clotho_captions_*.csv.", "Pass --from with Clotho's folder.")
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
    audio: str | Path | None = None,
    *,
    exclude: Sequence[str | Path] = (),
    val: float = 0.02,
) -> list[Row]:
    """WavCaps (Mei et al. 2023): json_files/PART/*_final.json with FLAC files named by id.

    ``exclude``: the authors' blacklists of clips that are in the test sets of other data sets.
    """
    folder = Path(folder)
    lists = [path for path in sorted(folder.rglob("*_final.json")) if path.stem in WAVCAPS]
    if not lists:
        raise AudioLDMError(
            f"{folder} holds no *_final.json.", "Pass --from with the folder that holds json_files."
        )
    banned = {
        str(name).removesuffix(".wav").removesuffix(".flac")
        for path in exclude
        for name in _names(Path(path))
    }
    sounds = Sounds(audio or folder)
    out = []
    for path in lists:
        part = WAVCAPS[path.stem]
        for item in json.loads(path.read_text(encoding="utf-8"))["data"]:
            stem = str(item["id"]).removesuffix(".wav").removesuffix(".flac")
            if stem in banned:
                continue
            video = stem.removeprefix("Y") if part == "AudioSet_SL" else ""
            group = (
                f"youtube/{video}"
                if video
                else f"freesound/{stem}"
                if part == "FreeSound"
                else f"wavcaps/{part}/{stem}"
            )
            out.append(
                Row(
                    sounds.place(stem),
                    (item["caption"].strip(),),
                    split=split_of(group, val=val, test=0.0),
                    licence="WavCaps: academic use",
                    source=f"wavcaps/{part}",
                    author=str(item.get("author") or item.get("href") or ""),
                    group=group,
                )
            )
    return out


def _names(path: Path) -> list[str]:
    """Every id in a blacklist: a JSON list, or lists under the parts' names."""
    if not path.is_file():
        raise AudioLDMError(f"There is no list {path}.", "Pass --exclude with one of WavCaps' blacklists.")
    found = json.loads(path.read_text(encoding="utf-8"))
    lists = found.values() if isinstance(found, dict) else [found]
    return [str(name) for names in lists for name in names]


def macs(
    folder: str | Path, audio: str | Path | None = None, *, val: float = 0.1, test: float = 0.1
) -> list[Row]:
    """MACS (Martín-Morató and Mesaros 2021): MACS.yaml over the sounds of TAU Urban Acoustic Scenes 2019.

    Two to five captions a clip.   A place's recordings share a split: "airport-oslo-0-1-a.wav" is of "airport-oslo-0".
    """
    import yaml

    path = Path(folder) / "MACS.yaml"
    if not path.is_file():
        raise AudioLDMError(f"There is no {path}.", "Pass --from with the folder that holds MACS.yaml.")
    sounds = Sounds(audio or folder)
    out = []
    for item in yaml.safe_load(path.read_text(encoding="utf-8"))["files"]:
        notes = item["annotations"]
        group = "macs/" + "-".join(item["filename"].split("-")[:3])
        out.append(
            Row(
                sounds.place(item["filename"]),
                tuple(dict.fromkeys(note["sentence"].strip() for note in notes)),
                labels=tuple(dict.fromkeys(tag for note in notes for tag in note.get("tags", []))),
                split=split_of(group, val=val, test=test),
                licence="TAU: non-commercial",
                source="macs",
                author="Tampere University",
                group=group,
            )
        )
    return out


def musiccaps(folder: str | Path, audio: str | Path | None = None, *, val: float = 0.1) -> list[Row]:
    """MusicCaps (Agostinelli et al. 2023): musiccaps-public.csv; AudioSet's evaluation clips are the test set."""
    folder = Path(folder)
    sounds = Sounds(audio or folder)
    out = []
    for line in table(
        folder / "musiccaps-public.csv",
        ("ytid", "start_s", "end_s", "aspect_list", "caption", "is_audioset_eval"),
    ):
        group = f"youtube/{line['ytid']}"
        names = youtube_names(line["ytid"], float(line["start_s"]), float(line["end_s"]))
        test = line["is_audioset_eval"] == "True"
        out.append(
            Row(
                sounds.place(*names),
                (line["caption"],),
                labels=tuple(ast.literal_eval(line["aspect_list"])),
                split="test" if test else split_of(group, val=val, test=0.0),
                licence=YOUTUBE,
                source="musiccaps",
                author=f"https://youtu.be/{line['ytid']}",
                group=group,
            )
        )
    return out
