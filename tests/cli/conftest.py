"""``audioldm generate`` with the tiny model, for the tests of what it leaves and of what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

QUICK = ("--seconds", "0.64", "--steps", "2")


@pytest.fixture
def generate(command, request, tmp_path, capsys):
    """Run generate with the tiny model into ``tmp_path / "out"``; returns (exit code, stdout, stderr)."""

    def execute(*words, model=None, quick=QUICK):
        model = model or request.getfixturevalue("tiny_model")
        code = command("generate", "-m", model, "-o", tmp_path / "out", *quick, *words)
        return code, *capsys.readouterr()

    return execute


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def forget_hashes() -> Callable[[Path], None]:
    """Let a model folder be changed without being told apart by its hashes."""

    def release_weight_pages(model: Path) -> None:
        about = json.loads((model / "audioldm.json").read_text())
        (model / "audioldm.json").write_text(json.dumps({**about, "sha256": {}}))

    return release_weight_pages
