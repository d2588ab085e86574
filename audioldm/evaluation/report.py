"""A comparison's report: one HTML page with charts and the clips to hear, tables for a terminal, a CSV of the clips."""

from collections.abc import Iterator, Sequence
from typing import Any

from audioldm.datasets.decode import read_mono
from audioldm.evaluation import html
from audioldm.evaluation.comparison import Comparison
from audioldm.evaluation.picture import Picture
from audioldm.tables import csv_text, markdown

SHOWN = 16  # clips with players
DISTANCES = ("FD", "FD_inf", "KAD", "KL")
BY_CLIP = ("kl", "bridge", "clap")
Row = dict[str, Any]  # of a ``Comparison``


def as_html(report: Comparison, *, title: str) -> str:
    sets = [{"set": name, **counts} for name, counts in report.census.items()]
    embedders = [(name, score_table(part), charts(name, part)) for name, part in report.rows.items()]
    about = {"title": title, "warnings": report.warnings, "report": report, "sets": sets}
    return html.page("evaluation/pages/score.html", **about, embedders=embedders, cards=list(cards(report)))


def score_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: one row a score, one column a set."""
    names = dict.fromkeys(name for row in rows for name in row if name not in ("row", "n"))
    return ["score", *map(label, rows)], [[name, *(str(row.get(name, "")) for row in rows)] for name in names]


def label(row: Row) -> str:
    return f"{row['row']} (n={row['n']})"


def charts(name: str, rows: Sequence[Row]) -> list[str]:
    """Distances of every row beside one another, generated sets in red; and FD against 1/n with the fitted lines."""
    figures = {f"distances by {name}": bars(rows), f"FD by {name} against 1/n": lines_in_n(rows)}
    return [html.figure(figure, title) for title, figure in figures.items() if figure]


def bars(rows: Sequence[Row]) -> Picture | None:
    by_score = {key: [row for row in rows if key in row] for key in DISTANCES}
    shown = {key: part for key, part in by_score.items() if len(part) > 1}
    if not shown:
        return None
    figure = Picture(figsize=(11, 0.8 + 0.42 * len(rows)))
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (key, part) in zip(panels, shown.items(), strict=True):
        for row in part:
            colour = "#c2410c" if row["row"].startswith("generated") else "#3f6b8f"
            axes.barh(label(row), row[key].value, xerr=row[key].get("error", 0.0), color=colour)
        axes.set_title(key, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    return figure


def lines_in_n(rows: Sequence[Row]) -> Picture | None:
    scores = {row["row"]: row["FD_inf"] for row in rows if "points" in row.get("FD_inf", ())}
    if not scores:
        return None
    figure = Picture(figsize=(6.5, 3.2))
    axes = figure.subplots()
    for name, score in scores.items():
        x, y = zip(*((1 / n, distance) for n, distance in score["points"]), strict=True)
        slope = (sum(y) / len(y) - score.value) / (sum(x) / len(x))
        (dots,) = axes.plot(x, y, "o", markersize=4, label=name)
        axes.plot([0, max(x)], [score.value, score.value + slope * max(x)], color=dots.get_color())
    axes.set(xlabel="1 / n", ylabel="FD", xlim=(0, None))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def cards(report: Comparison) -> Iterator[tuple[str, str, list[str]]]:
    """Caption, a note, players and spectrograms, the reference under the generated clip; from the worst to the best."""
    first = [row for row in report.clips if row["set"] == 1]
    known = [name for name in BY_CLIP if name in first[0]]
    key = [*known, "id"][0]
    sets = [report.runs[0], report.real][: 1 + report.pairs]  # pairs are in one order
    order = sorted(zip(first, *sets, strict=True), key=lambda each: each[0][key], reverse=key == "kl")
    last = min(SHOWN, len(order)) - 1
    for place in (round(i * (len(order) - 1) / last) for i in range(last + 1)):
        (row, *clips), pieces = order[place], []
        values = ", ".join(f"{name} {row[name]:.3g}" for name in known)
        for side, clip in zip(("generated", "reference"), clips, strict=False):
            wave, rate = read_mono(clip.path, start=clip.start, seconds=clip.seconds)
            pieces += [side, html.spectrogram(wave, rate), html.player(wave, rate)]
        note = "; ".join(filter(None, (row["id"], f"rank {place + 1} by {key}", values)))
        yield row["caption"] or row["id"], note, pieces


def as_text(report: Comparison) -> str:
    """Conditions, one Markdown table an embedder, warnings."""
    lines = [f"{key:<12} {html.plain(value)}" for key, value in (report.about | report.census).items()]
    for name, part in report.rows.items():
        lines += ["", f"by {name}", "", markdown(*score_table(part))]
    lines += [f"warning: {line}" for line in report.warnings]
    return "\n".join(lines) + "\n"


def as_csv(report: Comparison) -> str:
    names = list(dict.fromkeys(name for row in report.clips for name in row))
    return csv_text(names, [[row.get(name, "") for name in names] for row in report.clips])
