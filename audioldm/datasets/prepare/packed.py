"""Sounds packed with their captions: parquet files, WebDataset tars and anything that the library `datasets` opens.

Each sound's bytes become one file named by their hash, unchanged; the same sound with several captions is one row.
What is there already is not written again, so the same command goes on where it stopped.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import SPLITS, Finding, Row, split_of
from audioldm.datasets.prepare.tables import SUFFIXES
from audioldm.errors import AudioLDMError
from audioldm.paths import inside, write_bytes

CAPTIONS = ("captions", "caption", "text", "raw_text", *(f"caption_{i}" for i in range(1, 6)))
LABELS = ("labels", "label", "category", "class", "tags")
GROUPS = ("group", "youtube_id", "ytid", "sound_id", "freesound_id")
SPLIT_NAMES = {
    "train": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "test": "test",
    "eval": "test",
}
MAGIC = (
    (b"RIFF", ".wav"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"FORM", ".aiff"),
    (b"\xff", ".mp3"),
)
BATCH = 16
"""parquet rows in memory at once"""


@dataclass(frozen=True)
class Sample:
    """One packed sound: its bytes, where it was (for messages), and every field beside it."""

    where: str
    audio: bytes | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    split: str = ""


def texts(fields: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """What the columns ``names`` hold: texts, or lists of texts."""
    out: list[str] = []
    for name in names:
        value = fields.get(name)
        out += (
            [value]
            if isinstance(value, str)
            else [item for item in value if isinstance(item, str)]
            if isinstance(value, list | tuple)
            else []
        )
    return tuple(dict.fromkeys(text.strip() for text in out if text.strip()))


def ending(audio: bytes) -> str:
    """The file ending of a sound, by its first bytes.

    >>> ending(b"fLaC"), ending(b"what")
    ('.flac', '.bin')
    """
    return next((suffix for magic, suffix in MAGIC if audio.startswith(magic)), ".bin")


def unpack(
    samples: Iterable[Sample],
    folder: str | Path,
    *,
    source: str,
    licence: str = "",
    author: str = "",
    columns: Sequence[str] = CAPTIONS,
    val: float = 0.1,
    test: float = 0.1,
) -> tuple[list[Row], list[Finding]]:
    """Write each sound below ``folder`` and give its row; a sample without a sound is a finding.

    A split that the samples name wins; else it follows from the hash of the recording (or of the bytes).
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Row] = {}
    findings = []
    for sample in samples:
        if not sample.audio:
            findings.append(Finding("missing", sample.where, "no sound in this row"))
            continue
        digest = hashlib.sha256(sample.audio).hexdigest()
        captions = texts(sample.fields, columns)
        if (earlier := rows.get(digest)) is not None:
            captions = tuple(dict.fromkeys(earlier.captions + captions))
        place = folder / f"{digest[:32]}{ending(sample.audio)}"
        if not place.is_file() or place.stat().st_size != len(sample.audio):
            write_bytes(place, sample.audio)
        named = next((str(sample.fields[name]) for name in GROUPS if sample.fields.get(name)), "")
        group = f"{source}/{named or digest}"
        split = SPLIT_NAMES.get(str(sample.fields.get("split") or sample.split).lower(), "")
        rows[digest] = Row(
            str(place),
            captions,
            labels=texts(sample.fields, LABELS),
            split=split or split_of(group, val=val, test=test),
            licence=str(sample.fields.get("licence") or sample.fields.get("license") or licence),
            source=source,
            author=str(sample.fields.get("author") or author),
            group=group,
        )
    if not rows:
        raise AudioLDMError(f"{source} has no sounds.", "Is there a column or member with audio?", code=1)
    assert all(row.split in SPLITS for row in rows.values())
    return list(rows.values()), findings


def parquet(paths: Sequence[str | Path], column: str = "audio") -> Iterator[Sample]:
    """The rows of parquet files whose ``column`` is {bytes, path} (the hub's way) or bytes."""
    pq = _needs("pyarrow.parquet")
    for path in sorted(map(Path, paths)):
        try:
            file = pq.ParquetFile(path)
        except (OSError, _needs("pyarrow").ArrowInvalid) as error:
            raise AudioLDMError(
                f"{path} is no parquet file: {error}", "Download it again.", code=1
            ) from error
        if column not in file.schema_arrow.names:
            raise AudioLDMError(
                f"{path} has no column {column!r}; it has {file.schema_arrow.names}.",
                "Name it with --audio-column.",
            )
        split = path.name.split("-")[0] if path.name.split("-")[0] in SPLIT_NAMES else path.parent.name
        number = 0
        for batch in file.iter_batches(batch_size=BATCH):
            for line in batch.to_pylist():
                yield _sample(f"{path}:{number}", line, column, split, path.parent)
                number += 1


def _sample(where: str, line: dict[str, Any], column: str, split: str, folder: Path) -> Sample:
    """One line of a table with an audio column; a sound that it only names is read below ``folder``."""
    audio = line.pop(column)
    if isinstance(audio, dict):
        path, audio = audio.get("path"), audio.get("bytes")
        if audio is None and path:
            path = os.path.relpath(path, folder.absolute()) if Path(path).is_absolute() else path
            place = inside(folder, path, where=where)
            audio = place.read_bytes() if place.is_file() else None
    return Sample(where, audio, line, split)


def webdataset(paths: Sequence[str | Path]) -> Iterator[Sample]:
    """The samples of WebDataset tars: members that share a name up to its first dot; captions in .txt or .json."""
    for path in map(Path, paths):
        if not path.is_file():
            raise AudioLDMError(f"There is no tar {path}.", "Name .tar files.")
        try:
            with tarfile.open(path) as tar:
                key, members = "", dict[str, bytes]()
                for item in tar:
                    if not item.isreg():
                        continue
                    folder, _, name = item.name.rpartition("/")
                    stem, _, suffix = name.partition(".")
                    if f"{folder}/{stem}" != key:
                        if members:
                            yield _joined(f"{path}!{key}", members)
                        key, members = f"{folder}/{stem}", {}
                    if (file := tar.extractfile(item)) is not None:
                        members[f".{suffix.lower()}"] = file.read()
                if members:
                    yield _joined(f"{path}!{key}", members)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise AudioLDMError(f"{path} is damaged: {error}", "Download it again.", code=1) from error


def _joined(where: str, members: Mapping[str, bytes]) -> Sample:
    """The members of one key as a sample."""
    audio = next((data for suffix, data in members.items() if suffix in SUFFIXES), None)
    fields: dict[str, Any] = {}
    if ".json" in members:
        try:
            found = json.loads(members[".json"])
        except ValueError as error:
            raise AudioLDMError(f"{where}.json is not JSON: {error}.", "Correct the tar.", code=1) from error
        fields.update(found if isinstance(found, dict) else {})
    if ".txt" in members:
        fields.setdefault("captions", members[".txt"].decode("utf-8-sig", errors="replace").splitlines())
    return Sample(where, audio, fields)


def opened(name: str, *, config: str | None = None, column: str = "audio") -> Iterator[Sample]:
    """Every split of what `datasets` opens: a folder from ``save_to_disk``, a local folder or one of the hub."""
    datasets = _needs("datasets")
    try:
        saved = Path(name, "dataset_info.json").is_file() or Path(name, "dataset_dict.json").is_file()
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, config)
    except Exception as error:  # the library raises whatever its readers raise
        raise AudioLDMError(
            f"`datasets` cannot open {name}: {error}", "Check the name and the network.", code=1
        ) from error
    folder = Path(name) if Path(name).is_dir() else Path(datasets.config.HF_CACHE_HOME)
    parts = found if isinstance(found, dict) else {str(found.split or ""): found}
    for split, part in parts.items():
        if column not in part.column_names:
            raise AudioLDMError(
                f"{name} has no column {column!r}; it has {part.column_names}.",
                "Name it with --audio-column.",
            )
        part = part.cast_column(column, datasets.Audio(decode=False))
        names = {key: kind for key, kind in part.features.items() if isinstance(kind, datasets.ClassLabel)}
        for number, line in enumerate(part):
            line = {
                key: names[key].int2str(value) if key in names and value is not None else value
                for key, value in line.items()
            }
            yield _sample(f"{name}:{split}:{number}", line, column, split, folder)


def hub(repository: str, folder: str | Path) -> list[Path]:
    """The parquet files of a data set on the hub, in ``folder``; what is there already is not fetched again."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        place = snapshot_download(
            repository, repo_type="dataset", allow_patterns=["*.parquet"], local_dir=str(folder)
        )
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise AudioLDMError(
            f"{repository} cannot be had, now or later: {error}".splitlines()[0],
            "Check the name, or log in.",
            code=1,
        ) from error
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise AudioLDMError(
            f"{repository} could not be fetched: {error}".splitlines()[0],
            "The same command goes on later.",
            code=1,
        ) from error
    found = sorted(Path(place).rglob("*.parquet"))
    if not found:
        raise AudioLDMError(
            f"{repository} has no parquet files.", "Use `audioldm data prepare datasets`.", code=1
        )
    return found


def _needs(module: str) -> Any:
    """A module of the extra "data"."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AudioLDMError(
            f"{module.split('.')[0]} is not installed.", 'Run: pip install "audioldm[data]"'
        ) from error
