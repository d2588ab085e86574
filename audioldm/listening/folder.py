"""A prepared test on disk: test.json, which only its owner may read, the blind sounds, the log of answers."""

import base64
import hashlib
import hmac
import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from audioldm.errors import AudioLDMError
from audioldm.listening.design import Design, Trial, plan, wrong_answer
from audioldm.paths import inside, sha256
from audioldm.progress import counted
from audioldm.tables import LONGEST_TEXT, read_object

FORMAT = 2
RESPONSES = "responses.jsonl"
VOLUME_TRIES = 3
FIELDS: dict[str, dict[str, type]] = {  # What each kind of event must hold, beside its rater and the key.
    "join": {"name": str}, "volume": {"right": bool, "played": int, "heard": int, "device": str},
    "answer": {"trial": int, "kind": str, "task": str, "prompt": str, "stimuli": list},
}  # fmt: skip
ABOUT = {"title": str, "lufs": float, "trials_per_rater": int, "minutes_per_rater": int}
"""What test.json must say about the test."""
AGAIN = "Copy the whole folder again."


@dataclass(frozen=True)
class Test:
    """A prepared test folder."""

    folder: Path
    about: dict[str, Any]
    design: Design
    clips: dict[str, dict[str, Any]]  # blind file name -> what it is

    __test__ = False  # not a test case for pytest to collect

    @cached_property
    def names(self) -> dict[tuple[str, str], str]:
        """(version, prompt) -> blind file name."""
        return {(clip["version"], clip["prompt"]): name for name, clip in self.clips.items()}

    @property
    def responses(self) -> Path:
        return self.folder / RESPONSES

    def code_of(self, number: int) -> str:
        """What rater ``number`` proves to be that rater with: 50 bits."""
        digest = hmac.digest(self.design.secret.encode(), f"rater {number}".encode(), "sha256")
        text = base64.b32encode(digest).decode()
        return f"{text[:5]}-{text[5:10]}"


@dataclass
class Rater:
    """How far one rater has come."""

    number: int
    code: str
    name: str
    trials: list[Trial]
    answered: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)
    volume_tries: int = 0
    volume_passed: bool = True
    device: str = ""

    @property
    def volume_done(self) -> bool:
        return self.volume_tries > 0 and (self.volume_passed or self.volume_tries >= VOLUME_TRIES)

    @property
    def beeps(self) -> int:
        """How many beeps this try of the volume check plays: 2 to 5."""
        return 2 + hashlib.sha256(f"{self.code} {self.volume_tries}".encode()).digest()[0] % 4


def load(folder: str | Path) -> Test:
    """Read a test folder; AudioLDMError where something is missing or was changed since it was prepared."""
    test, digests = described(Path(folder))
    for name, digest in counted(digests.items(), "clips"):
        sound = inside(test.folder / "audio", name, where=test.folder / "test.json")
        if not sound.is_file() or sound.stat().st_size > LONGEST_TEXT or sha256(sound) != digest:
            raise AudioLDMError(f"{sound} is missing or was changed.", AGAIN)
    return test


def described(folder: Path) -> tuple[Test, dict[str, str]]:
    """What test.json says, and the sha256 of every clip by its blind name."""
    path = Path(folder, "test.json")
    if not path.is_file():
        raise AudioLDMError(f"There is no {path}.", "Make a test with `audioldm listen prepare`.")
    content = read_object(path, AGAIN)
    if content.get("format") != FORMAT:
        raise AudioLDMError(f"{path} has another format.", "Make the test anew with this version.")
    try:
        design, about = content["design"], {**content["about"], "key": sha256(path)}
        lists = {name: tuple(design[name]) for name in ("systems", "prompts", "captions")}
        test = Test(folder, about, Design(**design | lists), content["clips"])
        digests = {name: clip["sha256"] for name, clip in test.clips.items()}
        test.names  # noqa: B018 (every clip has a version and a prompt)
        wrong = [name for name, kind in ABOUT.items() if type(about[name]) is not kind]
    except (AttributeError, KeyError, TypeError) as error:
        raise AudioLDMError(f"{path} lacks {error}.", AGAIN) from error
    if wrong:
        raise AudioLDMError(f"{path} has no {wrong[0]} of its kind.", AGAIN)
    return test, digests


def answers_of(test: Test, raters: dict[int, Rater]) -> tuple[list[dict[str, Any]], int]:
    """The events of the log, in order, and how many of its lines are cut off; ``raters`` takes those who caused them.

    A line that is cut off is the trace of a crash: its answer was never confirmed, and the rater was asked again.
    AudioLDMError where the log is of another key, or holds events that no rater can have caused.
    """
    path, events, cut = test.responses, list[dict[str, Any]](), 0
    if not path.exists():
        return [], 0
    if not path.is_file() or path.stat().st_size > LONGEST_TEXT:
        raise AudioLDMError(f"{path} is no log of answers.", "Restore the file.")
    for line in path.read_bytes().split(b"\n"):
        event = None
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
        if not isinstance(event, dict):
            cut += bool(line.strip())
            continue
        if not admit(test, raters, event):
            raise AudioLDMError(f"{path} holds an event of an unknown kind: {event}.", "Restore the file.")
        if event["key"] != test.about["key"][:16]:
            what = f"{path} holds answers to another test."
            raise AudioLDMError(what, "Keep each test's answers in its own folder.")
        events.append(event)
    return events, cut


def whole(event: dict[str, Any]) -> bool:
    fields = FIELDS.get(str(event.get("event")), {"event": type(None)}) | {"rater": int, "key": str}
    kinds = all(type(event.get(name)) is kind for name, kind in fields.items())
    return kinds and isinstance(event.get("seconds"), int | float | None)


def admit(test: Test, raters: dict[int, Rater], event: dict[str, Any]) -> bool:
    """Take up an event; False for one that no rater can have caused."""
    if not whole(event):
        return False
    number, kind = event["rater"], event["event"]
    if kind == "join":
        raters[number] = Rater(number, test.code_of(number), event["name"], plan(test.design, number))
    if (rater := raters.get(number)) is None:
        return False
    if kind == "volume":
        rater.volume_tries += 1
        rater.device, rater.volume_passed = event["device"], event["right"]
    if kind == "answer":
        if not fits(test, rater, event):
            return False
        rater.answered = event["trial"] + 1
        rater.answers.append(event)
    return True


def fits(test: Test, rater: Rater, event: dict[str, Any]) -> bool:
    """Whether an answer is to a trial of the rater as it was shown, and of its kind."""
    at = dict(enumerate(rater.trials)).get(event["trial"])
    if at is None or not event.items() >= asked(test, at).items():
        return False
    return wrong_answer(at, event.get("answer")) is None


def asked(test: Test, trial: Trial) -> dict[str, Any]:
    """What the log says of a trial, its clips by their blind names."""
    files = [test.names.get((slot, trial.prompt)) for slot in trial.slots]
    return {"kind": trial.kind, "task": trial.task, "prompt": trial.prompt, "stimuli": files}
