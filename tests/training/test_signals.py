"""Processes that are told to stop: the state is on the disk, one line says so, and the code is the signal's."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from audioldm import recipes
from audioldm.cli.app import run as command_line
from audioldm.training import callbacks
from audioldm.training.callbacks import read_metrics

SETTINGS = [
    "batches=100000", "val_every=100000", "trainer.log_every_n_steps=1", "threads=1", "seconds=0.32", "batch_size=2",
    "task.adversarial_start=999999",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """All that a training imports, so that each process of these tests, a fork, has it."""
    recipes.build(recipes.load("tiny/vae", [f"run_dir={tmp_path_factory.mktemp('imported')}"]))


class Training:
    """``audioldm train tiny/vae`` in a fork of this process; what it says on stderr goes to a file."""

    def __init__(self, run: Path, *more: str) -> None:
        run.parent.mkdir(exist_ok=True)
        self.log = run.parent / f"{time.monotonic_ns()}.err"
        words = ["train", "tiny/vae", *SETTINGS, f"run_dir={run}", *more]
        self.process = multiprocessing.get_context("fork").Process(target=self.main, args=(words,))
        self.process.start()

    def main(self, words: list[str]) -> None:
        # a suite in the background hands an ignored SIGINT on, and nohup a SIGHUP; a terminal does not
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        tqdm.set_lock(threading.RLock())  # one that forks share would stay with a process that is killed
        with open(self.log, "w") as sys.stderr, open(os.devnull, "w") as sys.stdout:
            code = command_line(words)
        os._exit(code)

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said."""
        self.process.join(120)
        return self.process.exitcode, self.log.read_text()


def wait_for(run: Path, batch: int, training: Training) -> None:
    """Until that batch is in the curves."""
    path = run / "metrics.jsonl"
    for _ in range(3000):
        if path.exists() and path.read_text().count("\n") >= batch:
            return
        assert training.process.is_alive(), training.end()
        time.sleep(0.05)
    raise AssertionError("the training did not begin")


def batches_of(run: Path) -> int:
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return int(state["_extra_state"])


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_stopped_training_has_saved_its_state_and_does_not_look_like_a_success(name, code, tmp_path):
    run = tmp_path / "run"
    training = Training(run)
    wait_for(run, 3, training)
    begin = time.time()
    training.send(getattr(signal, name))
    ended, stderr = training.end()
    assert ended == code, stderr
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime - begin < 10
    lines = [line for line in stderr.splitlines() if line.startswith("audioldm:")]
    assert lines == [
        f"audioldm: tiny/vae was stopped by {name}; its state of batch {batches_of(run)} is saved. "
        "Type the same command to resume."
    ]
    assert batches_of(run) == read_metrics(run / "metrics.jsonl")[-1]["batch"] >= 3
    assert not list(run.rglob("*.part")) and not (run / "model").exists()


@pytest.mark.parametrize("grace", [1.0, 600.0], ids=["grace", "second signal"])
def test_a_step_that_takes_too_long_is_given_up(grace, tmp_path, monkeypatch):
    """A first batch of many seconds: there is no state to save; who asks twice waits less."""
    assert callbacks.GRACE < 10
    monkeypatch.setattr(callbacks, "GRACE", grace)  # forks have it
    run = tmp_path / "run"
    training = Training(run, "seconds=40", "batch_size=16")
    while not (run / "config.yaml").exists():
        assert training.process.is_alive(), training.end()
        time.sleep(0.05)
    time.sleep(2)  # into the batch
    begin = time.monotonic()
    training.send(signal.SIGTERM)
    while grace > 10 and training.process.is_alive() and time.monotonic() - begin < 60:
        time.sleep(0.5)
        training.send(signal.SIGTERM)
    code, stderr = training.end()
    assert code == 143 and time.monotonic() - begin < 30
    assert "tiny/vae was stopped by SIGTERM; its run had no state to save yet." in stderr


def test_two_trainings_do_not_share_a_run_folder_and_a_dead_one_holds_nothing(tmp_path):
    run = tmp_path / "run"
    first = Training(run)
    pid = first.process.pid
    wait_for(run, 1, first)
    code, stderr = Training(run).end()
    assert code == 2
    assert f"Process {pid} is training in {run}." in stderr and "Traceback" not in stderr
    first.send(signal.SIGKILL)
    first.end()
    half = run / f".model.{pid}-0123abcd.part"
    half.mkdir()
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / f".last.ckpt.{pid}-0123abcd.part").write_bytes(b"half")
    (run / "mine.txt").write_text("stays")
    rows = (run / "metrics.jsonl").read_text().count("\n")
    third = Training(run)
    try:
        for _ in range(1200):  # it begins anew: no state was saved
            if not half.exists() and 0 < (run / "metrics.jsonl").read_text().count("\n") != rows:
                break
            time.sleep(0.05)
        assert not list(run.rglob("*.part"))
        assert (run / "mine.txt").read_text() == "stays"
        assert third.process.is_alive()
    finally:
        third.send(signal.SIGTERM)
    assert third.end()[0] == 143
