"""SIGKILL at random moments, the same command again: the losses and the weights of a run that nobody disturbed."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_flatten
from tqdm import tqdm

from audioldm import recipes
from audioldm.cli.app import run as command_line
from audioldm.datasets.latents import Encoded, write_latents
from audioldm.datasets.manifest import Row, write
from audioldm.datasets.synthetic import Synthetic
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec
from audioldm.training.callbacks import StopAfter, read_metrics

COMMON = [
    "batches=14", "val_every=7", "callbacks.state.every=3", "trainer.log_every_n_steps=1", "batch_size=3", "threads=1",
]  # fmt: skip


def make_cache(folder: Path, windows: int = 10, *, channels: int = 8, width: int = 64) -> None:
    """Ten windows, so that fourteen batches of three end in the middle of the fifth pass."""
    g = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(windows, 2, width, generator=g), dim=-1)
    shape = (channels, 16, 16)
    rows = [
        Encoded(torch.randn(shape, generator=g), torch.full(shape, 0.1), unit[i, 0], unit[i], "made")
        for i in range(windows)
    ]
    about = {"scaling_factor": 1.0, "null": unit[0, 0].tolist(), "seconds": 0.64, "stride": 4}
    write_latents(rows, folder, about=about)


def make_manifest(folder: Path) -> Path:
    """Seven clips longer than the window, so that crops and captions are drawn."""
    data = Synthetic(AudioSpec(), 1.0, 7, seed=0)
    rows = []
    for i in range(7):
        wave, caption, _ = data[i]
        path = folder / f"{i}.wav"
        sf.write(path, wave[0].numpy(), 16000)
        rows.append(Row(str(path), (caption, f"sound number {i}"), split="val" if i == 6 else "train"))
    write(rows, folder / "clips.jsonl")
    return folder / "clips.jsonl"


def settings_of(kind: str, data: Path, run: Path) -> tuple[str, list[str]]:
    if kind == "ldm":
        more = [f"data.folder={data}", f"data.val_folder={data}", "callbacks.ema.decay=0.9", "task.drop=0.3"]
        more.append("callbacks.listen=null")
        return "tiny/ldm", [*COMMON, *more, f"run_dir={run}"]
    more = [f"data.manifests=[{data}]", "data=manifests", "seconds=0.32", "task.adversarial_start=5"]
    return "tiny/vae", [*COMMON, *more, f"run_dir={run}"]


def train(name: str, settings: list[str]) -> None:
    """What the command does, in this process; its bars have a lock of their own, which dies with it: a killed
    process would hold the one that forked processes share for ever."""
    tqdm.set_lock(threading.RLock())
    cfg = recipes.load(name, settings)
    experiment = recipes.build(cfg)
    experiment.fit()


def killed(name: str, settings: list[str], batch: int | None = None, later: float = 0.0) -> int | None:
    """Train in a process of its own; SIGKILL it ``later`` seconds after ``batch`` is reported.   Its exit code."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(name, settings))
    process.start()
    metrics = Path(settings[-1].removeprefix("run_dir=")) / "metrics.jsonl"
    while batch is not None and process.exitcode is None:
        if metrics.exists() and metrics.read_text().count("train/") >= batch:
            time.sleep(later)
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.join()
    return process.exitcode


def outcome(run: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], dict]:
    """The loss lines, the exported weights, and the whole final state."""
    exported = next((run / "model").rglob("*.safetensors"))
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    rows = read_metrics(run / "metrics.jsonl")
    rows = [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in rows]
    return rows, load_file(exported), state


def same(a, b) -> None:
    left, right = tree_flatten(a), tree_flatten(b)
    assert left[1] == right[1]
    for x, y in zip(left[0], right[0], strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


def disturb(name: str, settings: list[str], kills: int) -> None:
    """Kill at random places: between any two batches, while a state is written, in a validation, in the export."""
    moments = random.Random(0)
    codes = [killed(name, settings, moments.randint(1, 14), moments.uniform(0, 0.05)) for _ in range(kills)]
    assert codes.count(-signal.SIGKILL) >= kills // 2, f"too few kills met a running training: {codes}"


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("ldm", 3), ("vae", 3), *(pytest.param(k, 25, marks=pytest.mark.slow) for k in ("ldm", "vae"))],
)
def test_a_run_that_was_killed_again_and_again_ends_bit_for_bit_like_one_that_was_not(
    kind: str, kills: int, tmp_path
):
    data = tmp_path / "data"
    data.mkdir()
    if kind == "ldm":
        make_cache(data)
    place = data if kind == "ldm" else make_manifest(data)
    name, settings = settings_of(kind, place, tmp_path / "whole")
    assert killed(name, settings) == 0

    name, settings = settings_of(kind, place, tmp_path / "killed")
    disturb(name, settings, kills)
    assert killed(name, settings) == 0

    losses, weights, state = outcome(tmp_path / "whole")
    losses_again, weights_again, state_again = outcome(tmp_path / "killed")
    trained = [row["batch"] for row in losses if "val/loss" not in row and "val/kl" not in row]
    assert trained == [*range(1, 15)] and losses_again == losses
    same(weights, weights_again)
    for part in ("state_dict", "optimizer_states", "callbacks"):
        same(state[part], state_again[part])
    about = json.loads((tmp_path / "killed" / "provenance.json").read_text())
    assert about["git"] is None or len(about["git"]["commit"]) == 40


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> tuple[str, list[str], Path]:
    """A run of 14 batches that stopped at its sixth, with the state before it beside."""
    folder = tmp_path_factory.mktemp("stopped")
    make_cache(folder / "data")
    name, settings = settings_of("ldm", folder / "data", folder / "run")
    experiment = recipes.build(recipes.load(name, settings))
    next(c for c in experiment.trainer.callbacks if isinstance(c, StopAfter)).limit = 6
    experiment.fit()
    shutil.copytree(folder, folder.with_name("copy"))
    return name, settings, folder


@pytest.fixture
def run(stopped) -> tuple[str, list[str], Path]:
    """The same, whatever an earlier test made of it."""
    name, settings, folder = stopped
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("copy"), folder)
    return name, settings, folder / "run" / "checkpoints"


def batches_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["state_dict"]["_extra_state"])


def test_a_truncated_or_damaged_last_checkpoint_falls_back_to_the_one_before(run, command, capsys):
    name, settings, checkpoints = run
    assert (batches_of(checkpoints / "last.ckpt"), batches_of(checkpoints / "previous.ckpt")) == (6, 3)
    whole = (checkpoints / "last.ckpt").read_bytes()
    (checkpoints / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    assert command("train", name, *settings) == 0
    told = capsys.readouterr().err
    assert "last.ckpt is truncated" in told and "previous.ckpt" in told
    assert batches_of(checkpoints / "last.ckpt") == 14

    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 255
    for path in checkpoints.glob("*.ckpt"):
        path.write_bytes(bytes(damaged))
    assert command("train", name, *settings) == 1
    assert "No whole checkpoint is left" in capsys.readouterr().err
    assert command("train", name, *settings, "--fresh", "batches=1", "callbacks.state.every=1") == 0


def in_little_room(words: list[str], log: Path) -> None:
    """A command line where no file may grow beyond 100 kB: a write fails as it does on a full disk."""
    import contextlib

    tqdm.set_lock(threading.RLock())
    with open(log, "w") as file, contextlib.redirect_stderr(file):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        code = command_line(words)
        print(f"code={code}", file=sys.stderr)


def test_a_full_disk_leaves_the_last_good_state(run, command, tmp_path):
    name, settings, checkpoints = run
    words = ["train", name, *settings]
    process = multiprocessing.get_context("fork").Process(
        target=in_little_room, args=(words, tmp_path / "log")
    )
    process.start()
    process.join(300)
    stderr = (tmp_path / "log").read_text()
    assert "could not be written" in stderr and "last good state" in stderr and "free some space" in stderr
    assert "code=1" in stderr
    assert batches_of(checkpoints / "last.ckpt") == 6 and not list(checkpoints.glob(".*.part"))
    assert command(*words) == 0
    assert batches_of(checkpoints / "last.ckpt") == 14


def test_a_corrupted_shard_is_named_and_changed_data_refused(run, command, capsys):
    name, settings, checkpoints = run
    data = checkpoints.parents[1] / "data"
    shard = next(data.glob("*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1000])
    assert command("train", name, *settings) == 1
    assert shard.name in capsys.readouterr().err
    assert batches_of(checkpoints / "last.ckpt") == 6
    shard.write_bytes(whole)
    index = data / "index.json"
    index.write_text(index.read_text() + " ")
    with pytest.raises(AudioLDMError, match=r"index|data.* changed since"):
        train(name, settings)
