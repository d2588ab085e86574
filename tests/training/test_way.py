"""How much code of ours a training runs through before its loop."""

import os
import re
import subprocess
import sys
from pathlib import Path

TRACE = Path(__file__).parents[1] / "trace.py"


def test_a_training_reaches_its_loop_in_few_lines(tmp_path: Path):
    """In a process of its own: what an earlier training has cached would not count."""
    done = subprocess.run(
        [sys.executable, TRACE, "train", tmp_path / "run"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    print(done.stdout)
    to_loop, to_step = re.findall(r"(\d+) lines to", done.stdout)
    first, _ = done.stdout.split("lines to the loop")
    typed = sum(int(count) for count in re.findall(r"(\d+)  cli/", first))
    assert int(to_loop) - typed <= 120  # from the typed command on
    assert int(to_loop) <= 176
    assert int(to_step) <= 395
