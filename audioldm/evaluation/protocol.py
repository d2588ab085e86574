"""A protocol: which clips with which captions, under which conditions, so that two people get the same number.

Each item is known by a hash of its recording, start and caption, so that lists whose captions may not be copied
(AudioCaps') can be published all the same.   The hash of the whole list is the protocol's identity.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.clips import CAPTIONS, GAINS, from_rows
from audioldm.paths import write_text
from audioldm.tables import is_text, read_object, read_table

YOUTUBE, OPENSOUNDS = "youtube/", "opensounds/"


@dataclass(frozen=True)
class Protocol:
    """``captions`` is the policy of ``clips.from_rows``; ``seconds`` and ``gain`` are the frame of both sets."""

    name: str
    about: str
    captions: str
    seconds: float | None
    gain: str
    items: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the items in their order."""
        return hashlib.sha256("\n".join(self.items).encode()).hexdigest()

    def write(self, path: Path) -> None:
        write_text(path, json.dumps({**asdict(self), "sha256": self.sha256}, indent=1) + "\n")

    def select(self, rows: Sequence[Row], *, allow_missing: bool = False) -> list[Row]:
        """The protocol's rows in its order, each with the one caption it asks for.

        Missing clips are an error unless ``allow_missing``; the report then says how many of how many were there.
        """
        by_key = {key_of(row, caption): (row, caption) for row in rows for caption in row.captions}
        present = [by_key[key] for key in self.items if key in by_key]
        if (lost := len(self.items) - len(present)) and not allow_missing:
            what = f"{lost} of the {len(self.items)} clips of protocol {self.name} are not in the manifest."
            raise AudioLDMError(what, "Get them, or --allow-missing to report on the others under another n.")
        if not present:
            raise AudioLDMError(f"The manifest has no clip of protocol {self.name}.", "Use its data set.")
        return [replace(row, captions=(caption,)) for row, caption in present]


def item_key(name: str, start: float, caption: str) -> str:
    """20 hexadecimal digits of sha256(recording, start in whole milliseconds, caption)."""
    return hashlib.sha256(f"{name}\t{round(start * 1000)}\t{caption}".encode()).hexdigest()[:20]


def key_of(row: Row, caption: str) -> str:
    """A clip known by what is the same on every machine, with its caption.

    That is the video of a clip from one (copies differ in bytes), the name of an open sound (the md5 of the bytes in
    its package; the FLAC made of them may differ), else the file's sha256 and start.
    """
    if row.group.startswith(YOUTUBE):
        return item_key(row.group, 0.0, caption)
    stem = OPENSOUNDS + Path(row.path).stem
    name = stem if row.source.startswith(OPENSOUNDS) else row.sha256 or row.group
    return item_key(name, row.start, caption)


def of_rows(rows: Sequence[Row], template: Protocol) -> Protocol:
    """``template`` with the items of manifest rows, in the order of their hashes: the manifest's does not count."""
    by_path = {(row.path, row.start): row for row in rows}
    clips = from_rows(rows, captions=template.captions)
    keys = sorted(key_of(by_path[str(clip.path), clip.start], clip.caption) for clip in clips)
    return replace(template, items=tuple(keys))


def of_audiocaps(path: Path, *, name: str = "audiocaps-test") -> Protocol:
    """AudioCaps' test CSV: one caption a clip, the one with the lowest ``audiocap_id``; recordings are youtube ids."""
    columns = ("audiocap_id", "youtube_id", "start_time", "caption")
    table = read_table(path, need=columns, text=("caption",))
    wrong = [str(omission) for omission in table.omitted]
    for record in table.records:
        if not (record.cells.keys() >= set(columns) and record.cells["audiocap_id"].isdecimal()):
            wrong.append(record.where)
    wrong += ["it has no rows"] * (not table.records)
    if wrong:
        raise AudioLDMError(f"{path} is no AudioCaps CSV: {wrong[0]}.", f"Its columns: {', '.join(columns)}.")
    lowest: dict[tuple[str, str], str] = {}
    for row in sorted((record.cells for record in table.records), key=lambda row: int(row["audiocap_id"])):
        lowest.setdefault((row["youtube_id"], row["start_time"]), row["caption"])
    keys = (item_key(YOUTUBE + video, 0.0, caption) for (video, _), caption in lowest.items())
    about = "AudioCaps test, one caption a clip: the one with the lowest audiocap_id"
    return Protocol(name, about, "first", 10.0, "peak", tuple(sorted(keys)))


def read(path: Path) -> Protocol:
    """A protocol file; a list that is not the one of its hash is refused."""
    content = read_object(path, "Get the file again, or make one.")
    names = {*(field.name for field in fields(Protocol)), "sha256"}
    if content.keys() != names:
        raise AudioLDMError(f"{path} is no protocol.", f"Its fields: {', '.join(sorted(names))}.")
    seconds, items = content["seconds"], content["items"]
    length = seconds is None or (isinstance(seconds, int | float) and 0.01 <= seconds <= 36_000)
    texts = [content[name] for name in ("name", "about", "captions", "gain", "sha256")]
    known = content["gain"] in [*GAINS] and content["captions"] in CAPTIONS
    if not (length and known and isinstance(items, list) and all(map(is_text, [*texts, *items]))):
        what = f"{path} is no protocol: a field has another type or value."
        raise AudioLDMError(what, "Get the file again.")
    expected = content.pop("sha256")
    protocol = Protocol(**{**content, "items": tuple(content["items"])})
    if protocol.sha256 != expected:
        what = f"{path} was changed: its list has sha256 {protocol.sha256[:12]}, not {expected[:12]}."
        raise AudioLDMError(what, "Get the file again.")
    return protocol
