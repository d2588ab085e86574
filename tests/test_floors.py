"""The shape of the code: who may import whom, what is loaded when, who may print, how long a file may be."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "audioldm"
LONGEST = 300
SOURCES = sorted(PACKAGE.rglob("*.py"))
VAGUE = ("utils", "util", "misc", "common", "manager")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_import_contracts_hold():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_contracts_catch_a_planted_violation(tmp_path):
    import shutil

    shutil.copytree(PACKAGE, tmp_path / "audioldm", ignore=shutil.ignore_patterns("_embedded", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "audioldm/diffusion/noise.py").open("a") as file:
        file.write("\nimport diffusers\nfrom audioldm.nets import vae\n")
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "audioldm.diffusion.noise -> diffusers" in done.stdout
    assert "audioldm.diffusion is not allowed to import audioldm.nets" in done.stdout


def test_importing_the_package_is_instant(python):
    begin = time.perf_counter()
    done = python(
        "import sys, audioldm; print([m for m in ('torch', 'numpy', 'diffusers') if m in sys.modules])"
    )
    assert time.perf_counter() - begin < 2, "20 ms on an idle machine"
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_only_the_command_line_prints(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    prints = [node.lineno for node in calls if node.func.id == "print"]
    assert not prints or path.parent.name == "cli", f"{name_of(path)} prints in lines {prints}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_exception_is_swallowed(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    bare = [node.lineno for node in handlers if node.type is None]
    silent = [node.lineno for node in handlers if all(isinstance(line, ast.Pass) for line in node.body)]
    assert not bare + silent, f"{name_of(path)}: lines {bare + silent}"


def test_no_file_has_a_name_that_says_nothing():
    assert not [name_of(path) for path in SOURCES if path.stem in VAGUE]
