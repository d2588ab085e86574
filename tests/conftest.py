"""Shared by all tests: no network, one thread, and a real tiny model on disk."""

import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two spinning threads crawl when another process wants the core

import pytest
import torch

ROOT = Path(__file__).parent.parent
LONG = {
    "app/test_page.py", "app/test_training.py", "cli/test_edit.py", "cli/test_examples.py", "cli/test_generate.py",
    "nets/test_fused.py", "packaging/test_platforms.py", "pipeline/test_classifier_guidance.py",
    "pipeline/test_draws.py", "pipeline/test_edit.py", "recipes/embedded/test_release_checks.py",
    "recipes/test_48k.py", "recipes/test_chain.py", "recipes/test_recipes.py", "training/test_finetune.py",
    "training/test_kill.py", "training/test_memory.py", "training/test_modules.py",
}  # fmt: skip
"""Files that take long, and so come first: a process that began one as the last would leave the others waiting."""
# tests are imported by path (importlib mode): the shared model becomes a plain module
spec = importlib.util.spec_from_file_location("tiny_model", Path(__file__).with_name("tiny_model.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of AudioLDM's own classes at toy widths, with random weights of a fixed seed."""
    return tiny.write(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run one ``audioldm`` command line inside this process; returns the exit code."""
    from audioldm.cli.app import run

    monkeypatch.setenv("COLUMNS", "120")
    return lambda *words: run([str(word) for word in words])


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a fresh interpreter that sees this checkout."""

    def execute(code: str, **settings: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
            **settings,
        )

    return execute


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--shuffle SEED``: another order of files, and of tests in each, for each seed."""
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="shuffle the tests; the same seed, the same order"
    )


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    seed = config.getoption("shuffle")
    if seed is not None:
        terminalreporter.write_line(
            f"shuffled; the same order again: --shuffle={seed}, make test SEED={seed}"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, loudly, what needs a GPU where there is none; shuffle where asked, files staying together."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    seed = config.getoption("shuffle")
    if seed is not None:
        rng = random.Random(seed)
        files = sorted({item.path for item in items})
        rng.shuffle(files)
        files.sort(key=lambda path: path.as_posix().partition("/tests/")[2] not in LONG)
        places = {path: place for place, path in enumerate(files)}
        rng.shuffle(items)
        items.sort(key=lambda item: places[item.path])
