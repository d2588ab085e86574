"""The page of a finished test: tables, plots, raters, and every clip under its own name."""

import base64
import html
import os
from pathlib import Path
from typing import Any

from audioldm.listening.analysis import Outcome
from audioldm.listening.figures import POWER_SHARES
from audioldm.listening.folder import Test
from audioldm.listening.tables import number, table_parts

STYLE = """body{font:16px/1.5 system-ui,sans-serif;color:#18212c;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .8rem;border-bottom:1px solid #d6dce3;text-align:right}
th:first-child,td:first-child{text-align:left}
img{max-width:100%}h2{margin-top:2.5rem;border-top:1px solid #d6dce3;padding-top:1rem}.note{color:#7a4b00}
audio{height:2rem;width:13rem}.wide{overflow-x:auto}"""


def page(
    test: Test, summary: dict[str, Any], outcomes: list[Outcome], pictures: dict[str, bytes], folder: Path
) -> str:
    """One HTML page with the plots inside; the players use the test's own sounds beside it."""
    title, settings = html.escape(summary["title"]), summary["settings"]
    parts = [
        f"<h1>{title}</h1>",
        f"<p>Method {summary['method']}, {summary['raters_counted']} of {summary['raters']} raters counted, "
        f"{len(test.design.systems)} systems, {len(test.design.prompts)} prompts, at {test.about['lufs']:g} LUFS. "
        f"Intervals: 95 %, bootstrap over raters and prompts together, {settings['resamples']} draws. "
        "p: Wilcoxon signed ranks over prompts (abx: binomial), Holm over all pairs.</p>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in summary["notes"]),
    ]
    for found in outcomes:
        parts.append(
            f"<h2>{found.task}</h2><p>{found.answers} answers, {found.raters} raters x {found.prompts} prompts. "
            f"Krippendorff alpha {number(found.alpha)}."
            + (f" Friedman p {number(found.friedman_p)}.</p>" if found.friedman_p is not None else "</p>")
        )
        parts += [html_table(*part) for part in table_parts(found)]
        parts += [
            f'<p><img alt="{name}" src="data:image/png;base64,{base64.b64encode(content).decode()}"></p>'
            for name, content in pictures.items()
            if name.startswith(f"{found.task}_")
        ]
    parts += ["<h2>Raters</h2>", raters_table(summary["screening"]), "<h2>Clips</h2>", players(test, folder)]
    if summary["power"]:
        parts += ["<h2>Power</h2>", power_rows(summary["power"])]
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    )
    return head + "\n".join(parts) + "</html>\n"


def power_rows(rows: list[dict[str, float]]) -> str:
    """What a paired test of each size can find."""
    head = ["raters x prompts", *(f"true share {share:.0%}" for share in POWER_SHARES)]
    body = [
        [f"{row['raters']} x {row['prompts']}", *(f"{row[f'{share:.0%}']:.2f}" for share in POWER_SHARES)]
        for row in rows
    ]
    told = (
        "<p>Share of such paired tests whose interval excludes one half (simulated). "
        "At a true share of 50 % these are false alarms.</p>"
    )
    return told + html_table(head, body)


def raters_table(rows: list[dict[str, Any]]) -> str:
    """Who took part, how carefully, who was left out and why."""
    body = [
        [f"{row['rater']} {row['name']}", row["device"], f"{row['answers']}/{row['of']}", row["catches"],
         row["repeats_alike"], number(row["median_seconds"]), "; ".join(row["excluded_for"]) or "counted"]
        for row in rows
    ]  # fmt: skip
    return html_table(["rater", "device", "answers", "catches passed", "repeats alike", "median s", ""], body)


def players(test: Test, folder: Path) -> str:
    """Every clip under its own name; relative links, so that the test's folder can move."""
    place = os.path.relpath((test.folder / "audio").resolve(), folder.resolve())
    names = test.names
    shown = [*test.design.systems, *test.design.anchors]
    link = f'<audio controls preload="none" src="{html.escape(place)}/{{}}"></audio>'
    rows = [
        [html.escape(caption or prompt), *(link.format(names[version, prompt]) for version in shown)]
        for prompt, caption in zip(test.design.prompts, test.design.captions, strict=True)
    ]
    return html_table(["prompt", *shown], rows, escaped=True)


def html_table(head: list[str], rows: list[list[str]], *, escaped: bool = False) -> str:
    """A table; ``escaped`` cells are HTML already."""
    kept = (lambda cell: cell) if escaped else (lambda cell: html.escape(str(cell)))
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{kept(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'
