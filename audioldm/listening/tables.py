"""The rows that the terminal and the page both show."""

import numpy as np

from audioldm.listening.analysis import Line, Outcome


def table_parts(found: Outcome) -> list[tuple[list[str], list[list[str]]]]:
    """Heads and rows of a task's tables."""
    parts = []
    if found.systems:
        value = "log-strength" if found.task == "ab" else "mean"
        rows = [[line.name, *cells_of(line), *quartiles(line)] for line in found.systems]
        parts.append(
            (["system", value, "95 % interval", "n", *(["median (IQR)"] if found.scores else [])], rows)
        )
    if found.pairs:
        value = {"ab": "share", "abx": "right"}.get(found.task, "difference")
        head = ["pair", value, "95 % interval", "n", "p", "p (Holm)"]
        test = "wins/ties/losses" if found.task == "ab" else None
        rows = [
            [
                line.name,
                *cells_of(line),
                number(line.p),
                number(line.p_holm),
                *([counts(line)] if test else []),
            ]
            for line in found.pairs
        ]
        parts.append(([*head, *([test] if test else [])], rows))
    return parts


def cells_of(line: Line) -> list[str]:
    """Mean, interval and n of a row."""
    found = line.estimate
    return [number(found.mean), f"{number(found.low)} to {number(found.high)}", str(line.n)]


def quartiles(line: Line) -> list[str]:
    """Median and quartiles, where a row has them."""
    if "quartiles" not in line.extra:
        return []
    low, middle, high = line.extra["quartiles"]
    return [f"{middle:g} ({low:g} to {high:g})"]


def counts(line: Line) -> str:
    """Wins, ties and losses."""
    return f"{line.extra['wins']}/{line.extra['ties']}/{line.extra['losses']}"


def number(value: float | None) -> str:
    """Three digits; "-" where there is none."""
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
