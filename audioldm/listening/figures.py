"""Plots of a listening test: every axis has its unit, every point its interval.   Returns matplotlib figures."""

from typing import Any

import numpy as np

from audioldm.evaluation.picture import Picture
from audioldm.listening.analysis import Line, Outcome

BLUE = "#1d4f91"
GREY = "#8a95a3"
UNITS = {
    "quality": "mean opinion score, quality (1 to 5)",
    "relevance": "mean opinion score, fit to the caption (1 to 5)",
    "mushra": "score (0 to 100)",
    "ab": "share of preferences (ties split)",
    "abx": "share of right answers (0.5 is guessing)",
}


def figures(outcome: Outcome) -> dict[str, Picture]:
    """Every plot of one task, by name."""
    plots = {}
    if outcome.task in ("ab", "abx"):
        plots["shares"] = forest(outcome.pairs, UNITS[outcome.task], middle=0.5, limits=(0, 1))
    if outcome.task == "ab":
        plots["strengths"] = forest(outcome.systems, "Bradley-Terry log-strength (nat, mean 0)", middle=0.0)
    if outcome.scores:
        limits = (-2, 102) if outcome.task == "mushra" else (0.8, 5.2)
        plots["means"] = forest(outcome.systems, UNITS[outcome.task], limits=limits)
        plots["scores"] = boxes(outcome, limits)
        plots["differences"] = forest(outcome.pairs, f"difference of {UNITS[outcome.task]}", middle=0.0)
    plots["prompts"] = by_prompt(outcome)
    return plots


def canvas(width: float, height: float) -> tuple[Picture, Any]:
    """A figure with one pair of axes."""
    figure = Picture(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#e4e8ed")
    axes.set_axisbelow(True)
    return figure, axes


def forest(
    lines: list[Line], unit: str, *, middle: float | None = None, limits: tuple[float, float] | None = None
) -> Picture:
    """Each line's mean and 95 % interval, best on top."""
    figure, axes = canvas(7, 1.1 + 0.42 * len(lines))
    ordered = sorted(lines, key=lambda line: line.estimate.mean)
    for y, line in enumerate(ordered):
        mean = line.estimate
        axes.plot([mean.low, mean.high], [y, y], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.plot(mean.mean, y, "o", color=BLUE, markersize=6)
    if middle is not None:
        axes.axvline(middle, color=GREY, linewidth=1, linestyle="--")
    axes.set(ylim=(-0.6, len(lines) - 0.4), xlabel=f"{unit}\nmean and 95 % interval over raters and prompts")
    if limits is not None:
        axes.set_xlim(*limits)
    axes.set_yticks(range(len(ordered)), labels=[f"{line.name} (n={line.n})" for line in ordered])
    return figure


def boxes(outcome: Outcome, limits: tuple[float, float]) -> Picture:
    """Single scores: quartiles, whiskers to the extremes, every answer as a dot."""
    names = sorted(outcome.scores, key=lambda name: float(np.median(outcome.scores[name])))
    figure, axes = canvas(7, 1.1 + 0.5 * len(names))
    rng = np.random.default_rng(0)
    for y, name in enumerate(names):
        scores = np.array(outcome.scores[name], dtype=float)
        axes.plot(scores, y + rng.uniform(-0.18, 0.18, len(scores)), ".", color=GREY, markersize=3, alpha=0.6)
    axes.boxplot(
        [outcome.scores[name] for name in names], positions=range(len(names)), orientation="horizontal",
        whis=(0, 100), widths=0.5, medianprops={"color": BLUE, "linewidth": 2}, manage_ticks=False,
    )  # fmt: skip
    axes.set(xlim=limits, ylim=(-0.6, len(names) - 0.4))
    axes.set_xlabel(f"{UNITS[outcome.task]}\nmedian, quartiles, extremes and every answer")
    axes.set_yticks(range(len(names)), labels=names)
    return figure


def by_prompt(outcome: Outcome) -> Picture:
    """Mean of each prompt: which prompts carry the result."""
    names = sorted({name for means in outcome.by_prompt.values() for name in means})
    prompts = sorted(outcome.by_prompt, key=lambda prompt: outcome.by_prompt[prompt].get(names[0], np.nan))
    figure, axes = canvas(7, 1.3 + 0.28 * len(prompts))
    for name in names:
        places = [(outcome.by_prompt[prompt].get(name), y) for y, prompt in enumerate(prompts)]
        known = [(value, y) for value, y in places if value is not None]
        axes.plot([value for value, _ in known], [y for _, y in known], "o", markersize=5, label=name)
    axes.set(
        ylim=(-0.6, len(prompts) - 0.4), xlabel=f"{UNITS[outcome.task]}\nmean over raters, prompt by prompt"
    )
    axes.set_yticks(range(len(prompts)), labels=prompts, fontsize=8)
    if outcome.task in ("ab", "abx"):
        axes.set_xlim(-0.02, 1.02)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure
