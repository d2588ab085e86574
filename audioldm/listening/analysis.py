"""What the answers say, careless raters apart.   R raters, P prompts; a table (R, P) has NaN where no answer is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from operator import itemgetter
from typing import Any

import numpy as np
from scipy import stats

from audioldm.listening.design import DAMAGED, PAIRED, Kind, Task
from audioldm.listening.folder import Rater, Test, answers_of
from audioldm.metrics.interval import Floats, Resamples, crossed_mean, interval
from audioldm.metrics.ratings import Scale, bradley_terry, holm, krippendorff_alpha, signed_rank

CATCH_SHARE = 0.75  # a rater must pass at least this share of the trials with a right answer
POOR_SCORE = 2  # a damaged clip, or one under a wrong caption, must get this or less of 5
HIDDEN_REFERENCE, HIDDEN_REFERENCE_SHARE = 90, 0.15
"""BS.1534-3: who rates the hidden reference below 90 on more than 15 % of the pages does not count."""
CONSTANT_FROM = 8  # as many main trials with one and the same answer are no judgements
AGREEMENT: dict[Task, Scale] = {"ab": "ordinal", "abx": "nominal", "mushra": "interval"}
"""Scale of Krippendorff's alpha; that of quality and relevance is ordinal."""
STRENGTH_DRAWS = 2000
Names = tuple[str, ...]  # a system, or a sorted pair
Answer = dict[str, Any]  # an event of the log, with the versions behind the buttons in their order
Row = dict[str, Any]
"""a system or a pair: name, mean with its 95 % interval from low to high, n answers, and p where there is a test"""


def values_of(item: Answer) -> dict[Names, float]:
    """ab: 1 where the pair's first is preferred, 0.5 for no difference.  abx: 1 where X is named.  Else scores."""
    answer, versions = item["answer"], item["versions"]
    if item["task"] not in PAIRED:
        scores = answer if isinstance(answer, list) else [answer]
        return {(name,): float(score) for name, score in zip(versions, scores, strict=True)}
    pair = tuple(sorted(set(versions)))
    if answer == "tie":
        return {pair: 0.5}
    right = pair[0] if item["task"] == "ab" else versions[2]
    return {pair: float(versions["AB".index(answer)] == right)}


def passed(item: Answer) -> bool:
    """Whether a catch trial got its right answer."""
    if item["task"] == "ab":
        versions = {"tie": DAMAGED} | dict(zip("AB", item["versions"], strict=True))
        return not versions[item["answer"]].startswith(DAMAGED)
    [value] = values_of(item).values()
    return value == 1 if item["task"] == "abx" else value <= POOR_SCORE


@dataclass
class Screened:
    """A rater with the judgements, and why they do not count, if they do not."""

    rater: Rater
    judgements: list[Answer]
    reasons: list[str] = field(default_factory=list)

    def of_kind(self, kind: Kind) -> list[Answer]:
        return [item for item in self.judgements if item["kind"] == kind]

    @property
    def device(self) -> str:
        simulated = any(item.get("source") == "simulated" for item in self.judgements)
        return "simulated" if simulated else self.rater.device

    @property
    def catches(self) -> tuple[int, int]:
        """Trials with a right answer: passed, asked."""
        asked = self.of_kind("catch")
        return sum(map(passed, asked)), len(asked)

    def row(self) -> dict[str, Any]:
        seconds = [item["seconds"] for item in self.judgements if item.get("seconds") is not None]
        return {
            "rater": self.rater.number, "name": self.rater.name, "device": self.device,
            "answers": sum(item["kind"] != "training" for item in self.judgements),
            "of": sum(trial.kind != "training" for trial in self.rater.trials),
            "catches": "{}/{}".format(*self.catches),
            "median_seconds": float(np.median(seconds)) if seconds else None,
            "excluded_for": self.reasons,
        }  # fmt: skip


def screen(test: Test, *, keep_all: bool = False) -> tuple[list[Screened], int]:
    """Every rater with at least one answer and the reasons not to count them; and the log's cut-off lines."""
    raters, answered = dict[int, Rater](), list[Screened]()
    _, cut = answers_of(test, raters)
    for rater in raters.values():
        blind = [(event, [test.clips[name] for name in event["stimuli"]]) for event in rater.answers]
        judgements = [{**event, "versions": [clip["version"] for clip in clips]} for event, clips in blind]
        if judgements:
            answered.append(Screened(rater, judgements))
            answered[-1].reasons = [] if keep_all else reasons(answered[-1], test)
    return answered, cut


def reasons(screened: Screened, test: Test) -> list[str]:
    """Why not to count a rater; an unfinished session is no reason."""
    ok, asked = screened.catches
    main = screened.of_kind("main")
    pages = [values_of(item)[str(test.design.reference),] for item in main if item["task"] == "mushra"]
    low = sum(score < HIDDEN_REFERENCE for score in pages)
    rules = {
        f"passed {ok} of {asked} catch trials": ok < CATCH_SHARE * asked,
        "did not hear the quiet tones": not screened.rater.volume_passed,
        f"rated the hidden reference below {HIDDEN_REFERENCE} on {low} of {len(pages)} pages":
            low > HIDDEN_REFERENCE_SHARE * len(pages),
    }  # fmt: skip
    for task, count in Counter(item["task"] for item in main).items():
        constant = len({str(item["answer"]) for item in main if item["task"] == task}) == 1
        rules[f"gave one answer to all {count} trials of {task}"] = constant and count >= CONSTANT_FROM
    return [reason for reason, holds in rules.items() if holds]


@dataclass
class Outcome:
    """All about one task; ``alpha`` is Krippendorff's, None where there is nothing to agree on."""

    task: Task
    raters: int
    prompts: int
    answers: int
    alpha: float | None
    systems: list[Row]
    pairs: list[Row]
    by_prompt: dict[str, dict[str, float]]  # prompt -> system or pair -> mean


def outcome(
    task: Task, judgements: Sequence[Answer], *, resamples: int, rng: np.random.Generator
) -> Outcome | None:
    """Analyse the judgements of one task's main trials; None where there are none."""
    main = [item for item in judgements if item["task"] == task]
    if not main:
        return None
    raters, prompts, tables = tables_of(main)
    alpha = krippendorff_alpha(np.concatenate([*tables.values()], axis=1), AGREEMENT.get(task, "ordinal"))
    draws = Resamples.draw(len(raters), len(prompts), n=resamples, rng=rng)
    systems, pairs = (paired if task in PAIRED else rated)(task, tables, draws)
    for row, p in zip(pairs, holm([*map(itemgetter("p"), pairs)]), strict=True):
        row["p_holm"] = float(p)
    named = map(itemgetter("name"), pairs if task in PAIRED else systems)
    means = dict(zip(named, map(prompt_means, tables.values()), strict=True))
    by_prompt = {prompt: column(means, i) for i, prompt in enumerate(prompts)}
    known = None if np.isnan(alpha) else alpha
    return Outcome(task, len(raters), len(prompts), len(main), known, systems, pairs, by_prompt)


def tables_of(items: Sequence[Answer]) -> tuple[list[int], list[str], dict[Names, Floats]]:
    """Raters, prompts, and the table (R, P) of each system or pair, all in order."""
    raters, prompts = (sorted({item[side] for item in items}) for side in ("rater", "prompt"))
    tables: dict[Names, Floats] = {}
    for item in items:
        for names, value in values_of(item).items():
            table = tables.setdefault(names, np.full((len(raters), len(prompts)), np.nan))
            table[raters.index(item["rater"]), prompts.index(item["prompt"])] = value
    return raters, prompts, dict(sorted(tables.items()))


def column(means: dict[str, Floats], i: int) -> dict[str, float]:
    return {name: round(float(of[i]), 4) for name, of in means.items() if not np.isnan(of[i])}


def prompt_means(table: Floats) -> Floats:
    return np.asarray(np.ma.masked_invalid(table).mean(axis=0).filled(np.nan))  # type: ignore[no-untyped-call]


def row_of(name: str, table: Floats, draws: Resamples, middle: float | None = None, **more: Any) -> Row:
    """Mean and interval, and by Wilcoxon the p that the means of the prompts lie around ``middle``."""
    row = {"name": name, **crossed_mean(table, draws)._asdict(), "n": int((~np.isnan(table)).sum())}
    means = prompt_means(table)
    p = {} if middle is None else {"p": signed_rank((means[~np.isnan(means)] - middle).round(9))}
    return row | p | more


def paired(task: Task, tables: dict[Names, Floats], draws: Resamples) -> tuple[list[Row], list[Row]]:
    """ab: strengths, and shares with ties split.   abx: no systems, and right answers against guessing."""
    pairs = []
    for (a, b), table in tables.items():
        ones, halves, zeros = (int((table == value).sum()) for value in (1.0, 0.5, 0.0))
        if task == "ab":
            counts = {"wins": ones, "ties": halves, "losses": zeros}
            pairs.append(row_of(f"{a} over {b}", table, draws, 0.5, **counts))
        else:
            p = float(stats.binomtest(ones, ones + zeros, alternative="greater").pvalue)
            pairs.append(row_of(f"{a} or {b}", table, draws, p=p, right=ones))
    return strengths(tables, draws) if task == "ab" else [], pairs


def strengths(tables: dict[Names, Floats], draws: Resamples) -> list[Row]:
    """Bradley-Terry log-strengths of all systems, with intervals from the same draws of raters and prompts."""
    names = sorted({name for pair in tables for name in pair})
    wins = np.zeros((*next(iter(tables.values())).shape, len(names), len(names)))
    for pair, table in tables.items():
        a, b = map(names.index, pair)
        wins[:, :, a, b], wins[:, :, b, a] = np.nan_to_num(table), np.nan_to_num(1 - table)
    few = Resamples(draws.raters[:STRENGTH_DRAWS], draws.prompts[:STRENGTH_DRAWS])
    value, (low, high) = bradley_terry(wins.sum(axis=(0, 1))), interval(bradley_terry(few.totals(wins)))
    n = (wins + np.swapaxes(wins, 2, 3)).sum(axis=(0, 1, 3))
    columns = zip(names, value.tolist(), low.tolist(), high.tolist(), n.astype(int).tolist(), strict=True)
    return [dict(zip(("name", "mean", "low", "high", "n"), column, strict=True)) for column in columns]


def rated(task: Task, tables: dict[Names, Floats], draws: Resamples) -> tuple[list[Row], list[Row]]:
    """quality, relevance, mushra: means, and differences where one rater rated both."""
    gaps = {f"{a} - {b}": tables[a,] - tables[b,] for (a,), (b,) in combinations(tables, 2)}
    pairs = [row_of(name, gap, draws, 0.0) for name, gap in gaps.items() if not np.isnan(gap).all()]
    return [row_of(name, table, draws) for (name,), table in tables.items()], pairs
