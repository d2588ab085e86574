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
from audioldm.tables import is_text, read_object

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
        """The protocol's rows in its order, with the captions it asks for; raises for missing clips unless allowed."""
        by_key = {key_of(row, caption): (row, caption) for row in rows for caption in row.captions}
        present = [by_key[key] for key in self.items if key in by_key]
        if (lost := len(self.items) - len(present)) and not (allow_missing and present):
            what = f"{lost} of the {len(self.items)} clips of protocol {self.name} are not in the manifest."
            raise AudioLDMError(what, "Get them, or --allow-missing to report on the others under another n.")
        return [replace(row, captions=(caption,)) for row, caption in present]


def key_of(row: Row, caption: str) -> str:
    """20 hexadecimal digits for a clip, known by what is the same on every machine, and its caption.

    That is the video of a clip from one (copies differ in bytes), the name of an open sound (the md5 of the bytes in
    its package; the FLAC made of them may differ), else the file's sha256; with its start in whole milliseconds.
    """
    name, start = row.sha256 or row.group, row.start
    if row.group.startswith(YOUTUBE):
        name, start = row.group, 0.0
    elif row.source.startswith(OPENSOUNDS):
        name = OPENSOUNDS + Path(row.path).stem
    return hashlib.sha256(f"{name}\t{round(start * 1000)}\t{caption}".encode()).hexdigest()[:20]


def of_rows(rows: Sequence[Row], template: Protocol) -> Protocol:
    """``template`` with the items of manifest rows, in the order of their hashes: the manifest's does not count."""
    by_path = {(row.path, row.start): row for row in rows}
    clips = from_rows(rows, captions=template.captions)
    keys = sorted(key_of(by_path[str(clip.path), clip.start], clip.caption) for clip in clips)
    return replace(template, items=tuple(keys))


def read(path: Path) -> Protocol:
    """A protocol file; a list that is not the one of its hash is refused."""
    again = "Get the file again, or make one."
    content = read_object(path, again)
    if content.keys() != {*(field.name for field in fields(Protocol)), "sha256"}:
        raise AudioLDMError(f"{path} is no protocol: it has other fields.", again)
    seconds, items, expected = content["seconds"], content["items"], content.pop("sha256")
    right = (
        seconds is None or (isinstance(seconds, int | float) and 0.01 <= seconds <= 36_000),
        isinstance(items, list) and all(map(is_text, items)),
        content["gain"] in [*GAINS], content["captions"] in CAPTIONS,
        *map(is_text, (content["name"], content["about"], expected)),
    )  # fmt: skip
    if not all(right):
        raise AudioLDMError(f"{path} is no protocol: a field has another type or value.", again)
    protocol = Protocol(**{**content, "items": tuple(items)})
    if protocol.sha256 != expected:
        what = f"{path} was changed: its list has sha256 {protocol.sha256[:12]}, not {expected[:12]}."
        raise AudioLDMError(what, again)
    return protocol
