"""Answers joined with the key, and who answered carefully enough to be counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from audioldm.listening.design import DAMAGED, Kind, Task, plan
from audioldm.listening.folder import Test, answers_of

CATCH_SHARE = 0.75
"""A rater must pass at least this share of the trials with a right answer."""
POOR_SCORE = 2
"""A damaged clip, or one under a wrong caption, must get this or less of 5."""
HIDDEN_REFERENCE = 90
HIDDEN_REFERENCE_SHARE = 0.15
"""BS.1534-3: who rates the hidden reference below 90 on more than 15 % of the pages is left out."""
CONSTANT_FROM = 8
"""As many main trials with one and the same answer are no judgements."""


@dataclass(frozen=True)
class Judgement:
    """One answer, unblinded.   ``versions`` are in the order of the buttons."""

    rater: int
    kind: Kind
    task: Task
    prompt: str
    versions: tuple[str, ...]
    answer: Any
    seconds: float | None = None

    @property
    def preferred(self) -> str | None:
        """ab: the version chosen, None for no difference."""
        return None if self.answer == "tie" else self.versions["AB".index(self.answer)]

    @property
    def right(self) -> bool:
        """abx: whether X was named."""
        return self.versions["AB".index(self.answer)] == self.versions[2]

    @property
    def scores(self) -> dict[str, int]:
        """quality, relevance, mushra: version to score."""
        answers = self.answer if isinstance(self.answer, list) else [self.answer]
        return dict(zip(self.versions, answers, strict=True))


@dataclass
class Screened:
    """One rater and what speaks against counting them."""

    number: int
    name: str
    trials: int
    judgements: list[Judgement] = field(default_factory=list)
    device: str = ""
    volume_passed: bool = True
    simulated: bool = False
    reasons: list[str] = field(default_factory=list)

    def of_kind(self, kind: Kind) -> list[Judgement]:
        """The judgements of one kind."""
        return [item for item in self.judgements if item.kind == kind]

    @property
    def catches(self) -> tuple[int, int]:
        """Trials with a right answer: passed, asked."""
        asked = self.of_kind("catch")
        return sum(map(passed, asked)), len(asked)

    @property
    def repeats(self) -> tuple[int, int]:
        """Trials asked twice: answered alike, asked."""
        first = {key(item): item for item in reversed(self.of_kind("main"))}
        pairs = [(first[key(item)], item) for item in self.of_kind("repeat") if key(item) in first]
        return sum(alike(*pair) for pair in pairs), len(pairs)

    def row(self) -> dict[str, Any]:
        """For tables and JSON."""
        return {
            "rater": self.number,
            "name": self.name,
            "device": "simulated" if self.simulated else self.device,
            "answers": len([item for item in self.judgements if item.kind != "training"]),
            "of": self.trials,
            "catches": "{}/{}".format(*self.catches),
            "repeats_alike": "{}/{}".format(*self.repeats),
            "median_seconds": median([item.seconds for item in self.judgements if item.seconds is not None]),
            "excluded_for": self.reasons,
        }


def key(item: Judgement) -> tuple[str, str, frozenset[str]]:
    """What a repeat shares with its first time."""
    return item.task, item.prompt, frozenset(item.versions)


def passed(item: Judgement) -> bool:
    """Whether a catch trial got its right answer."""
    if item.task == "ab":
        return item.preferred is not None and not item.preferred.startswith(DAMAGED)
    if item.task == "abx":
        return item.right
    return bool(item.answer <= POOR_SCORE)


def alike(first: Judgement, again: Judgement) -> bool:
    """Whether both times said the same: the same choice, or scores within a tenth of the scale (5-point: within 1)."""
    if first.task == "ab":
        return first.preferred == again.preferred
    if first.task == "abx":
        return first.right == again.right
    slack = 10 if first.task == "mushra" else 1
    return all(abs(score - again.scores[name]) <= slack for name, score in first.scores.items())


def median(values: Sequence[float]) -> float | None:
    """The middle value."""
    return sorted(values)[len(values) // 2] if values else None


def screen(test: Test, *, keep_all: bool = False) -> tuple[list[Screened], int]:
    """Every rater with at least one answer and the reasons to leave them out; and the log's cut-off lines."""
    events, cut = answers_of(test)
    raters: dict[int, Screened] = {}
    for event in events:
        number = event["rater"]
        if event["event"] == "join":
            total = sum(trial.kind != "training" for trial in plan(test.design, number))
            raters[number] = Screened(number, event["name"], total)
        elif event["event"] == "volume":
            raters[number].device = event["device"]
            raters[number].volume_passed = event["right"]
        else:
            raters[number].judgements.append(judgement(test, event))
            raters[number].simulated |= event.get("source") == "simulated"
    found = [rater for rater in raters.values() if rater.judgements]
    for rater in found:
        rater.reasons = [] if keep_all else reasons(rater, test)
    return found, cut


def judgement(test: Test, event: dict[str, Any]) -> Judgement:
    """One answer of the log, with the names of what was heard."""
    versions = tuple(test.clips[name]["version"] for name in event["stimuli"])
    return Judgement(
        event["rater"],
        event["kind"],
        event["task"],
        event["prompt"],
        versions,
        event["answer"],
        event.get("seconds"),
    )


def reasons(rater: Screened, test: Test) -> list[str]:
    """Why not to count a rater; an unfinished session is no reason."""
    found = []
    ok, asked = rater.catches
    if asked and ok < CATCH_SHARE * asked:
        found.append(f"passed {ok} of {asked} catch trials")
    if not rater.volume_passed:
        found.append("did not hear the quiet tones")
    main = rater.of_kind("main")
    pages = [item.scores[str(test.design.reference)] for item in main if item.task == "mushra"]
    low = sum(score < HIDDEN_REFERENCE for score in pages)
    if pages and low > HIDDEN_REFERENCE_SHARE * len(pages):
        found.append(f"rated the hidden reference below {HIDDEN_REFERENCE} on {low} of {len(pages)} pages")
    for task, count in Counter(item.task for item in main).items():
        answers = {str(item.answer) for item in main if item.task == task}
        if len(answers) == 1 and count >= CONSTANT_FROM:
            found.append(f"gave one answer to all {count} trials of {task}")
    return found
