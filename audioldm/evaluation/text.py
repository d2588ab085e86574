"""A report as text for a terminal, and its clips as CSV."""

import csv
import io

from audioldm.evaluation.comparison import Report
from audioldm.evaluation.page import plain


def as_text(report: Report) -> str:
    """Conditions, one Markdown table an embedder, warnings."""
    lines = [f"{key:<12} {plain(value)}" for key, value in report.about.items() if key not in ("scores",)]
    lines += [f"{name:<12} {plain(counts)}" for name, counts in report.census.items()]
    for name, part in report.lines.items():
        names = list(dict.fromkeys(key for line in part for key in line.scores))
        lines += [
            "",
            f"by {name}",
            "",
            "| score | " + " | ".join(f"{line.name} (n={line.n})" for line in part) + " |",
        ]
        lines.append("|---" * (len(part) + 1) + "|")
        for key in names:
            cells = (str(line.scores.get(key, "")) for line in part)
            lines.append(f"| {key} | " + " | ".join(cells) + " |")
    lines += [f"warning: {text}" for text in report.warnings]
    return "\n".join(lines) + "\n"


def as_csv(report: Report) -> str:
    """One line a generated clip."""
    names = list(dict.fromkeys(name for row in report.clips for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.clips)
    return buffer.getvalue()
