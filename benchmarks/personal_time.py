"""Does every personal recipe end within 10 minutes on 2 cores?   Wall time of `audioldm train personal/KIND`.

    python -m benchmarks.personal_time my_sounds/                                   # about 8 minutes on 2 idle cores
    python -m benchmarks.personal_time my_sounds/ --whole lora dreambooth           # these at their full length, too

The command itself, from start to file, at the recipe's defaults but for its length: once with few batches and once with
more.   The whole is the shorter run and the difference, times as many batches as are left; ``--whole`` runs them all
and stands beside it.   Writes benchmarks/results/personal/time.{json,md}.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from audioldm import recipes
from benchmarks.control import RESULTS
from benchmarks.personal_table import METHODS

LIMIT = 10.0
"""minutes"""
KINDS = (*dict.fromkeys(METHODS.values()),)


def seconds(kind: str, sounds: Path, batches: int, *overrides: str) -> float:
    """Wall time of one training, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as name:
        words = [f"data.folder={sounds}", f"run_dir={name}/run", f"batches={batches}", *overrides]
        begin = time.perf_counter()
        command = [sys.executable, "-m", "audioldm", "train", f"personal/{kind}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{kind}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        return time.perf_counter() - begin


def whole(short: tuple[int, float], longer: tuple[int, float], batches: int) -> float:
    """Minutes of ``batches`` by the line through two runs of (batches, seconds).

    >>> whole((10, 20.0), (30, 40.0), 290)
    5.0
    """
    each = (longer[1] - short[1]) / (longer[0] - short[0])
    return (short[1] + (batches - short[0]) * each) / 60


def table(report: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        "# How long personal training takes\n",
        f"`audioldm train personal/KIND` on {report['sounds']} sounds, the recipe's own batches of 8, "
        f"{report['cores']} cores; the bar is {LIMIT:g} minutes. benchmarks/personal_time.py says how.\n",
        "| kind | batches | s a batch | minutes, by the line | minutes, run whole | below the bar |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, row in report["kinds"].items():
        ran = "-" if row.get("whole") is None else f"{row['whole']:.1f}"
        told = "yes" if max(row["minutes"], row.get("whole") or 0) < LIMIT else "NO"
        lines.append(
            f"| {name} | {row['batches']} | {row['each']:.2f} | {row['minutes']:.1f} | {ran} | {told} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Every kind in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--whole", nargs="*", choices=KINDS, default=[])
    parser.add_argument("--batches", type=int, nargs=2, default=[5, 25])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "personal")
    parser.add_argument("overrides", nargs="*", help="more settings of the recipes")
    given = parser.parse_intermixed_args()
    place = given.out / "time.json"
    report = json.loads(place.read_text()) if place.exists() else {"kinds": {}}
    report |= {"sounds": len(list(given.sounds.iterdir())), "cores": given.cores}
    more = [f"threads={given.cores}", *given.overrides]
    for kind in given.kinds:
        full = recipes.load(f"personal/{kind}", []).batches
        short, longer = ((n, seconds(kind, given.sounds, n, *more)) for n in given.batches)
        if longer[1] <= short[1]:
            raise SystemExit(
                f"{kind}: {longer[0]} batches took {longer[1]:.0f} s and {short[0]} took {short[1]:.0f}: "
                f"something else ran; try again with --kinds {kind} on a quiet machine"
            )
        row = {"batches": full, "each": (longer[1] - short[1]) / (longer[0] - short[0])}
        row["minutes"] = whole(short, longer, full)
        row["whole"] = seconds(kind, given.sounds, full, *more) / 60 if kind in given.whole else None
        report["kinds"][kind] = row
        given.out.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(report, indent=1) + "\n")
        place.with_suffix(".md").write_text(table(report))
        print(f"{kind}: {row['minutes']:.1f} minutes", flush=True)
    print(table(report))


if __name__ == "__main__":
    main()
