"""Sounds packed with their captions: parquet files, WebDataset tars and anything that the library `datasets` opens.

Each sound's bytes become one file named by their hash; the same sound with several captions is one row.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from audioldm.datasets.decode import FOREIGN, SUFFIXES
from audioldm.datasets.manifest import Row, split_of
from audioldm.datasets.prepare.shared import SPLIT_NAMES, WRONG, AnyPath, Findings, merged, note
from audioldm.datasets.shards import DAMAGE, read_tar
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, write_bytes
from audioldm.tables import is_text, lines, read_text, texts_of

CAPTIONS = ("captions", "caption", "text", "raw_text", *(f"caption_{i}" for i in range(1, 6)))
LABELS = ("labels", "label", "category", "class", "tags")
GROUPS = ("group", "youtube_id", "ytid", "sound_id", "freesound_id")
HEAD = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff", b"\xff": ".mp3"}
NO_SOUND = "no sound in this row"
BATCH = 16  # parquet rows in memory at once


class Sample(NamedTuple):
    """One packed sound: where it was (for messages), its bytes, every field beside it, and why there is no sound."""

    where: str
    audio: Any
    fields: Mapping[str, Any] = {}
    split: str = ""
    fault: str = NO_SOUND

    def texts(self, names: Sequence[str]) -> tuple[str, ...]:
        cells = [self.fields.get(name) for name in names]
        values = [item for cell in cells for item in (cell if isinstance(cell, list | tuple) else [cell])]
        return tuple(dict.fromkeys(texts_of([item for item in values if is_text(item)])))

    def first(self, *names: str, default: str = "") -> str:
        return next((str(self.fields[name]) for name in names if self.fields.get(name)), default)


def tar_rows(
    *tars: AnyPath, to: AnyPath = "data/raw/webdataset", source: str = "webdataset", **shared: Any
) -> list[Row]:
    """WebDataset shards: tars whose members share a name, such as 000.flac and 000.txt or 000.json."""
    return unpack(webdataset(tars), to, source=source, **shared)


def datasets_rows(
    name: AnyPath, *, to: AnyPath = "", audio_column: str = "audio", source: str = "", **shared: Any
) -> list[Row]:
    """Parquet files, or what else the library `datasets` opens: a saved or audio folder, a repository of the hub."""
    to = to or (Path(name) / "sounds" if Path(name).is_dir() else "data/raw/datasets")
    return unpack(opened(str(name), audio_column), to, source=source or Path(name).stem, **shared)


def unpack(
    samples: Iterable[Sample], folder: AnyPath, *, source: str, licence: str = "", author: str = "",
    caption_column: str = "", val: float = 0.1, test: float = 0.1, findings: Findings = None,
) -> list[Row]:  # fmt: skip
    """Write each sound below ``folder`` and give its row; a sample without a sound is a finding.

    A split that the samples name wins; else it follows from the hash of the recording (or of the bytes).
    """
    folder, rows = Path(folder).absolute(), list[Row]()
    for sample in samples:
        if not (sample.audio and isinstance(sample.audio, bytes)):
            note(findings, sample.where, sample.fault, "missing")
            continue
        digest = hashlib.sha256(sample.audio).hexdigest()
        path = store(sample.audio, folder, digest[:32])
        group = f"{source}/{sample.first(*GROUPS, default=digest)}"
        split = sample.first("split", default=sample.split).lower()
        rows.append(Row(
            str(path), sample.texts([caption_column] if caption_column else CAPTIONS), sample.texts(LABELS),
            source=source, group=group, split=SPLIT_NAMES.get(split, split_of(group, val=val, test=test)),
            author=sample.first("author", default=author),
            licence=sample.first("licence", "license", default=licence),
        ))  # fmt: skip
    if not rows:
        why = "; ".join([f"{source} has no sounds", *map(str, findings or [])][:2])
        raise AudioLDMError(f"{why}.", "Is there a column or member with audio?", code=1)
    return merged(rows)


def store(audio: bytes, folder: Path, name: str) -> Path:
    """The file of a sound, with the ending of its kind; written unless it is there."""
    ending = next((suffix for head, suffix in HEAD.items() if audio.startswith(head)), ".bin")
    path = folder / f"{name}{ending}"
    if not path.is_file() or path.stat().st_size != len(audio):
        write_bytes(path, audio)
    return path


def webdataset(paths: Sequence[AnyPath]) -> Iterator[Sample]:
    """A sample for each sound of a key of tars, with captions in its .txt or .json; a last one names a damaged tar."""
    for path in map(Path, paths):
        try:
            for parts in read_tar(path):
                where = f"{path}!{parts['__key__']}"
                try:
                    about = json.loads(read_text(parts.get("json", b"{}"), f"{where}.json"))
                    texts = lines(read_text(parts.get("txt", b""), f"{where}.txt"))
                    fields = {"captions": texts, **(about if isinstance(about, dict) else {})}
                except WRONG as error:
                    yield Sample(where, None, fault=str(error))
                    continue
                sounds = [part for kind, part in parts.items() if f".{kind}" in SUFFIXES + FOREIGN]
                yield from map(partial(Sample, where, fields=fields), sounds or [b""])
        except DAMAGE as error:
            yield Sample(str(path), None, fault=f"this tar is damaged: {str(error).splitlines()[0]}")


def opened(name: str, column: str) -> Iterator[Sample]:
    """The rows of parquet files, else every split of what `datasets` opens by this name; the last names its damage."""
    datasets, place = needed("datasets"), Path(name)
    files = [place] if place.is_file() else sorted(place.rglob("*.parquet"))
    packed = partial(datasets.load_dataset, "parquet", split="train", streaming=True, batch_size=BATCH)
    saved = any((place / f"dataset_{kind}.json").is_file() for kind in ("info", "dict"))
    whole = partial(datasets.load_from_disk if saved else datasets.load_dataset, name)
    cache = place if place.is_dir() else Path(datasets.config.HF_CACHE_HOME)
    loads = {file: partial(packed, data_files=str(file)) for file in files} or {Path(name): whole}
    for file, load in loads.items():
        kind = file.name.split("-")[0]
        kind = kind if kind in SPLIT_NAMES else file.parent.name
        try:
            splits = load()
            if not isinstance(splits, dict):
                splits = {kind if files else str(splits.split): splits}
            for split, part in splits.items():
                yield from rows_in(part, f"{file}:{split}", column, split, file.parent if files else cache)
        except AudioLDMError:
            raise
        except Exception as error:  # the library raises whatever its readers raise
            yield Sample(str(file), None, fault=f"`datasets` cannot open it: {error}")


def rows_in(part: Any, where: str, column: str, split: str, folder: Path) -> Iterator[Sample]:
    """The rows of one split; a sound that a row only names is read below ``folder``."""
    datasets = needed("datasets")
    if column not in part.column_names:
        what = f"{where} has no column {column!r}; it has {list(part.column_names)}."
        raise AudioLDMError(what, "Name it with --audio-column.")
    part = part.cast_column(column, datasets.Audio(decode=False))
    names = {key: kind for key, kind in part.features.items() if isinstance(kind, datasets.ClassLabel)}
    for number, line in enumerate(part):
        line |= {key: kind.int2str(line[key]) for key, kind in names.items() if line[key] is not None}
        (path, audio), fault = map(line.pop(column).get, ("path", "bytes")), NO_SOUND
        if audio is None and path:
            path = os.path.relpath(folder.absolute() / path, folder.absolute())
            try:
                audio = inside(folder, path, where=where).read_bytes()
            except (AudioLDMError, OSError) as error:
                fault = str(error)
        yield Sample(f"{where}:{number}", audio, line, split, fault)


def needed(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        raise AudioLDMError(f"{name} is not installed.", 'Run: pip install "audioldm[data]"') from error
