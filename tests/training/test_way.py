"""How much code of ours a training runs through before its loop."""

import os
import re
import subprocess
import sys
from pathlib import Path

TRACE = Path(__file__).parents[1] / "trace.py"


def test_a_training_reaches_its_loop_in_few_lines(tmp_path: Path):
    """``audioldm train tiny/vae`` in a process of its own: what an earlier training has cached would not count."""
    done = subprocess.run(
        [sys.executable, TRACE, "train"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    print(done.stdout)
    to_loop, to_step = re.findall(r"(\d+) lines to", done.stdout)
    assert int(to_loop) <= 120
    assert int(to_step) <= 365
