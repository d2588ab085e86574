"""What the answers say, careless raters apart: means with intervals, tests, strengths, agreement."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, combinations
from typing import Any

import numpy as np
from scipy import stats

from audioldm.listening.design import DAMAGED, PAIRED, Kind, Task, plan
from audioldm.listening.folder import Test, answers_of
from audioldm.metrics.crossed import Estimate, Floats, Resamples, cells, crossed_mean, interval
from audioldm.metrics.ratings import (
    Scale,
    bradley_terry,
    holm,
    krippendorff_alpha,
    signed_rank,
)

CATCH_SHARE = 0.75
"""A rater must pass at least this share of the trials with a right answer."""
POOR_SCORE = 2
"""A damaged clip, or one under a wrong caption, must get this or less of 5."""
HIDDEN_REFERENCE = 90
HIDDEN_REFERENCE_SHARE = 0.15
"""BS.1534-3: who rates the hidden reference below 90 on more than 15 % of the pages does not count."""
CONSTANT_FROM = 8
"""As many main trials with one and the same answer are no judgements."""
MIDDLE = 0.5
STRENGTH_DRAWS = 2000
Units = dict[tuple[str, ...], dict[int, float]]
"""what is rated -> rater -> value"""


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
        """ab: the better version, None for no difference."""
        return None if self.answer == "tie" else self.versions["AB".index(self.answer)]

    def share(self, version: str) -> float:
        """ab: 1 where this version was preferred, 0 where the other was, a half for no difference."""
        return MIDDLE if self.preferred is None else float(self.preferred == version)

    @property
    def right(self) -> bool:
        """abx: whether X was named."""
        return self.versions["AB".index(self.answer)] == self.versions[2]

    @property
    def scores(self) -> dict[str, int]:
        """quality, relevance, mushra: version to score."""
        answers = self.answer if isinstance(self.answer, list) else [self.answer]
        return dict(zip(self.versions, answers, strict=True))

    @property
    def key(self) -> tuple[str, str, frozenset[str]]:
        """What a repeat shares with its first time."""
        return self.task, self.prompt, frozenset(self.versions)

    @property
    def passed(self) -> bool:
        """Whether a catch trial got its right answer."""
        if self.task == "ab":
            return self.preferred is not None and not self.preferred.startswith(DAMAGED)
        return self.right if self.task == "abx" else bool(self.answer <= POOR_SCORE)

    def like(self, again: "Judgement") -> bool:
        """Whether both say the same: the same choice, or scores within a tenth of the scale (5-point: within 1)."""
        if self.task == "ab":
            return self.preferred == again.preferred
        if self.task == "abx":
            return self.right == again.right
        slack = 10 if self.task == "mushra" else 1
        return all(abs(score - again.scores[name]) <= slack for name, score in self.scores.items())


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
        return sum(item.passed for item in asked), len(asked)

    @property
    def repeats(self) -> tuple[int, int]:
        """Trials asked twice: answered alike, asked."""
        first = {item.key: item for item in reversed(self.of_kind("main"))}
        pairs = [(first[item.key], item) for item in self.of_kind("repeat") if item.key in first]
        return sum(before.like(again) for before, again in pairs), len(pairs)

    def row(self) -> dict[str, Any]:
        """For tables and JSON."""
        seconds = sorted(item.seconds for item in self.judgements if item.seconds is not None)
        return {
            "rater": self.number,
            "name": self.name,
            "device": "simulated" if self.simulated else self.device,
            "answers": len([item for item in self.judgements if item.kind != "training"]),
            "of": self.trials,
            "catches": "{}/{}".format(*self.catches),
            "repeats_alike": "{}/{}".format(*self.repeats),
            "median_seconds": seconds[len(seconds) // 2] if seconds else None,
            "excluded_for": self.reasons,
        }


def screen(test: Test, *, keep_all: bool = False) -> tuple[list[Screened], int]:
    """Every rater with at least one answer and the reasons not to count them; and the log's cut-off lines."""
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
            versions = tuple(test.clips[name]["version"] for name in event["stimuli"])
            what: dict[str, Any] = {
                name: event[name] for name in ("rater", "kind", "task", "prompt", "answer")
            }
            item = Judgement(**what, versions=versions, seconds=event.get("seconds"))
            raters[number].judgements.append(item)
            raters[number].simulated |= event.get("source") == "simulated"
    answered = [rater for rater in raters.values() if rater.judgements]
    for rater in answered:
        rater.reasons = [] if keep_all else reasons(rater, test)
    return answered, cut


def reasons(rater: Screened, test: Test) -> list[str]:
    """Why not to count a rater; an unfinished session is no reason."""
    ok, asked = rater.catches
    main = rater.of_kind("main")
    pages = [item.scores[str(test.design.reference)] for item in main if item.task == "mushra"]
    low = sum(score < HIDDEN_REFERENCE for score in pages)
    rules = {
        f"passed {ok} of {asked} catch trials": ok < CATCH_SHARE * asked,
        "did not hear the quiet tones": not rater.volume_passed,
        f"rated the hidden reference below {HIDDEN_REFERENCE} on {low} of {len(pages)} pages":
            low > HIDDEN_REFERENCE_SHARE * len(pages),
    }  # fmt: skip
    for task, count in Counter(item.task for item in main).items():
        answers = {str(item.answer) for item in main if item.task == task}
        constant = len(answers) == 1 and count >= CONSTANT_FROM
        rules[f"gave one answer to all {count} trials of {task}"] = constant
    return [reason for reason, holds in rules.items() if holds]


@dataclass
class Line:
    """One row of a table: a system, or a pair of them."""

    name: str
    estimate: Estimate
    n: int
    p: float | None = None
    p_holm: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """All about one task."""

    task: Task
    raters: int
    prompts: int
    answers: int
    alpha: float = float("nan")
    systems: list[Line] = field(default_factory=list)
    pairs: list[Line] = field(default_factory=list)
    friedman_p: float | None = None
    by_prompt: dict[str, dict[str, float]] = field(default_factory=dict)
    """prompt -> system or pair -> mean"""
    scores: dict[str, list[int]] = field(default_factory=dict)
    """system -> every score, for the box plot"""
    first_button: float | None = None
    """ab: share of choices that fell on A; far from one half is a habit, not a judgement"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the single scores; NaN becomes None."""
        content = {name: value for name, value in asdict(self).items() if name != "scores"}
        return content | {"alpha": None if np.isnan(self.alpha) else round(self.alpha, 4)}

    def add_prompts(self, name: str, means: Floats, prompts: dict[str, int]) -> None:
        """Note the mean of each prompt (P,), NaN where there is none."""
        for prompt, i in prompts.items():
            if not np.isnan(means[i]):
                self.by_prompt.setdefault(prompt, {})[name] = round(float(means[i]), 4)


class Crossing:
    """The raters and prompts of a task's main judgements, numbered, with one set of draws for every interval."""

    def __init__(self, judgements: Sequence[Judgement], *, resamples: int, rng: np.random.Generator) -> None:
        self.judgements = judgements
        self.raters = {name: i for i, name in enumerate(sorted({item.rater for item in judgements}))}
        self.prompts = {name: i for i, name in enumerate(sorted({item.prompt for item in judgements}))}
        self.shape = (len(self.raters), len(self.prompts))
        self.draws = Resamples.draw(*self.shape, n=resamples, rng=rng)

    def by_versions(self) -> list[tuple[tuple[str, ...], list[Judgement]]]:
        """The judgements of each pair of systems, whatever their sides."""
        groups: dict[tuple[str, ...], list[Judgement]] = {}
        for item in self.judgements:
            groups.setdefault(tuple(sorted(set(item.versions))), []).append(item)
        return sorted(groups.items())

    def where(self, items: Sequence[Judgement]) -> tuple[list[int], list[int]]:
        """Numbers of rater and prompt of each."""
        return [self.raters[item.rater] for item in items], [self.prompts[item.prompt] for item in items]

    def estimate(self, items: Sequence[Judgement], values: Sequence[float]) -> tuple[Estimate, Floats]:
        """The mean of ``values`` with its interval, and the mean of each prompt (P,), NaN where there is none."""
        total, count = cells(values, *self.where(items), self.shape)
        answers = count.sum(axis=0)
        empty = np.full(answers.shape, np.nan)
        by_prompt = np.divide(total.sum(axis=0), answers, out=empty, where=answers > 0)
        return crossed_mean(total, count, self.draws), by_prompt

    def alpha(self, units: Units, scale: Scale) -> float:
        """Krippendorff's alpha."""
        table = np.full((len(self.raters), max(1, len(units))), np.nan)
        for column, ratings in enumerate(units.values()):
            for rater, value in ratings.items():
                table[self.raters[rater], column] = value
        return krippendorff_alpha(table, scale)


def outcome(
    task: Task, judgements: Sequence[Judgement], *, resamples: int, rng: np.random.Generator
) -> Outcome | None:
    """Analyse the main trials of one task; None where there are none."""
    main = [item for item in judgements if item.kind == "main" and item.task == task]
    if not main:
        return None
    crossing = Crossing(main, resamples=resamples, rng=rng)
    result = Outcome(task, *crossing.shape, answers=len(main))
    (pairs if task in PAIRED else rating)(result, crossing)
    adjusted = holm([line.p for line in result.pairs if line.p is not None])
    for line, p in zip(result.pairs, adjusted, strict=True):
        line.p_holm = float(p)
    return result


def pairs(result: Outcome, crossing: Crossing) -> None:
    """ab: shares with ties split, Wilcoxon over prompts, strengths.   abx: shares of right answers against guessing."""
    units: Units = {}
    preferred = result.task == "ab"
    for (a, b), items in crossing.by_versions():
        values = [item.share(a) if preferred else float(item.right) for item in items]
        estimate, by_prompt = crossing.estimate(items, values)
        counts = Counter(values)
        extra: dict[str, Any] = {"a": a, "b": b}
        if preferred:
            name, p = f"{a} over {b}", signed_rank(by_prompt[~np.isnan(by_prompt)] - MIDDLE).p
            extra |= {"wins": counts[1.0], "ties": counts[MIDDLE], "losses": counts[0.0]}
        else:
            name = f"{a} or {b}"
            p = float(stats.binomtest(counts[1.0], len(items), alternative="greater").pvalue)
            extra |= {"right": counts[1.0]}
        result.pairs.append(Line(name, estimate, len(items), p, extra=extra))
        result.add_prompts(name, by_prompt, crossing.prompts)
        for item, value in zip(items, values, strict=True):
            units.setdefault((item.prompt, a, b), {})[item.rater] = value
    result.alpha = crossing.alpha(units, "ordinal" if preferred else "nominal")
    if preferred:
        result.systems = strengths(crossing)
        decided = [item.answer for item in crossing.judgements if item.answer != "tie"]
        result.first_button = decided.count("A") / len(decided) if decided else None


def strengths(crossing: Crossing) -> list[Line]:
    """Bradley-Terry log-strengths of all systems, with intervals from the same draws of raters and prompts."""
    names = sorted({name for item in crossing.judgements for name in item.versions})
    place = {name: i for i, name in enumerate(names)}
    wins = np.zeros((*crossing.shape, len(names), len(names)))
    raters, prompts = crossing.where(crossing.judgements)
    for item, rater, prompt in zip(crossing.judgements, raters, prompts, strict=True):
        a, b = (place[name] for name in item.versions)
        wins[rater, prompt, a, b] += item.share(item.versions[0])
        wins[rater, prompt, b, a] += item.share(item.versions[1])
    draws = Resamples(crossing.draws.raters[:STRENGTH_DRAWS], crossing.draws.prompts[:STRENGTH_DRAWS])
    value = bradley_terry(wins.sum(axis=(0, 1)))
    low, high = interval(bradley_terry(draws.totals(wins)))
    played = (wins + np.swapaxes(wins, 2, 3)).sum(axis=(0, 1, 3))
    return [
        Line(name, Estimate(float(value[i]), float(low[i]), float(high[i])), int(played[i]))
        for i, name in enumerate(names)
    ]


Ratings = dict[str, dict[tuple[int, str], list[int]]]
"""system -> (rater, prompt) -> scores"""


def rating(result: Outcome, crossing: Crossing) -> None:
    """quality, relevance, mushra: means and medians, paired differences, Friedman, agreement."""
    scores: Ratings = {}
    units: Units = {}
    for item in crossing.judgements:
        for name, score in item.scores.items():
            scores.setdefault(name, {}).setdefault((item.rater, item.prompt), []).append(score)
            units.setdefault((item.prompt, name), {})[item.rater] = score
    result.alpha = crossing.alpha(units, "interval" if result.task == "mushra" else "ordinal")
    at = {(item.rater, item.prompt): item for item in crossing.judgements}
    means = []
    for name, values in sorted(scores.items()):
        every = list(chain(*values.values()))
        estimate, by_prompt = crossing.estimate(
            [at[k] for k in values], list(map(float, map(np.mean, values.values())))
        )
        quartiles = np.quantile(every, [0.25, 0.5, 0.75]).tolist()
        result.systems.append(Line(name, estimate, len(every), extra={"quartiles": quartiles}))
        result.scores[name] = every
        result.add_prompts(name, by_prompt, crossing.prompts)
        means.append(by_prompt)
    rating_pairs(result, crossing, scores, at)
    result.friedman_p = friedman(np.stack(means, axis=1))


def friedman(table: Floats) -> float | None:
    """p that the columns of (P, K) differ, over its whole rows; None for fewer than three, or for equal ones."""
    full = table[~np.isnan(table).any(axis=1)]
    if table.shape[1] < 3 or not np.ptp(full, axis=1).any():
        return None
    return float(stats.friedmanchisquare(*full.T).pvalue)


def rating_pairs(
    result: Outcome, crossing: Crossing, scores: Ratings, at: dict[tuple[int, str], Judgement]
) -> None:
    """Differences of two systems where one rater rated both on one prompt."""
    for a, b in combinations(sorted(scores), 2):
        if shared := [k for k in scores[a] if k in scores[b]]:
            gaps = [float(np.mean(scores[a][k]) - np.mean(scores[b][k])) for k in shared]
            estimate, by_prompt = crossing.estimate([at[k] for k in shared], gaps)
            p = signed_rank(by_prompt[~np.isnan(by_prompt)].round(9)).p
            result.pairs.append(Line(f"{a} - {b}", estimate, len(shared), p, extra={"a": a, "b": b}))
