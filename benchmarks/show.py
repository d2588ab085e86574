"""Tables of result files.

python -m benchmarks.show benchmarks/results/cpu.json            # Markdown to standard output
"""

import argparse
import json
from pathlib import Path
from typing import Any

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


def main() -> None:
    """Print the tables of each file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        print(tables(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
