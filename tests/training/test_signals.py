"""Real processes that are told to stop: the state is on the disk, one line says so, and the code is the signal's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from audioldm.training.callbacks import read_metrics

SETTINGS = [
    "batches=100000", "val_every=100000", "trainer.log_every_n_steps=1", "threads=1", "seconds=0.32", "batch_size=2",
    "task.adversarial_start=999999",
]  # fmt: skip


def start(run: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "audioldm", "train", "tiny/vae", *SETTINGS, f"run_dir={run}", *more]
    # a suite in the background hands an ignored SIGINT on; a terminal does not
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(run: Path, batch: int, process: "subprocess.Popen[str]") -> None:
    """Until that batch is in the curves."""
    path = run / "metrics.jsonl"
    for _ in range(3000):
        if path.exists() and path.read_text().count("\n") >= batch:
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("the training did not begin")


def batches_of(run: Path) -> int:
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return int(state["_extra_state"])


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_stopped_training_has_saved_its_state_and_does_not_look_like_a_success(name, code, tmp_path):
    run = tmp_path / "run"
    process = start(run)
    wait_for(run, 3, process)
    begin = time.time()
    process.send_signal(getattr(signal, name))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime - begin < 10
    lines = [line for line in stderr.splitlines() if line.startswith("audioldm:")]
    assert lines == [
        f"audioldm: tiny/vae was stopped by {name}; its state of batch {batches_of(run)} is saved. "
        "Type the same command to resume."
    ]
    assert batches_of(run) == read_metrics(run / "metrics.jsonl")[-1]["batch"] >= 3
    assert not list(run.rglob("*.part")) and not (run / "model").exists()


def test_a_step_that_takes_too_long_is_given_up(tmp_path):
    """A first batch of half a minute: there is no state to save, and the process does not wait for its end."""
    run = tmp_path / "run"
    process = start(run, "seconds=40", "batch_size=16")
    while not (run / "config.yaml").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    time.sleep(4)  # into the batch
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 143 and time.monotonic() - begin < 30
    assert "tiny/vae was stopped by SIGTERM; its run had no state to save yet." in stderr


def test_two_trainings_do_not_share_a_run_folder_and_a_dead_one_holds_nothing(tmp_path):
    run = tmp_path / "run"
    first = start(run)
    wait_for(run, 1, first)
    second = start(run)
    _, stderr = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"Process {first.pid} is training in {run}." in stderr and "Traceback" not in stderr
    first.send_signal(signal.SIGKILL)
    first.wait()
    half = run / f".model.{first.pid}-0123abcd.part"
    half.mkdir()
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / f".last.ckpt.{first.pid}-0123abcd.part").write_bytes(b"half")
    (run / "mine.txt").write_text("stays")
    rows = (run / "metrics.jsonl").read_text().count("\n")
    third = start(run)
    try:
        for _ in range(1200):  # it begins anew: no state was saved
            if not half.exists() and 0 < (run / "metrics.jsonl").read_text().count("\n") != rows:
                break
            time.sleep(0.05)
        assert not list(run.rglob("*.part"))
        assert (run / "mine.txt").read_text() == "stays"
        assert third.poll() is None
    finally:
        third.send_signal(signal.SIGTERM)
        third.communicate(timeout=60)
    assert third.returncode == 143
    assert not os.path.exists(f"/proc/{third.pid}")
