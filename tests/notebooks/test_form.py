"""Notebooks as they are kept: short, without outputs, and in theory/ with claims that are asserted."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
THEORY = [path for path in NOTEBOOKS if path.parent.name == "theory"]


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text(cell: dict) -> str:
    return "".join(cell["source"])


def test_the_eight_notebooks_of_theory_are_there():
    numbers = [path.name[:2] for path in THEORY]
    assert numbers == [f"{number:02d}" for number in range(1, 9)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_short_and_holds_no_outputs(path):
    assert len(cells(path)) <= 25
    for cell in cells(path):
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "make it empty with nbstripout"
            assert cell["execution_count"] is None


@pytest.mark.parametrize("path", THEORY, ids=lambda path: path.stem)
def test_it_opens_with_claims_and_asserts_at_least_as_many(path):
    claims = re.findall(r"^\d+\. ", text(cells(path)[0]), re.M)
    asserts = sum(
        len(re.findall(r"^\s*assert ", text(cell), re.M))
        for cell in cells(path)
        if cell["cell_type"] == "code"
    )
    assert len(claims) >= 5
    assert asserts >= len(claims)


@pytest.mark.parametrize("path", THEORY, ids=lambda path: path.stem)
def test_pictures_say_what_their_axes_are(path):
    code = "\n".join(text(cell) for cell in cells(path) if cell["cell_type"] == "code")
    assert "xlabel" in code
    assert "ylabel" in code
    assert "Audio(" in code, "and it ends with sound"
