"""Answers on disk: one JSON line each, appended, flushed to the medium before it is confirmed, never rewritten."""

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

from audioldm.errors import AudioLDMError


class Store:
    """The open log of one test; a second process that opens it is refused, because both would hand out one number."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise AudioLDMError(
                f"{path} cannot be written: {error.strerror}.", "Check the folder."
            ) from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.file)
            raise AudioLDMError(
                f"{path.parent} is being served by another process.", "Stop that one first; answers are safe."
            ) from None
        self.lock = threading.Lock()

    def append(self, event: dict[str, Any]) -> None:
        """Write one line and wait until it is on the medium; OSError (a full disk) leaves earlier lines whole."""
        line = json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with self.lock:
            if self.torn():
                line = b"\n" + line
            written = 0
            while written < len(line):
                written += os.write(self.file, line[written:])
            os.fsync(self.file)

    def torn(self) -> bool:
        """Whether the last line was cut off, by a crash or a full disk."""
        size = os.fstat(self.file).st_size
        return size > 0 and os.pread(self.file, 1, size - 1) != b"\n"

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.file)


def read_events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All events in order, and how many lines were cut off and are left out.

    A line that is cut off is the trace of a crash: its answer was never confirmed, and the rater was asked again.
    """
    if not path.exists():
        return [], 0
    events: list[dict[str, Any]] = []
    cut = 0
    for line in path.read_bytes().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        elif line.strip():
            cut += 1
    return events, cut
