"""Memory that runs out, really: a limit on the address space makes torch's CPU allocator fail as a full GPU does."""

import multiprocessing
import os
import resource
import signal
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from audioldm import recipes
from audioldm.cli.app import run
from audioldm.errors import AudioLDMError, without_memory
from audioldm.nets.unet import build_unet
from audioldm.training import memory
from audioldm.training.memory import batch_by_share, largest_batch, probe
from tests.training.test_kill import make_cache

ROOM = 420 * 2**20  # of 300 the stacks and arenas of threads now and then left too little for one clip


def limited(words: list[str], log: Path) -> None:
    """One command line with ROOM bytes more than are mapped now; its exit code and stderr go to ``log``."""
    import contextlib

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, resource.RLIM_INFINITY))
    with open(log, "w") as file, contextlib.redirect_stderr(file):
        code = run(words)
        file.write(f"\ncode={code}\n")


def command_in_little_memory(words: list[str], log: Path) -> str:
    process = multiprocessing.get_context("fork").Process(target=limited, args=(words, log))
    process.start()
    process.join(300)
    return log.read_text()


@pytest.fixture
def settings(tmp_path) -> list[str]:
    make_cache(tmp_path / "data")
    recipes.build(
        recipes.load("tiny/ldm", [f"data.folder={tmp_path}/data", "callbacks.listen=null"])
    )  # imports
    return [
        "tiny/ldm", f"data.folder={tmp_path}/data", "batches=2", "val_every=2", "threads=1", "callbacks.listen=null",
        f"run_dir={tmp_path}/run",
    ]  # fmt: skip


def test_a_full_memory_is_answered_with_the_batch_size_that_fits(settings, tmp_path):
    told = command_in_little_memory(["train", *settings, "batch_size=2048"], tmp_path / "log")
    assert "Out of memory at batch_size=2048" in told and "code=1" in told
    assert 1 <= int(told.rpartition("batch_size=")[2].split()[0]) < 2048


def test_auto_takes_what_fits_and_keeps_it(settings, tmp_path):
    assert "code=0" in command_in_little_memory(["train", *settings, "batch_size=auto"], tmp_path / "log")
    cfg = recipes.load("tiny/ldm", [*settings[1:], "batch_size=auto"])
    recipes.resolve_batch_size(cfg)  # no probe: the run remembers
    assert 1 <= cfg.batch_size < 2048 and cfg.data.batch_size == cfg.batch_size


def test_a_sweep_keeps_no_run_in_memory(settings, monkeypatch):
    """What the first recorded would lie on a GPU beside the second's."""
    real, built = recipes.build, list[weakref.ref]()

    def build(*args, **settings):
        assert [module() for module in built] == [None] * len(built)
        experiment = real(*args, **settings)
        built.append(weakref.ref(experiment.module))
        return experiment

    monkeypatch.setattr(recipes, "build", build)
    assert run(["train", "-m", *settings, "batch_size=2,3"]) == 0 and len(built) == 2


def test_signs_of_a_full_memory_and_a_search_that_asks_little():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert without_memory(caught.value)
    assert without_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not without_memory(RuntimeError("shapes do not match"))
    asked = []
    assert largest_batch(lambda n: asked.append(n) or n <= 1000) >= 969
    assert len(asked) < 18
    assert largest_batch(lambda n: True, limit=24) >= 23


def experiment() -> SimpleNamespace:
    """Nothing is asked of it here: ``memory_shares`` is another."""
    return SimpleNamespace(module=None, data=None)


def test_a_size_that_ends_the_process_does_not_fit(monkeypatch):
    """As native code that meets a full memory may, and as the kernel does."""
    ends = lambda experiment, size: (0.0, size <= 10 or os.kill(os.getpid(), signal.SIGKILL))  # noqa: E731
    monkeypatch.setattr(memory, "memory_shares", ends)
    assert probe(experiment, method="fork") == 8  # 10, less a quarter


def test_trials_step_and_validate_as_the_run_does(settings):
    cfg = recipes.load("tiny/ldm", [*settings[1:], f"data.val_{settings[1][5:]}", "speed.graph=true"])
    experiment, seen = recipes.build(cfg), []
    module = experiment.module
    module.on_train_batch_end = lambda *args: seen.append("step")
    module.validation_step = lambda *args: seen.append("validation")
    assert memory.memory_shares(experiment, 2, accelerator="cpu", devices=1) == (0, 1)
    assert seen == ["step"] * 5 + ["validation"] and module.recorded


def test_a_gpu_is_asked_a_few_times():
    def shares(clips, *, rest, most):
        """Of a memory of which a share ``most`` can be used."""
        asked.append(clips)
        part = rest + clips / 100
        return rest, part if part < most else 0.0

    cases = ((0.1, 0.96, 80, 2), (0.1, 0.8, 63, 4), (0.5, 0.9, 39, 3), (0.7, 0.97, 24, 4))
    for rest, most, least, times in cases:
        asked: list[int] = []
        size = batch_by_share(partial(shares, rest=rest, most=most))
        assert least <= size and rest + size / 100 < most and len(asked) <= times
    # few clips, a limit, and shares that do not grow
    assert batch_by_share(lambda n: (0.0, n < 10 and 0.1 * n)) == 9
    assert batch_by_share(lambda n: (0.0, n < 10 and 0.125 * n)) == 8
    assert batch_by_share(lambda n: (0.0, 0.001 * n), limit=40) == 36
    assert batch_by_share(lambda n: (0.5, n < 9 and 0.5), limit=9) == 8
    assert batch_by_share(lambda n: (0.5, 0.0)) == 0 == batch_by_share(lambda n: (0.0, 0.001 * n), limit=2)


def test_what_is_wrong_is_said(tmp_path, monkeypatch):
    cfg = recipes.load("tiny/ldm", [f"data.folder={tmp_path}/none"])
    with pytest.raises(AudioLDMError, match="none"):
        recipes.fitting(cfg)
    monkeypatch.setattr(memory, "memory_shares", lambda *args, **more: (0.0, 0.0))
    with pytest.raises(AudioLDMError, match="Not even one clip"):
        probe(experiment, method="fork")


def test_what_a_u_net_keeps_for_its_gradients_grows_with_the_frames():
    with torch.device("meta"):
        unet = build_unet(channels=(8, 16), layers=1, head_channels=8, film_dim=16, groups=2)
    one, two = (memory.kept_bytes(unet, (8, frames, 16)) for frames in (64, 128))
    assert 1.9 < two / one < 2.0  # the time's embedding does not
