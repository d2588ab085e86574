"""A test being taken: who is at which trial, and which answers are accepted; for the server and the notebook."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from audioldm.errors import AudioLDMError
from audioldm.listening.design import METHODS, Trial, wrong_answer
from audioldm.listening.folder import VOLUME_TRIES, Rater, Test, admit, answers_of, asked

HEARD_SECONDS = 2.0  # a clip counts as heard after this long, or after nine tenths of it
MOST_RATERS = 10_000
DEVICES = ("headphones", "earphones", "loudspeakers")


class RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def usual(number: Any) -> bool:
    return type(number) in (int, float) and 0 <= number <= 1e6


def enough(played: list[float], count: int, need: float) -> list[float]:
    if len(played) != count:
        raise RefusedError(422, f"heard must hold {count} numbers of seconds.")
    if min(played) < need - 0.05:
        raise RefusedError(422, f"Every clip must be heard for {need:g} s.")
    return [round(part, 2) for part in played]


class Session(NamedTuple):
    """How a trial was taken.   ``played`` is the seconds of each clip, None from a notebook, which cannot know."""

    played: Any = None
    seconds: Any = None  # for which the page was open
    switches: Any = 0  # how often another clip was started
    source: str = "page"

    def checked(self, count: int, need: float) -> dict[str, Any]:
        """For the log; refused where one of ``count`` clips was played for less than ``need`` seconds."""
        played = self.played if isinstance(self.played, list) else []
        if not all(map(usual, [*played, 0 if self.seconds is None else self.seconds, self.switches])):
            raise RefusedError(422, "heard, seconds and switches are numbers from 0 to a million.")
        parts = enough(played, count, need) if self.source == "page" or self.played is not None else None
        seconds = None if self.seconds is None else round(self.seconds, 2)
        return {"heard": parts, "seconds": seconds, "switches": int(self.switches), "source": self.source}


class Study:
    """The test with all its raters; every method may be called from any thread.

    Of the log, each answer is one JSON line, on the medium before it is confirmed, never rewritten.   A second process
    that opens it is refused, because both would hand out one number.
    """

    def __init__(self, test: Test) -> None:
        self.test, log = test, test.responses
        try:
            self.process = FileLock(log.with_name(f".{log.name}.lock"), timeout=0)
            self.process.acquire()
            binary = getattr(os, "O_BINARY", 0)  # Windows would write two characters for a line end
            self.file = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | binary, 0o600)
        except Timeout:
            what = f"{test.folder} is being served by another process."
            raise AudioLDMError(what, "Stop that one first; answers are safe.") from None
        except OSError as error:
            raise AudioLDMError(f"{log} cannot be written: {error.strerror}.", "Check the folder.") from error
        self.lock = threading.RLock()
        self.raters: dict[int, Rater] = {}
        self.captions = dict(zip(test.design.prompts, test.design.captions, strict=True))
        try:
            answers_of(test, self.raters)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.file)
        self.process.release()

    def rater(self, code: object) -> Rater:
        sent = code.strip().upper() if isinstance(code, str) else None
        for rater in list(self.raters.values()):  # others may join meanwhile
            if rater.code == sent:
                return rater
        raise RefusedError(404, "This code is not known here.")

    def join(self, name: object = "") -> str:
        """A new rater's code; ``name`` is what the rater wants to be called in the log, at most 60 characters."""
        if not isinstance(name, str) or len(name) > 60 or not all(c.isprintable() for c in name):
            raise RefusedError(422, "A name is at most 60 printable characters.")
        with self.lock:
            number = len(self.raters)
            if number >= MOST_RATERS:
                raise RefusedError(403, "This test has all the raters it can take.")
            self.record("join", number, name=name.strip())
            return self.test.code_of(number)

    def record(self, event: str, rater: int, **content: Any) -> None:
        """Write down, then act on it; a disk that is full changes nothing here, and leaves earlier lines whole."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        key = self.test.about["key"][:16]
        line = {"event": event, "rater": rater, **content, "time": stamp, "key": key}
        rest = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            if size := os.fstat(self.file).st_size:
                os.lseek(self.file, size - 1, os.SEEK_SET)
                if os.read(self.file, 1) != b"\n":  # the last line was cut off, by a crash or a full disk
                    rest = b"\n" + rest
            while rest:
                rest = rest[os.write(self.file, rest) :]
            os.fsync(self.file)
        except OSError as error:
            raise RefusedError(507, f"The answer could not be written: {error.strerror}.") from error
        admit(self.test, self.raters, line)

    def state(self, code: object) -> dict[str, Any]:
        """What the page shows next; it tells neither systems nor which trials are catches or repeats."""
        with self.lock:
            rater = self.rater(code)
            counted = [trial.kind != "training" for trial in rater.trials]
            state = {"code": rater.code, "total": sum(counted), "done": sum(counted[: rater.answered])}
            if rater.answered >= len(rater.trials):
                return {**state, "phase": "done"}
            if not rater.volume_done:
                return {**state, "phase": "volume", "tries": rater.volume_tries, "most_tries": VOLUME_TRIES}
            return {**state, "phase": "trial", "trial": self.shown(rater)}

    def shown(self, rater: Rater) -> dict[str, Any]:
        trial, index = rater.trials[rater.answered], rater.answered
        before = rater.trials[index - 1] if index else None
        tasks = METHODS[self.test.design.method]
        practice, (seconds, need) = trial.kind == "training", self.lengths(trial)
        return {
            "index": index, "task": trial.task, "practice": practice,
            "first": before is None or before.task != trial.task,
            "practice_over": not practice and before is not None and before.kind == "training",
            "part": tasks.index(trial.task) + 1, "parts": len(tasks),
            "caption": self.captions[trial.caption_of] if trial.caption_of is not None else "",
            "slots": len(trial.slots), "reference": trial.reference is not None,
            "seconds": seconds, "need_seconds": need,
        }  # fmt: skip

    def lengths(self, trial: Trial) -> tuple[float, float]:
        """How many seconds the clips of a trial have, and of each must be played."""
        seconds = float(self.test.clips[asked(self.test, trial)["stimuli"][0]]["seconds"])
        return seconds, round(min(HEARD_SECONDS, 0.9 * seconds), 3)

    def volume(self, code: object, *, device: object, beeps: object) -> None:
        with self.lock:
            rater = self.rater(code)
            if rater.volume_done:
                raise RefusedError(409, "The volume check is over.")
            if device not in DEVICES or type(beeps) is not int or not 0 <= beeps <= 9:
                what = f"device must be one of {', '.join(DEVICES)}, and heard a number of beeps from 0 to 9."
                raise RefusedError(422, what)
            content = {"device": device, "played": rater.beeps, "heard": beeps, "right": beeps == rater.beeps}
            self.record("volume", rater.number, **content)

    def answer(self, code: object, trial: object, answer: object, session: Session) -> None:
        """Accept the answer to the trial a rater is at, or refuse and change nothing."""
        with self.lock:
            rater = self.rater(code)
            if rater.answers and (trial, answer) == (rater.answered - 1, rater.answers[-1]["answer"]):
                return  # its confirmation was lost on the way
            if type(trial) is not int or not rater.answered == trial < len(rater.trials):
                raise RefusedError(409, "This trial is not the next one.")
            if not rater.volume_done and session.source == "page":
                raise RefusedError(409, "The volume check comes first.")
            at = rater.trials[trial]
            if wrong := wrong_answer(at, answer):
                raise RefusedError(422, wrong)
            log = session.checked(len(at.slots) + (at.reference is not None), self.lengths(at)[1])
            about = {"trial": trial, **asked(self.test, at), "caption_of": at.caption_of}
            self.record("answer", rater.number, **about, answer=answer, **log)

    def audio(self, code: object, trial: int, slot: str) -> Path:
        """The file of a button: 0, 1, ... or ref, of this trial and the next only; volume and beeps, of any."""
        with self.lock:
            rater = self.rater(code)
            names = {"volume": "volume.wav", "beeps": f"beeps{rater.beeps}.wav"}
            if rater.answered <= trial <= rater.answered + 1 and trial < len(rater.trials):
                at = rater.trials[trial]
                names |= {str(i): name for i, name in enumerate(asked(self.test, at)["stimuli"])}
                if at.reference is not None:
                    names["ref"] = self.test.names[at.reference, at.prompt]
            if slot not in names:
                raise RefusedError(404, "No such sound.")
            return self.test.folder / "audio" / names[slot]
