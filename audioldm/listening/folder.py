"""A prepared test on disk: what raters may know (test.json), the key (key.json), the sounds and the answers."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audioldm.errors import AudioLDMError
from audioldm.listening.design import Design
from audioldm.listening.store import read_events

FORMAT = 1
RESPONSES = "responses.jsonl"
FIELDS: dict[str, dict[str, type]] = {
    "join": {"name": str},
    "volume": {"right": bool, "played": int, "heard": int, "device": str},
    "answer": {"trial": int, "kind": str, "task": str, "prompt": str, "stimuli": list},
}
"""What each kind of event must hold, beside its rater and the key."""


@dataclass(frozen=True)
class Test:
    """A prepared test folder."""

    folder: Path
    about: dict[str, Any]
    design: Design
    clips: dict[str, dict[str, Any]]
    """blind file name -> what it is"""

    __test__ = False  # not a test case for pytest to collect

    @property
    def names(self) -> dict[tuple[str, str], str]:
        """(version, prompt) -> blind file name."""
        return {(clip["version"], clip["prompt"]): name for name, clip in self.clips.items()}

    @property
    def responses(self) -> Path:
        """The log of answers."""
        return self.folder / RESPONSES


def load(folder: str | Path) -> Test:
    """Read a test folder; AudioLDMError where something is missing or was changed since it was prepared."""
    folder = Path(folder)
    about, key = read_part(folder / "test.json"), read_part(folder / "key.json")
    if hashlib.sha256((folder / "key.json").read_bytes()).hexdigest() != about.get("key_sha256"):
        raise AudioLDMError(f"{folder}/key.json is not the one of test.json.", "Copy the whole folder again.")
    raw: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in key["design"].items()
    }
    test = Test(folder, about, Design(**raw), key["clips"])
    for name, clip in test.clips.items():
        path = folder / "audio" / name
        if not path.is_file():
            raise AudioLDMError(f"{path} is missing.", "Copy the whole folder again.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != clip["sha256"]:
            raise AudioLDMError(f"{path} was changed.", "Copy the whole folder again.")
    return test


def read_part(path: Path) -> dict[str, Any]:
    """test.json or key.json."""
    if not path.is_file():
        raise AudioLDMError(f"There is no {path}.", "Make a test with `audioldm listen prepare`.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AudioLDMError(f"{path} is not JSON: {error}.", "Copy the test's folder again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise AudioLDMError(f"{path} has another format.", "Make the test anew with this version.")
    return content


def answers_of(test: Test) -> tuple[list[dict[str, Any]], int]:
    """The events of the log, in order, and how many cut-off lines it has.

    AudioLDMError where the log was made with another key, or holds lines that no rater can have caused.
    """
    events, cut = read_events(test.responses)
    for event in events:
        fields = FIELDS.get(str(event.get("event")), {"event": type(None)}) | {"rater": int, "key": str}
        if any(not isinstance(event.get(name), kind) for name, kind in fields.items()):
            raise AudioLDMError(
                f"{test.responses} holds an event of an unknown kind: {event}.", "Restore the file."
            )
        if event["key"] != test.about["key_sha256"][:16]:
            raise AudioLDMError(
                f"{test.responses} holds answers to another test.",
                "Keep each test's answers in its own folder.",
            )
    return events, cut
