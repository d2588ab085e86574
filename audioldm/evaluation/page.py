"""The report of a comparison as one HTML file: numbers, charts, and the clips to hear behind them."""

import html as escape
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from audioldm.datasets.decode import read_mono
from audioldm.evaluation import html
from audioldm.evaluation.comparison import Line, Report
from audioldm.evaluation.sets import Item

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 16
"""clips with players: half of them the worst"""
DISTANCES = ("FD", "FD_inf", "KAD", "KL")


def write_page(
    report: Report, made: Sequence[Item], real: Sequence[Item], *, paired: bool, title: str
) -> str:
    """The whole page."""
    warnings = "".join(f'<p class="warn">{escape.escape(text)}</p>' for text in report.warnings)
    sections = [warnings, conditions(report)]
    for name, lines in report.lines.items():
        sections.append(html.section(f"Scores by {name}", rows(lines), charts(name, lines)))
    sections.append(clips(report, made, real if paired else ()))
    sections.append(
        html.section(
            "What the scores mean", html.table(["score", "meaning"], list(report.about["scores"].items()))
        )
    )
    return html.page(title, *sections)


def conditions(report: Report) -> str:
    """Everything that decides the numbers."""
    flat = [(key, plain(value)) for key, value in report.about.items() if key not in ("scores", "embedders")]
    sets = [[name, *counts.values()] for name, counts in report.census.items()]
    heads = ["set", *next(iter(report.census.values()), {})]
    used = [[e["name"], e["rate"], e["dim"], e["sha256"], e["front"]] for e in report.about["embedders"]]
    return html.section(
        "Conditions",
        html.table(["setting", "value"], flat),
        html.table(heads, sets),
        html.table(["embedder", "rate (Hz)", "width", "sha256 of the weights", "front end"], used),
    )


def plain(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(part)}" for key, part in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, list | tuple) else str(value)


def rows(lines: Sequence[Line]) -> str:
    """One row a score, one column a set."""
    names = list(dict.fromkeys(name for line in lines for name in line.scores))
    cells = [[name, *(str(line.scores.get(name, "")) for line in lines)] for name in names]
    return html.table(["score", *(f"{line.name} (n={line.n})" for line in lines)], cells)


def new_figure(width: float, height: float) -> "Figure":
    """A figure that no window knows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def charts(name: str, lines: Sequence[Line]) -> str:
    """Distances of every row beside one another, and the line to 1/n = 0."""
    shown = [key for key in DISTANCES if sum(key in line.scores for line in lines) > 1]
    figure = new_figure(11, 0.8 + 0.42 * len(lines))
    panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, shown, strict=False):
        part = [line for line in lines if key in line.scores]
        values = [line.scores[key].value for line in part]
        errors = [line.scores[key].error or 0.0 for line in part]
        colours = ["#c2410c" if line.name.startswith("generated") else "#3f6b8f" for line in part]
        axes.barh([f"{line.name} (n={line.n})" for line in part], values, xerr=errors, color=colours)
        axes.set_title(key, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    parts = [html.picture(figure, f"distances by {name}")] if shown else []
    if any(line.scores["FD_inf"].points for line in lines if "FD_inf" in line.scores):
        parts.append(html.picture(extrapolation(lines), f"FD by {name} against 1/n"))
    return "".join(parts)


def extrapolation(lines: Sequence[Line]) -> "Figure":
    """FD against 1/n with the fitted lines."""
    figure = new_figure(6.5, 3.2)
    axes = figure.subplots()
    for line in lines:
        score = line.scores.get("FD_inf")
        if score is None or not score.points:
            continue
        x = [1 / n for n, _ in score.points]
        y = [distance for _, distance in score.points]
        slope = (sum(y) / len(y) - score.value) / (sum(x) / len(x))
        (drawn,) = axes.plot(x, y, "o", markersize=4, label=line.name)
        axes.plot([0, max(x)], [score.value, score.value + slope * max(x)], color=drawn.get_color())
    axes.set(xlabel="1 / n", ylabel="FD", xlim=(0, None))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def chosen(report: Report, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Clips to hear: the worst ones by KL or by caption, then evenly spread ones."""
    first = [row for row in report.clips if row["set"] == 1]
    key = next((name for name in ("kl", "bridge", "clap") if first and name in first[0]), None)
    if key is None:
        return [("", row) for row in first[:count]]
    order = sorted(first, key=lambda row: row[key], reverse=key == "kl")
    worst = [(f"worst by {key}", row) for row in order[: count // 2]]
    rest = order[count // 2 :]
    step = max(1, len(rest) // (count - count // 2))
    return (
        worst
        + [(f"rank {count // 2 + i + 1} by {key}", rest[i]) for i in range(0, len(rest), step)][
            : count - count // 2
        ]
    )


def clips(report: Report, made: Sequence[Item], real: Sequence[Item]) -> str:
    """Cards with players and spectrograms, the reference under the generated clip."""
    ours, theirs = {item.id: item for item in made}, {item.id: item for item in real}
    cards = []
    for why, row in chosen(report, SHOWN):
        told = ", ".join(f"{name} {row[name]:.3g}" for name in ("kl", "bridge", "clap") if name in row)
        parts = [f"<b>{escape.escape(row['caption'] or row['id'])}</b>"]
        note = "; ".join(part for part in (row["id"], why, told) if part)
        parts.append(f'<div class="small">{escape.escape(note)}</div>')
        for label, item in (("generated", ours.get(row["id"])), ("reference", theirs.get(row["id"]))):
            if item is not None:
                wave, rate = read_mono(item.path, start=item.start, seconds=item.seconds)
                parts.append(f'<div class="small">{label}</div>{html.spectrogram(wave, rate)}')
                parts.append(html.player(wave, rate))
        cards.append(f'<div class="clip">{"".join(parts)}</div>')
    scale = f"Spectrograms: log-mel, {html.TOP - html.RANGE:g} to {html.TOP:g} dB everywhere."
    return html.section("Clips", f'<p class="small">{scale}</p><div class="clips">{"".join(cards)}</div>')
