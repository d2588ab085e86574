"""The listening notebooks as files: short, stripped, public names only.   `make notebooks` runs them."""

import ast
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_CELLS = 25


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code(path: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")


def test_the_notebooks_are_there():
    names = {path.stem for path in NOTEBOOKS}
    assert {"01_hear_it", "02_reconstruction", "03_compare_checkpoints", "04_listening_test"} <= names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_opens_with_what_it_is_and_is_short(path):
    first = cells(path)[0]
    assert first["cell_type"] == "markdown"
    assert "".join(first["source"]).startswith("# ")
    assert len(cells(path)) <= MOST_CELLS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_holds_no_outputs(path):
    for cell in cells(path):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_uses_public_names_only(path):
    tree = ast.parse(code(path))
    private = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
    hidden = [
        alias.name
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom)
        for alias in n.names
        if alias.name.startswith("_") or "._" in (n.module or "")
    ]
    assert private + hidden == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_knows_no_model_by_its_shape(path):
    assert not re.search(r"\b(latent_channels|stride|mels|hop|rate|n_fft)\s*=\s*\d", code(path))
    assert not re.search(r"seconds\s*=\s*5\.12", code(path))
