"""The table of all ways to teach a sound: a row a method, the mean over the sets and each set."""

import math
from typing import Any

METHODS = {
    "LoRA": "lora",
    "LoCon": "locon",
    "LoHa": "loha",
    "LoKr": "lokr",
    "DoRA": "dora",
    "DreamBooth, full": "dreambooth",
    "DreamBooth, LoRA": "dreambooth_lora",
    "Textual Inversion": "textual_inversion",
}
COLUMNS = {
    "clap": "CLAP to target",
    "yamnet": "YAMNet to target",
    "adherence": "adherence",
    "diversity": "diversity",
    "forgetting": "FD change",
    "parameters": "parameters",
    "megabytes": "file MB",
    "minutes": "min",
    "gigabytes": "GB",
}


def tables(content: dict[str, Any]) -> str:
    """Markdown: the mean over the sets that have every row, then each set."""
    cells = content["cells"]
    whole = {name: rows for name, rows in cells.items() if len(rows) == 3 + len(METHODS)}
    lines = [
        f"Base {content['base']}; "
        + ", ".join(f"{key} {value}" for key, value in content["settings"].items())
        + ". Sets: "
        + ", ".join(f"{name} ({caption})" for name, caption in content["sets"].items())
        + ". What the columns are: benchmarks/personal.py.",
    ]
    if whole:
        mean: dict[str, dict[str, float]] = {}
        for method in next(iter(whole.values())):
            found = [rows[method] for rows in whole.values()]
            mean[method] = {k: sum(row[k] for row in found) / len(found) for k in found[0]}
        lines += table(f"mean of {', '.join(whole)}", mean)
    for name, rows in cells.items():
        lines += table(name, rows)
    return "\n".join(lines) + "\n"


def table(title: str, rows: dict[str, dict[str, float]]) -> list[str]:
    """One Markdown table; FD is told as its change from the base's."""
    base = rows.get("base, told the caption", {}).get("forgetting", math.nan)
    lines = ["", f"**{title}**", "", "| | " + " | ".join(COLUMNS.values()) + " |"]
    lines.append("|---|" + "--:|" * len(COLUMNS))
    for method, row in rows.items():
        told = {**row, "forgetting": row["forgetting"] - base} if "forgetting" in row else row
        shown = [shape(key, told[key]) if key in told else "" for key in COLUMNS]
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return lines


def shape(key: str, value: float) -> str:
    """A number as its column shows it."""
    if key == "parameters":
        return f"{value:,.0f}"
    return f"{value:+.2f}" if key == "forgetting" else f"{value:.2f}"
