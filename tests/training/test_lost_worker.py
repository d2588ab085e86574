"""Training over two processes by torchrun: a killed worker ends the other, and both resume from the saved state."""

import os
import signal
import time

import pytest

from tests.cli.test_torchrun import torchrun, workers
from tests.training.test_kill import make_cache


@pytest.mark.slow
def test_a_lost_worker_is_made_good(tmp_path):
    make_cache(tmp_path / "data")
    run = tmp_path / "run"
    words = [
        "train", "tiny/ldm", "trainer=ddp", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.devices=2",
        f"data.folder={tmp_path}/data", "callbacks.listen=null", "batch_size=2", "batches=40", "val_every=4",
        "threads=1", "seconds=0.32", f"run_dir={run}", "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    process = torchrun(*words, restarts=2)
    end = time.monotonic() + 200
    while not list(run.rglob("*.ckpt")) and time.monotonic() < end:
        time.sleep(0.05)
    victims = workers(process)
    assert victims, process.communicate(timeout=10)[0]
    os.kill(victims[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-3000:]
    assert (run / "model").is_dir()
    assert "resum" in output.lower() or "state" in output.lower(), output[-3000:]
