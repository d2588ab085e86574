"""Generation over several processes by torchrun: the clips of one, each once, also after a worker was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def torchrun(*words, restarts=0):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # a store of its own for every start: in torchrun's, which torch 2.11 shares, the addresses of the dead remain
    store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment = {**os.environ, **store, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launch, f"--max-restarts={restarts}", "-m", "audioldm", *map(str, words)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def workers(process):
    """The two processes below torchrun's."""
    stats = [(path, path.read_text()) for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [
        int(path.parent.name)
        for path, text in stats
        if text.rpartition(")")[2].split()[1] == str(process.pid)
    ]


@pytest.mark.slow
def test_two_processes_share_a_prompt_file_and_a_lost_worker_is_made_good(tmp_path, tiny_model, command):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\n" + "".join(f"rain number {i}\n" for i in range(6)))
    words = [
        "generate",
        "--prompts",
        prompts,
        "-m",
        tiny_model,
        "--device",
        "cpu",
        "--seconds",
        "5",
        "--steps",
        "8",
    ]
    words += ["--set", "figure=false", "--resume"]
    process = torchrun(*words, "-o", tmp_path / "two", restarts=2)
    end = time.monotonic() + 120
    while not list((tmp_path / "two").glob("*.json")) and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(workers(process)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert command(*words, "-o", tmp_path / "one") == 0
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.wav")} for name in ("one", "two")
    )
    assert len(one) == 6 and one == two
