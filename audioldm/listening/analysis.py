"""What the answers say: means with intervals over raters and prompts, tests, strengths, agreement."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from audioldm.listening.design import Task
from audioldm.listening.screening import Judgement
from audioldm.metrics.crossed import Estimate, Floats, Resamples, cells, crossed_mean, interval
from audioldm.metrics.ratings import (
    binomial_tail,
    bradley_terry,
    friedman,
    holm,
    krippendorff_alpha,
    signed_rank,
)

MIDDLE = 0.5
STRENGTH_DRAWS = 2000


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
    alpha: float
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


class Crossing:
    """The raters and prompts of a task's main judgements, numbered, with one set of draws for every interval."""

    def __init__(self, judgements: Sequence[Judgement], *, resamples: int, rng: np.random.Generator) -> None:
        self.judgements = judgements
        self.raters = {name: i for i, name in enumerate(sorted({item.rater for item in judgements}))}
        self.prompts = {name: i for i, name in enumerate(sorted({item.prompt for item in judgements}))}
        self.shape = (len(self.raters), len(self.prompts))
        self.draws = Resamples.draw(*self.shape, n=resamples, rng=rng)

    def where(self, items: Sequence[Judgement]) -> tuple[list[int], list[int]]:
        """Numbers of rater and prompt of each."""
        return [self.raters[item.rater] for item in items], [self.prompts[item.prompt] for item in items]

    def estimate(self, items: Sequence[Judgement], values: Sequence[float]) -> tuple[Estimate, Floats]:
        """The mean of ``values`` with its interval, and the mean of each prompt (P,), NaN where there is none."""
        raters, prompts = self.where(items)
        total, count = cells(values, raters, prompts, self.shape)
        heard = count.sum(axis=0)
        by_prompt = np.divide(total.sum(axis=0), heard, out=np.full(heard.shape, np.nan), where=heard > 0)
        return crossed_mean(total, count, self.draws), by_prompt

    def alpha(self, units: dict[tuple[str, ...], dict[int, float]], scale: str) -> float:
        """Krippendorff's alpha of unit -> rater -> value."""
        table = np.full((len(self.raters), max(1, len(units))), np.nan)
        for column, ratings in enumerate(units.values()):
            for rater, value in ratings.items():
                table[self.raters[rater], column] = value
        return krippendorff_alpha(table, scale)  # type: ignore[arg-type]


def outcome(
    task: Task, judgements: Sequence[Judgement], *, resamples: int, rng: np.random.Generator
) -> Outcome | None:
    """Analyse the main trials of one task; None where there are none."""
    main = [item for item in judgements if item.kind == "main" and item.task == task]
    if not main:
        return None
    crossing = Crossing(main, resamples=resamples, rng=rng)
    found = Outcome(task, *crossing.shape, answers=len(main), alpha=float("nan"))
    {"ab": preference, "abx": discrimination}.get(task, rating)(found, crossing)
    for line, p in zip(
        found.pairs, holm([line.p for line in found.pairs if line.p is not None]), strict=True
    ):
        line.p_holm = float(p)
    return found


def preference(found: Outcome, crossing: Crossing) -> None:
    """ab: shares with ties split, Wilcoxon over prompts, Bradley-Terry strengths."""
    groups: dict[tuple[str, ...], list[Judgement]] = {}
    for item in crossing.judgements:
        groups.setdefault(tuple(sorted(item.versions)), []).append(item)
    units: dict[tuple[str, ...], dict[int, float]] = {}
    for (a, b), items in sorted(groups.items()):
        values = [MIDDLE if item.preferred is None else float(item.preferred == a) for item in items]
        estimate, by_prompt = crossing.estimate(items, values)
        test = signed_rank(by_prompt[~np.isnan(by_prompt)] - MIDDLE)
        counts = Counter(values)
        extra = {"a": a, "b": b, "wins": counts[1.0], "ties": counts[MIDDLE], "losses": counts[0.0]}
        found.pairs.append(Line(f"{a} over {b}", estimate, len(items), test.p, extra=extra))
        note_prompts(found, crossing, f"{a} over {b}", by_prompt)
        for item, value in zip(items, values, strict=True):
            units.setdefault((item.prompt, a, b), {})[item.rater] = value
    found.alpha = crossing.alpha(units, "ordinal")
    found.systems = strengths(crossing)
    decided = [item.answer for item in crossing.judgements if item.answer != "tie"]
    found.first_button = decided.count("A") / len(decided) if decided else None


def strengths(crossing: Crossing) -> list[Line]:
    """Bradley-Terry log-strengths of all systems, with intervals from the same draws of raters and prompts."""
    names = sorted({name for item in crossing.judgements for name in item.versions})
    place = {name: i for i, name in enumerate(names)}
    wins = np.zeros((*crossing.shape, len(names), len(names)))
    raters, prompts = crossing.where(crossing.judgements)
    for item, rater, prompt in zip(crossing.judgements, raters, prompts, strict=True):
        a, b = (place[name] for name in item.versions)
        share = MIDDLE if item.preferred is None else float(item.preferred == item.versions[0])
        wins[rater, prompt, a, b] += share
        wins[rater, prompt, b, a] += 1 - share
    drawn = Resamples(crossing.draws.raters[:STRENGTH_DRAWS], crossing.draws.prompts[:STRENGTH_DRAWS]).totals(
        wins
    )
    value = bradley_terry(wins.sum(axis=(0, 1)))
    low, high = interval(bradley_terry(drawn))
    played = (wins + np.swapaxes(wins, 2, 3)).sum(axis=(0, 1, 3))
    return [
        Line(name, Estimate(float(value[i]), float(low[i]), float(high[i])), int(played[i]))
        for i, name in enumerate(names)
    ]


def rating(found: Outcome, crossing: Crossing) -> None:
    """quality, relevance, mushra: means and medians, paired differences, Friedman, agreement."""
    scores: dict[str, dict[tuple[int, str], list[int]]] = {}
    units: dict[tuple[str, ...], dict[int, float]] = {}
    for item in crossing.judgements:
        for name, score in item.scores.items():
            scores.setdefault(name, {}).setdefault((item.rater, item.prompt), []).append(score)
            units.setdefault((item.prompt, name), {})[item.rater] = score
    found.alpha = crossing.alpha(units, "interval" if found.task == "mushra" else "ordinal")
    at = {(item.rater, item.prompt): item for item in crossing.judgements}
    means: dict[str, npt.NDArray[np.float64]] = {}
    for name, given in sorted(scores.items()):
        every = [score for values in given.values() for score in values]
        estimate, means[name] = crossing.estimate(
            [at[k] for k in given], [float(np.mean(v)) for v in given.values()]
        )
        quartiles = [float(value) for value in np.quantile(every, [0.25, 0.5, 0.75])]
        found.systems.append(Line(name, estimate, len(every), extra={"quartiles": quartiles}))
        found.scores[name] = every
        note_prompts(found, crossing, name, means[name])
    for a, b in combinations(sorted(scores), 2):
        shared = [k for k in scores[a] if k in scores[b]]
        if shared:
            gaps = [float(np.mean(scores[a][k]) - np.mean(scores[b][k])) for k in shared]
            estimate, by_prompt = crossing.estimate([at[k] for k in shared], gaps)
            p = signed_rank(by_prompt[~np.isnan(by_prompt)].round(9)).p
            found.pairs.append(Line(f"{a} - {b}", estimate, len(shared), p, extra={"a": a, "b": b}))
    table = np.stack(list(means.values()), axis=1)
    full = table[~np.isnan(table).any(axis=1)]
    if len(means) > 2 and len(full):
        found.friedman_p = friedman(full)[1]


def discrimination(found: Outcome, crossing: Crossing) -> None:
    """abx: share of right answers against guessing."""
    groups: dict[tuple[str, ...], list[Judgement]] = {}
    units: dict[tuple[str, ...], dict[int, float]] = {}
    for item in crossing.judgements:
        groups.setdefault(tuple(sorted(set(item.versions))), []).append(item)
        units.setdefault((item.prompt, *sorted(set(item.versions))), {})[item.rater] = float(item.right)
    for (a, b), items in sorted(groups.items()):
        hits = sum(item.right for item in items)
        estimate, by_prompt = crossing.estimate(items, [float(item.right) for item in items])
        extra = {"a": a, "b": b, "right": hits}
        found.pairs.append(
            Line(f"{a} or {b}", estimate, len(items), binomial_tail(hits, len(items)), extra=extra)
        )
        note_prompts(found, crossing, f"{a} or {b}", by_prompt)
    found.alpha = crossing.alpha(units, "nominal")


def note_prompts(found: Outcome, crossing: Crossing, name: str, means: Floats) -> None:
    """Remember the mean of each prompt."""
    for prompt, i in crossing.prompts.items():
        if not np.isnan(means[i]):
            found.by_prompt.setdefault(prompt, {})[name] = round(float(means[i]), 4)
