"""From a test with answers to summary.json, answers.csv, plots and a page with the clips unblinded."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioldm.errors import AudioLDMError
from audioldm.evaluation import html
from audioldm.evaluation.html import Markup
from audioldm.evaluation.picture import Picture
from audioldm.listening.analysis import Line, Outcome, Screened, outcome, screen
from audioldm.listening.design import METHODS
from audioldm.listening.figures import figures
from audioldm.listening.folder import Test
from audioldm.pipeline.outputs import publish
from audioldm.progress import counted
from audioldm.tables import csv_text, markdown

FEW_RATERS = 6
Table = tuple[list[str], list[list[str]]]


@dataclass
class Result:
    title: str
    method: str
    raters: list[Screened]
    outcomes: list[Outcome]
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def excluded(self) -> list[Screened]:
        return [rater for rater in self.raters if rater.reasons]

    def summary(self) -> dict[str, Any]:
        return {
            "title": self.title, "method": self.method, "raters": len(self.raters),
            "raters_counted": len(self.raters) - len(self.excluded),
            "outcomes": [each.as_dict() for each in self.outcomes],
            "screening": [rater.row() for rater in self.raters], "notes": self.notes, "settings": self.settings,
        }  # fmt: skip

    def text(self) -> str:
        count = len(self.raters) - len(self.excluded)
        lines = [f"{self.title} ({self.method}): {count} of {len(self.raters)} raters counted"]
        lines += [f"  left out: rater {r.number} {r.name}: {'; '.join(r.reasons)}" for r in self.excluded]
        for each in self.outcomes:
            lines += ["", f"{each.task}: {headline(each)}"]
            for head, rows in tables(each):
                lines += ["", markdown(head, rows)]
        return "\n".join([*lines, "", *self.notes]) + "\n"


def headline(result: Outcome) -> str:
    friedman = "" if result.friedman_p is None else f", Friedman p {number(result.friedman_p)}"
    size = f"{result.answers} answers, {result.raters} raters x {result.prompts} prompts"
    return f"{size}, Krippendorff alpha {number(result.alpha)}{friedman}"


def number(value: float | None) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def tables(result: Outcome) -> list[Table]:
    def table(first: str, mean: str, lines: list[Line]) -> Table:
        head = [first, mean, "95 % interval", "n", *(cells(lines[0]) if lines else ())]
        rows = [
            [line.name, number(line.estimate.mean), f"{number(line.estimate.low)} to {number(line.estimate.high)}",
             str(line.n), *cells(line).values()]
            for line in lines
        ]  # fmt: skip
        return head, rows

    value = "log-strength" if result.task == "ab" else "mean"
    of_pairs = {"ab": "share", "abx": "right"}.get(result.task, "difference")
    both = [table("system", value, result.systems), table("pair", of_pairs, result.pairs)]
    return [part for part in both if part[1]]


def cells(line: Line) -> dict[str, str]:
    more: dict[str, str] = {}
    if line.p is not None:
        more = {"p": number(line.p), "p (Holm)": number(line.p_holm)}
    if "quartiles" in line.extra:
        low, middle, high = line.extra["quartiles"]
        more["median (IQR)"] = f"{middle:g} ({low:g} to {high:g})"
    return more | {name: str(line.extra[name]) for name in ("wins", "ties", "losses") if name in line.extra}


def analyse(test: Test, *, keep_all: bool = False, resamples: int = 10_000, seed: int = 0) -> Result:
    """Screen the raters, unblind, and analyse each task.   AudioLDMError where no answer counts."""
    raters, cut = screen(test, keep_all=keep_all)
    kept = [rater for rater in raters if not rater.reasons]
    if not any(rater.of_kind("main") for rater in raters):
        what = f"{test.folder} holds no answers yet."
        raise AudioLDMError(what, "Serve it: audioldm listen serve.", code=1)
    if not any(rater.of_kind("main") for rater in kept):
        reasons = "; ".join(f"rater {rater.number}: {', '.join(rater.reasons)}" for rater in raters)
        raise AudioLDMError(f"No rater passed the screening ({reasons}).", "--keep-all counts them.", code=1)
    rng = np.random.default_rng(seed)
    judgements = [item for rater in kept for item in rater.judgements]
    tasks = [
        outcome(task, judgements, resamples=resamples, rng=rng)
        for task in counted(METHODS[test.design.method], "tasks")
    ]
    settings = {"resamples": resamples, "seed": seed, "keep_all": keep_all, "key": test.about["key_sha256"]}
    result = Result(test.about["title"], test.design.method, raters, list(filter(None, tasks)), settings)
    result.notes = notes(test, result, len(kept), cut)
    return result


def notes(test: Test, result: Result, count: int, cut: int) -> list[str]:
    simulated = sum(rater.device == "simulated" for rater in result.raters)
    few = f"{count} raters: intervals of so few raters are too narrow."
    if count == 1:
        few = "One rater: the intervals are over prompts only and say nothing about other listeners."
    anchors_lack = test.design.method == "mushra" and len(test.design.anchors) < 2
    rules = {
        f"{simulated} of {len(result.raters)} raters are simulated: no ears took part in their answers.": simulated,
        few: count < FEW_RATERS,
        "Not BS.1534: it asks for a low and a mid anchor.": anchors_lack,
        f"{cut} line(s) of the log were cut off by a crash and do not count.": cut,
    }
    sides = [each.first_button for each in result.outcomes if each.first_button is not None]
    rules |= {f"{side:.0%} of the choices fell on button A.": abs(side - 0.5) > 0.15 for side in sides}
    return [note for note, holds in rules.items() if holds]


def save(test: Test, result: Result, folder: Path) -> Path:
    """Write report.html, summary.json, answers.csv and the plots to ``folder``, all or none; returns the page."""
    plots = {each.task: figures(each) for each in counted(result.outcomes, "figures")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioLDMError(f"{folder} cannot be made: {error.strerror}.", "Use another --out.") from error
    contents: dict[Path, bytes | str] = {
        folder / "summary.json": json.dumps(result.summary(), indent=1, ensure_ascii=False) + "\n",
        folder / "answers.csv": answers_csv(result),
        folder / "report.html": page(test, result, plots, folder),
    }
    for task, pictures in plots.items():
        contents |= {folder / f"{task}_{name}.png": picture.png() for name, picture in pictures.items()}
    publish(contents)
    return folder / "report.html"


def answers_csv(result: Result) -> str:
    head = ["rater", "counted", "kind", "task", "prompt", "versions", "answer", "seconds"]
    rows: list[Sequence[object]] = []
    for rater in result.raters:
        for item in rater.judgements:
            answer = item.answer if not isinstance(item.answer, list) else " ".join(map(str, item.answer))
            what = [rater.number, int(not rater.reasons), item.kind, item.task, item.prompt]
            rows.append([*what, " ".join(item.versions), answer, item.seconds])
    return csv_text(head, rows)


def page(test: Test, result: Result, plots: dict[Any, dict[str, Picture]], folder: Path) -> str:
    """One HTML page with the plots inside; the players use the test's sounds by links relative to ``folder``."""
    design = test.design
    sections = [
        f"<p>Method {result.method}, {len(result.raters) - len(result.excluded)} of {len(result.raters)} raters "
        f"counted, {len(design.systems)} systems, {len(design.prompts)} prompts, at {test.about['lufs']:g} LUFS. "
        f"Intervals: 95 %, bootstrap over raters and prompts together, {result.settings['resamples']} draws. "
        "p: Wilcoxon signed ranks over prompts (abx: binomial), Holm over all pairs.</p>",
        *(f'<p class="warn">{html.text(note)}</p>' for note in result.notes),
    ]
    for each in result.outcomes:
        parts = [html.table(*part) for part in tables(each)]
        parts += [f"<p>{html.figure(picture, name)}</p>" for name, picture in plots[each.task].items()]
        sections.append(html.section(each.task, f"<p>{html.text(headline(each))}.</p>", *parts))
    head = ["rater", "device", "answers", "catches passed", "repeats alike", "median s", ""]
    raters = [
        [f"{row['rater']} {row['name']}", row["device"], f"{row['answers']}/{row['of']}", row["catches"],
         row["repeats_alike"], number(row["median_seconds"]), "; ".join(row["excluded_for"]) or "counted"]
        for row in map(Screened.row, result.raters)
    ]  # fmt: skip
    sections.append(html.section("Raters", html.table(head, raters)))

    place = os.path.relpath((test.folder / "audio").resolve(), folder.resolve())
    versions = [*design.systems, *design.anchors]

    def player(version: str, prompt: str) -> Markup:
        source = html.text(f"{place}/{test.names[version, prompt]}")
        return Markup(f'<audio controls preload="none" src="{source}"></audio>')

    clips = [
        [caption or prompt, *(player(version, prompt) for version in versions)]
        for prompt, caption in zip(design.prompts, design.captions, strict=True)
    ]
    sections.append(html.section("Clips", html.table(["prompt", *versions], clips)))
    return html.page(result.title, *sections)
