"""Plots of a listening test: every axis has its unit, every point its interval."""

import numpy as np

from audioldm.evaluation.picture import Picture
from audioldm.listening.analysis import Outcome, Row
from audioldm.listening.design import PAIRED

BLUE, GREY = "#1d4f91", "#8a95a3"
UNITS = {
    "quality": "mean opinion score, quality (1 to 5)",
    "relevance": "mean opinion score, fit to the caption (1 to 5)",
    "mushra": "score (0 to 100)",
    "ab": "share of preferences (ties split)",
    "abx": "share of right answers (0.5 is guessing)",
}
Limits = tuple[float, float] | None


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
    axes.set(ylim=(-0.6, len(names) - 0.4), xlabel=unit, xlim=limits)
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
    figure = canvas(1.3 + 0.28 * len(prompts), prompts, unit)
    for name in names:
        means = [outcome.by_prompt[prompt].get(name, np.nan) for prompt in prompts]
        figure.axes[0].plot(means, range(len(prompts)), "o", markersize=5, label=name)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure
