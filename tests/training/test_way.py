"""How much code of ours a training runs through before its loop."""

import os
import subprocess
import sys
from pathlib import Path

TRACE = """
import os, sys
import audioldm
# What only imports is no step of the way, and slow to trace.
import diffusers.models.autoencoders.autoencoder_kl, torch.utils.tensorboard
import audioldm.cli.training, audioldm.training.run_folder, audioldm.training.vae, audioldm.training.previews
from audioldm.cli.app import run

root = os.path.dirname(audioldm.__file__)
lines, counts = {}, {}

class Reached(BaseException):
    pass

def imported(frame):
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False

def inside(frame, event, arg):
    if event == "line":
        lines.setdefault(frame.f_code.co_filename[len(root) + 1 :], set()).add(frame.f_lineno)
    return inside

def outside(frame, event, arg):
    code = frame.f_code
    if code.co_name == "fit" and code.co_filename.endswith("lightning/pytorch/trainer/trainer.py"):
        counts["fit"] = {name: len(part) for name, part in lines.items()}
    if code.co_name == "training_step" and code.co_filename.startswith(root):
        raise Reached
    if not code.co_filename.startswith(root) or imported(frame):
        return None  # what runs while modules are imported is no step of the way
    return inside

sys.settrace(outside)
try:
    run(["train", "tiny/vae", "run_dir=" + sys.argv[1]])
except Reached:
    pass
sys.settrace(None)
for name, count in sorted(counts["fit"].items()):
    print(count, name)
print("fit", sum(counts["fit"].values()), len(counts["fit"]))
print("step", sum(map(len, lines.values())), len(lines))
"""


def test_a_training_reaches_its_loop_in_few_lines(tmp_path: Path):
    """Distinct lines of functions of ours from the command to ``Trainer.fit``, nets and callbacks built among them."""
    script = tmp_path / "trace.py"
    script.write_text(TRACE)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path / "run"], capture_output=True, text=True, env=env, check=True
    )
    print(done.stdout)
    rows = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("fit", "step")))
    counts = [line.split(" ", 1) for line in done.stdout.splitlines() if line.endswith(".py")]
    typed = sum(int(count) for count, name in counts if name.startswith("cli/"))
    assert int(rows["fit"].split()[0]) - typed <= 120  # from the typed command on
    assert int(rows["fit"].split()[0]) <= 186
    assert int(rows["step"].split()[0]) <= 415
