"""A comparison's report: one HTML page with charts and the clips to hear, tables for a terminal, a CSV of the clips."""

from collections.abc import Sequence
from typing import Any

from audioldm.datasets.decode import read_mono
from audioldm.evaluation import html
from audioldm.evaluation.clips import Clip
from audioldm.evaluation.comparison import Comparison, Line, Report
from audioldm.evaluation.picture import Picture
from audioldm.tables import csv_text, markdown

SHOWN = 16  # clips with players: half of them the worst
DISTANCES = ("FD", "FD_inf", "KAD", "KL")
BY_CLIP = ("kl", "bridge", "clap")


def as_html(report: Report, compared: Comparison, *, title: str) -> str:
    warnings = "".join(f'<p class="warn">{html.text(line)}</p>' for line in report.warnings)
    tables = []
    for name, lines in report.lines.items():
        scores = html.table(*score_table(lines))
        tables.append(html.section(f"Scores by {name}", scores, charts(name, lines)))
    shown = cards(report, compared.runs[0], compared.real if compared.pairs else ())
    meanings = html.table(["score", "meaning"], list(report.about["scores"].items()))
    meanings = html.section("What the scores mean", meanings)
    return html.page(title, warnings, conditions(report), *tables, shown, meanings)


def score_table(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: one row a score, one column a set."""
    names = dict.fromkeys(name for line in lines for name in line.scores)
    rows = [[name, *(str(line.scores.get(name, "")) for line in lines)] for name in names]
    return ["score", *map(label, lines)], rows


def label(line: Line) -> str:
    return f"{line.name} (n={line.n})"


def conditions(report: Report) -> str:
    about = report.about
    settings = [(key, html.plain(about[key])) for key in about if key not in ("scores", "embedders")]
    sets = [[name, *counts.values()] for name, counts in report.census.items()]
    heads = ["set", *next(iter(report.census.values()), {})]
    nets = [list(net.values()) for net in about["embedders"]]
    columns = ["embedder", "sha256 of the weights", "width", "rate (Hz)", "front end"]
    tables = (["setting", "value"], settings), (heads, sets), (columns, nets)
    return html.section("Conditions", *(html.table(head, rows) for head, rows in tables))


def charts(name: str, lines: Sequence[Line]) -> str:
    """Distances of every row beside one another, and the line to 1/n = 0."""
    by_score = {key: [line for line in lines if key in line.scores] for key in DISTANCES}
    shown = {key: part for key, part in by_score.items() if len(part) > 1}
    parts = [html.figure(bars(shown, len(lines)), f"distances by {name}")] if shown else []
    if drawn := [line for line in by_score["FD_inf"] if line.scores["FD_inf"].points]:
        parts.append(html.figure(extrapolation(drawn), f"FD by {name} against 1/n"))
    return "".join(parts)


def bars(shown: dict[str, list[Line]], rows: int) -> Picture:
    """A panel a score: the generated sets in red, real ones in blue."""
    figure = Picture(figsize=(11, 0.8 + 0.42 * rows))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (key, part) in zip(panels, shown.items(), strict=True):
        scores = [line.scores[key] for line in part]
        colours = ["#c2410c" if line.name.startswith("generated") else "#3f6b8f" for line in part]
        errors = [score.error or 0.0 for score in scores]
        axes.barh([*map(label, part)], [score.value for score in scores], xerr=errors, color=colours)
        axes.set_title(key, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    return figure


def extrapolation(lines: Sequence[Line]) -> Picture:
    """FD against 1/n with the fitted lines."""
    figure = Picture(figsize=(6.5, 3.2))
    axes = figure.subplots()
    for line in lines:
        score = line.scores["FD_inf"]
        x, y = zip(*((1 / n, distance) for n, distance in score.points or ()), strict=True)
        slope = (sum(y) / len(y) - score.value) / (sum(x) / len(x))
        (dots,) = axes.plot(x, y, "o", markersize=4, label=line.name)
        axes.plot([0, max(x)], [score.value, score.value + slope * max(x)], color=dots.get_color())
    axes.set(xlabel="1 / n", ylabel="FD", xlim=(0, None))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def examples(report: Report) -> list[tuple[str, dict[str, Any]]]:
    """Clips to hear: the worst ones by KL or by caption, then evenly spread ones."""
    first = [row for row in report.clips if row["set"] == 1]
    key = next((name for name in BY_CLIP if first and name in first[0]), None)
    if key is None:
        return [("", row) for row in first[:SHOWN]]
    half = SHOWN // 2
    order = sorted(first, key=lambda row: row[key], reverse=key == "kl")
    step = max(1, (len(order) - half) // half)
    spread = [(f"rank {i + 1} by {key}", order[i]) for i in range(half, len(order), step)]
    return [*((f"worst by {key}", row) for row in order[:half]), *spread[:half]]


def cards(report: Report, generated: Sequence[Clip], real: Sequence[Clip]) -> str:
    """Cards with players and spectrograms, the reference under the generated clip."""
    sides = ("generated", generated), ("reference", real)
    by_id = {(side, clip.id): clip for side, clips in sides for clip in clips}
    parts = []
    for reason, row in examples(report):
        values = ", ".join(f"{name} {row[name]:.3g}" for name in BY_CLIP if name in row)
        sounds = []
        for side, _ in sides:
            if clip := by_id.get((side, row["id"])):
                wave, rate = read_mono(clip.path, start=clip.start, seconds=clip.seconds)
                sounds.append(f'<div class="small">{side}</div>{html.spectrogram(wave, rate)}')
                sounds.append(html.player(wave, rate))
        note = "; ".join(filter(None, (row["id"], reason, values)))
        parts.append(html.card(row["caption"] or row["id"], note, *sounds))
    scale = f"Spectrograms: log-mel, {html.TOP - html.RANGE:g} to {html.TOP:g} dB everywhere."
    return html.section("Clips", f'<p class="small">{scale}</p><div class="clips">{"".join(parts)}</div>')


def as_text(report: Report) -> str:
    """Conditions, one Markdown table an embedder, warnings."""
    facts = {key: value for key, value in (report.about | report.census).items() if key != "scores"}
    lines = [f"{key:<12} {html.plain(value)}" for key, value in facts.items()]
    for name, part in report.lines.items():
        lines += ["", f"by {name}", "", markdown(*score_table(part))]
    lines += [f"warning: {line}" for line in report.warnings]
    return "\n".join(lines) + "\n"


def as_csv(report: Report) -> str:
    names = list(dict.fromkeys(name for row in report.clips for name in row))
    return csv_text(names, [[row.get(name, "") for name in names] for row in report.clips])
