"""Notebooks as files: short, stripped, public names only, claims that are asserted.   `make notebooks` runs them."""

import ast
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.rglob("*.ipynb"))
THEORY = [path for path in NOTEBOOKS if path.parent.name == "theory"]
PAGES = [path for path in NOTEBOOKS if path.parent == FOLDER]
MOST_CELLS = 25
QUESTIONS = 32
"""on the interview sheet; a question may have two rows"""


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def text(cell: dict) -> str:
    return "".join(cell["source"])


def code(path: Path) -> str:
    return "\n".join(text(cell) for cell in cells(path) if cell["cell_type"] == "code")


def offenders(paths: list[Path], rule: Callable[[Path], object]) -> list[str]:
    """The notebooks that break a rule."""
    assert paths
    return [path.stem for path in paths if not rule(path)]


def test_each_opens_with_a_title_and_is_short():
    assert offenders(NOTEBOOKS, lambda path: cells(path)[0]["cell_type"] == "markdown") == []
    assert offenders(NOTEBOOKS, lambda path: text(cells(path)[0]).startswith("# ")) == []
    assert offenders(NOTEBOOKS, lambda path: len(cells(path)) <= MOST_CELLS) == []


def test_none_holds_outputs():
    def stripped(path: Path) -> bool:
        return not any(cell.get("outputs") or cell.get("execution_count") for cell in cells(path))

    assert offenders(NOTEBOOKS, stripped) == [], "make them empty with nbstripout"


def test_each_uses_public_names_only():
    def public(path: Path) -> bool:
        nodes = list(ast.walk(ast.parse(code(path))))
        names = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in imports for alias in node.names]
        names += [part for node in imports for part in (node.module or "").split(".")]
        return not [name for name in names if name.startswith("_")]

    assert offenders(PAGES, public) == []


def test_no_page_knows_a_model_by_its_shape():
    shape = re.compile(r"\b(latent_channels|stride|mels|hop|rate|n_fft)\s*=\s*\d|seconds\s*=\s*5\.12")
    assert offenders(PAGES, lambda path: not shape.search(code(path))) == []


def test_theory_opens_with_claims_and_asserts_at_least_as_many():
    def claims(path: Path) -> int:
        return len(re.findall(r"^\d+\. ", text(cells(path)[0]), re.M))

    def asserts(path: Path) -> int:
        return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code(path))))

    assert offenders(THEORY, lambda path: 5 <= claims(path) <= asserts(path)) == []


def test_theory_names_its_axes_and_ends_with_sound():
    words = ("xlabel", "ylabel", "Audio(")
    assert offenders(THEORY, lambda path: all(word in code(path) for word in words)) == []


def test_the_index_of_questions_names_cells_that_hold_its_asserts_and_run():
    index = (FOLDER / "README.md").read_text().partition("## Interview questions")[2]
    rows = re.findall(r"\| `([\w/]+)` ([\w-]+) \| `(.+?)` \|$", index, re.M)
    wrong = []
    for name, number, claim in rows:
        by_id = {cell["id"]: cell for cell in cells(FOLDER / f"{name}.ipynb")}
        lines = text(by_id[number]).splitlines() if number in by_id else []
        if not any(line.strip().startswith("assert ") and claim in line for line in lines):
            wrong.append(f"{name} {number}: {claim}")
        elif by_id[number]["metadata"].get("tags"):
            wrong.append(f"{name} {number}: its tags may keep it from running")
    assert wrong == []
    assert len(rows) >= QUESTIONS
    (target,) = re.findall(r"^notebooks:.*\n\t(.+)$", (FOLDER.parent / "Makefile").read_text(), re.M)
    assert target.split()[-1] == "notebooks" and "--nbmake" in target, "make notebooks runs them all"


def test_each_imports_names_that_exist():
    wrong = []
    for path in NOTEBOOKS:
        for node in ast.walk(ast.parse(code(path))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("audioldm"):
                try:
                    module = importlib.import_module(node.module)
                except ModuleNotFoundError:
                    wrong.append(f"{path.stem}: {node.module}")
                    continue
                for alias in node.names:
                    if not hasattr(module, alias.name) and not submodule(node.module, alias.name):
                        wrong.append(f"{path.stem}: {node.module}.{alias.name}")
    assert wrong == []


def submodule(package: str, name: str) -> bool:
    """Whether ``name`` is a module of ``package``."""
    try:
        return importlib.util.find_spec(f"{package}.{name}") is not None
    except ModuleNotFoundError:
        return False
