"""Tables and charts of result files.

python -m benchmarks.show benchmarks/results/cpu.json            # Markdown to standard output, charts beside the file
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PLAIN = (
    "group", "name", "times_faster", "s", "min_s", "max_s", "n", "first_s", "spent_s", "where", "error", "skipped",
)  # fmt: skip
"""Keys with a column of their own, or of no interest in a table."""


def described(machine: dict[str, Any]) -> str:
    """One line: where, when, with what."""
    place = machine.get("card") or f"{machine['processor']}, {machine['threads']} threads"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{place}; {machine['date']}; load at the start {machine['load']:.1f}; {versions}"


def number(value: Any) -> str:
    """Four digits at most."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tables(content: dict[str, Any]) -> str:
    """Markdown: ratios first, then seconds with their spread; what failed or was skipped is said."""
    lines, group = [described(content["machine"]), ""], None
    for row in content["rows"]:
        if row["group"] != group:
            group = row["group"]
            lines += [
                "",
                f"**{group}**",
                "",
                "| row | variant | times faster | s (least..most) | more |",
                "|---|---|--:|--:|---|",
            ]
        why = row.get("error") or row.get("skipped")
        variants = {k: v for k, v in row.items() if isinstance(v, dict)} or {"": row}
        for name, value in variants.items():
            more = ", ".join(
                f"{k} {number(v)}"
                for k, v in value.items()
                if k not in PLAIN
                and v is not None
            )  # fmt: skip
            spread = f"{value['s']:.4g}" if "s" in value else ""
            spread += (
                f" ({value['min_s']:.4g}..{value['max_s']:.4g}, n={value['n']})" if "min_s" in value else ""
            )
            note = why or value.get("error") or more
            lines.append(
                f"| {row['name']} | {name} | {number(value.get('times_faster', ''))} | {spread} | {note} |"
            )
    return "\n".join(lines)


def charts(content: dict[str, Any], path: Path) -> None:
    """Time and memory against length, batch and steps."""
    rows = [r for r in content["rows"] if r["group"].startswith("growth") and "s" in r]
    if not rows:
        return
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.5), layout="constrained")
    base = {"seconds": rows[0]["seconds"], "steps": rows[0]["steps"], "batch": 1}
    for column, (axis, unit) in enumerate(
        (("seconds", "length of the clip in s"), ("batch", "clips at once"), ("steps", "steps"))
    ):
        others = [name for name in base if name != axis]
        points = sorted(
            (r[axis], r["s"], r["peak_mib"]) for r in rows if all(r[o] == base[o] for o in others)
        )
        for line, (index, label) in enumerate(((1, "time in s"), (2, "peak memory in MiB"))):
            axes[line][column].plot([p[0] for p in points], [p[index] for p in points], "o-")
            axes[line][column].set(xlabel=unit, ylabel=label, ylim=(0, None), xlim=(0, None))
            axes[line][column].grid(alpha=0.3)
    figure.suptitle(f"embedded model, exact, {content['machine']['processor']}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Print the tables of each file and draw its charts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        content = json.loads(path.read_text())
        print(tables(content))
        charts(content, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
