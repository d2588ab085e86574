"""From a test with answers to summary.json, answers.csv, plots and a page with the clips unblinded."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioldm.errors import AudioLDMError
from audioldm.evaluation import html
from audioldm.evaluation.picture import Picture
from audioldm.listening.analysis import Answer, Outcome, Row, Screened, outcome, screen
from audioldm.listening.design import DAMAGED, METHODS, PAIRED
from audioldm.listening.folder import Test
from audioldm.pipeline.outputs import publish
from audioldm.progress import counted
from audioldm.tables import csv_text, markdown

FEW_RATERS = 6
BLUE, GREY = "#1d4f91", "#8a95a3"
UNITS = {
    "quality": "mean opinion score, quality (1 to 5)",
    "relevance": "mean opinion score, fit to the caption (1 to 5)",
    "mushra": "score (0 to 100)",
    "ab": "share of preferences (ties split)",
    "abx": "share of right answers (0.5 is guessing)",
}
Limits = tuple[float, float] | None


@dataclass
class Result:
    title: str
    method: str
    raters: list[Screened]
    outcomes: list[Outcome]
    settings: dict[str, Any]
    notes: list[str]

    @property
    def excluded(self) -> list[Screened]:
        return [screened for screened in self.raters if screened.reasons]

    @property
    def counted(self) -> str:
        return f"{len(self.raters) - len(self.excluded)} of {len(self.raters)} raters counted"

    def summary(self) -> dict[str, Any]:
        return {
            "title": self.title, "method": self.method, "raters": len(self.raters),
            "raters_counted": len(self.raters) - len(self.excluded), "outcomes": list(map(asdict, self.outcomes)),
            "screening": list(map(Screened.row, self.raters)), "notes": self.notes, "settings": self.settings,
        }  # fmt: skip

    def text(self) -> str:
        lines = [f"{self.title} ({self.method}): {self.counted}"]
        for out in self.excluded:
            lines.append(f"  left out: rater {out.rater.number} {out.rater.name}: {'; '.join(out.reasons)}")
        for each in self.outcomes:
            lines += ["", f"{each.task}: {headline(each)}"]
            for rows in filter(None, (each.systems, each.pairs)):
                lines += ["", markdown(list(rows[0]), [list(row.values()) for row in rows])]
        return "\n".join([*lines, "", *self.notes]) + "\n"


def headline(result: Outcome) -> str:
    alpha = "-" if result.alpha is None else f"{result.alpha:.3f}"
    return f"{result.answers} answers, {result.raters} raters x {result.prompts} prompts, Krippendorff alpha {alpha}"


def analyse(test: Test, *, keep_all: bool = False, resamples: int = 10_000, seed: int = 0) -> Result:
    """Screen the raters, unblind, and analyse each task.   AudioLDMError where no answer counts."""
    raters, cut = screen(test, keep_all=keep_all)
    kept = [screened for screened in raters if not screened.reasons]
    judgements = main_answers(kept)
    if not main_answers(raters):
        hint = "Serve it: audioldm listen serve."
        raise AudioLDMError(f"{test.folder} holds no answers yet.", hint, code=1)
    if not judgements:
        why = "; ".join(f"rater {each.rater.number}: {', '.join(each.reasons)}" for each in raters)
        raise AudioLDMError(f"No rater passed the screening ({why}).", "--keep-all counts them.", code=1)
    rng, method = np.random.default_rng(seed), test.design.method
    names = counted(METHODS[method], "tasks")
    tasks = [outcome(task, judgements, resamples=resamples, rng=rng) for task in names]
    simulated = sum(screened.device == "simulated" for screened in raters)
    ears = f"{simulated} of {len(raters)} raters are simulated: no ears took part in their answers."
    one = "One rater: the intervals are over prompts only and say nothing about other listeners."
    notes = {
        ears: simulated > 0,
        one: len(kept) == 1,
        f"{len(kept)} raters: intervals of so few raters are too narrow.": 1 < len(kept) < FEW_RATERS,
        "Not BS.1534: it asks for a low and a mid anchor.": method == "mushra",
        f"{cut} line(s) of the log were cut off by a crash and do not count.": cut > 0,
    }
    settings = {"resamples": resamples, "seed": seed, "keep_all": keep_all, "key": test.about["key"]}
    hold = [note for note, holds in notes.items() if holds]
    return Result(test.about["title"], method, raters, list(filter(None, tasks)), settings, hold)


def main_answers(raters: list[Screened]) -> list[Answer]:
    return [item for screened in raters for item in screened.of_kind("main")]


def save(test: Test, result: Result, folder: Path) -> Path:
    """Write report.html, summary.json, answers.csv and the plots to ``folder``, all or none; returns the page.

    The plots are inside the page; its players use the test's sounds by links relative to ``folder``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioLDMError(f"{folder} cannot be made: {error.strerror}.", "Use another --out.") from error
    design, plots = test.design, list(map(figures, counted(result.outcomes, "figures")))
    place = os.path.relpath((test.folder / "audio").resolve(), folder.resolve())
    versions = [name for name in design.versions() if not name.startswith(DAMAGED)]
    size = f"{len(design.systems)} systems, {len(design.prompts)} prompts, at {test.about['lufs']:g} LUFS"
    page = html.page(
        "listening/report.html", title=result.title, warnings=result.notes, draws=result.settings["resamples"],
        summary=f"Method {result.method}, {result.counted}, {size}.", raters=list(map(Screened.row, result.raters)),
        outcomes=zip(result.outcomes, map(headline, result.outcomes), plots, strict=True), figure=html.figure,
        place=place, names=test.names, versions=versions,
        clips=zip(design.prompts, design.captions, strict=True),
    )  # fmt: skip
    contents: dict[Path, bytes | str] = {
        folder / "summary.json": json.dumps(result.summary(), indent=1, ensure_ascii=False) + "\n",
        folder / "answers.csv": answers_csv(result),
        folder / "report.html": page,
    }
    for each, pictures in zip(result.outcomes, plots, strict=True):
        contents |= {folder / f"{each.task}_{name}.png": picture.png() for name, picture in pictures.items()}
    publish(contents)
    return folder / "report.html"


def answers_csv(result: Result) -> str:
    head = ["rater", "counted", "kind", "task", "prompt", "versions", "answer", "seconds"]
    rows = []
    for rater in result.raters:
        for item in rater.judgements:
            answer, versions = item["answer"], " ".join(item["versions"])
            answer = " ".join(map(str, answer)) if isinstance(answer, list) else answer
            what = [item[name] for name in ("kind", "task", "prompt")]
            rows.append([item["rater"], int(not rater.reasons), *what, versions, answer, item.get("seconds")])
    return csv_text(head, rows)


def figures(outcome: Outcome) -> dict[str, Picture]:
    """Means or shares with intervals, and prompt by prompt, by name."""
    unit, prompts = UNITS[outcome.task], {"prompts": by_prompt(outcome)}
    if outcome.task in PAIRED:
        plots = {"shares": forest(outcome.pairs, unit, 0.5, (0, 1))}
        if outcome.task == "ab":
            plots["strengths"] = forest(outcome.systems, "Bradley-Terry log-strength (nat, mean 0)", 0.0)
        return plots | prompts
    means = forest(outcome.systems, unit, None, (-2, 102) if outcome.task == "mushra" else (0.8, 5.2))
    return {"means": means, "differences": forest(outcome.pairs, f"difference of {unit}", 0.0), **prompts}


def canvas(height: float, names: list[str], unit: str, limits: Limits = None) -> Picture:
    """A figure with a row for each name, the first at the bottom."""
    figure = Picture(figsize=(7, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e8ed")
    axes.set_axisbelow(True)
    axes.set(ylim=(-0.6, len(names) - 0.4), xlabel=unit)
    if limits:
        axes.set_xlim(limits)
    axes.set_yticks(range(len(names)), labels=names, fontsize=10 if height < 8 else 8)
    return figure


def forest(rows: list[Row], unit: str, middle: float | None, limits: Limits = None) -> Picture:
    """Each row's mean and 95 % interval, best on top."""
    ordered = sorted(rows, key=lambda row: float(row["mean"]))
    names = [f"{row['name']} (n={row['n']})" for row in ordered]
    unit = f"{unit}\nmean and 95 % interval over raters and prompts"
    figure = canvas(1.1 + 0.42 * len(rows), names, unit, limits)
    [axes] = figure.axes
    for y, row in enumerate(ordered):
        axes.plot([row["low"], row["high"]], [y, y], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.plot(row["mean"], y, "o", color=BLUE, markersize=6)
    if middle is not None:
        axes.axvline(middle, color=GREY, linewidth=1, linestyle="--")
    return figure


def by_prompt(outcome: Outcome) -> Picture:
    """Mean of each prompt: which prompts carry the result."""
    names = sorted({name for means in outcome.by_prompt.values() for name in means})
    prompts = sorted(outcome.by_prompt, key=lambda prompt: outcome.by_prompt[prompt].get(names[0], np.nan))
    unit = f"{UNITS[outcome.task]}\nmean over raters, prompt by prompt"
    limits = (-0.02, 1.02) if outcome.task in PAIRED else None
    figure = canvas(1.3 + 0.28 * len(prompts), prompts, unit, limits)
    for name in names:
        means = [outcome.by_prompt[prompt].get(name, np.nan) for prompt in prompts]
        figure.axes[0].plot(means, range(len(prompts)), "o", markersize=5, label=name)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure
