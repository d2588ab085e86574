"""``make fuzz``: everything that may come in from outside, broken in every way that a script can think of.

It prints, by kind, how many cases were tried, refused (one line and its exit code), survived and lost; a single lost
one is a fault of the package, and the exit code is 1.   The same seed gives the same cases.
"""

import argparse
import functools
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "PYTHONWARNINGS": "ignore"}

import contents
import doors
import harness
import processes
import web
import world

KINDS = {"doors": doors.cases, "contents": contents.cases, "processes": processes.cases, "web": web.cases}


def main() -> int:
    """Run the cases; 1 where one is lost."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--size", choices=("small", "large"), default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", help="kinds whose name has this in it")
    parser.add_argument("--name", default="", help="cases whose name has this in it")
    parser.add_argument("--keep", action="store_true", help="keep the folders of lost cases")
    options = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
    os.environ |= {
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }
    os.environ["AUDIOLDM_STORE"] = str(folder / "home" / "store")
    tempfile.tempdir = None
    shared = world.build(folder, large=options.size == "large", seed=options.seed)
    cases = [case for make in KINDS.values() for case in make(shared)]
    cases = [
        case
        for case in cases
        if any(word in case.kind for word in options.only.split(","))
        and any(word in case.name for word in options.name.split(","))
    ]
    ready = time.monotonic() - began
    tallies = harness.run_all(
        cases, folder / "rooms", shared.secret, jobs=options.jobs, tell=functools.partial(print, flush=True)
    )
    print(f"{'kind':<24}{'tried':>7}{'refused':>9}{'survived':>10}{'lost':>6}{'seconds':>9}")
    total = harness.Tally()
    for kind, tally in tallies.items():
        print(line(kind, tally))
        for name in ("tried", "refused", "survived", "lost", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    print(line("all", total))
    wall = time.monotonic() - began
    print(
        f"size {options.size}, seed {options.seed}: {wall:.0f} s, {ready:.0f} s of them to begin; lost {total.lost}"
    )
    if total.lost and options.keep:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if total.lost or not total.tried else 0


def line(kind: str, tally: harness.Tally) -> str:
    """A row of the table."""
    return f"{kind:<24}{tally.tried:>7}{tally.refused:>9}{tally.survived:>10}{tally.lost:>6}{tally.seconds:>9.1f}"


if __name__ == "__main__":
    sys.exit(main())
