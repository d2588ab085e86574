"""The Makefile and ``.ci/run``: what they call, in which order, and that a failure is a failure."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *words], cwd=cwd, capture_output=True, text=True, timeout=60, env={**clean, **environment}
    )


@pytest.fixture
def clone(tmp_path):
    """The Makefile and what it depends on, with a stand-in .venv whose tools note how they were called."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("python", "audioldm", "ruff", "mypy", "lint-imports"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >> called\n[ "$FAIL" != {name} ]\n')
        (tools / name).chmod(0o755)
    return tmp_path


def called(clone: Path) -> list[str]:
    return (clone / "called").read_text().splitlines() if (clone / "called").exists() else []


def test_demo_installs_once_and_again_only_when_dependencies_change(clone):
    assert make("demo", cwd=clone).returncode == 0
    first = called(clone)
    assert first[0].startswith("python -m pip install")
    assert "--constraint constraints.txt --editable ." in first[0]
    assert first[1] == "audioldm generate a dog barking --out out/demo --force"
    assert make("demo", cwd=clone).returncode == 0
    assert called(clone)[2:] == [first[1]], "the second run installs nothing"
    later = (clone / ".venv" / "base.stamp").stat().st_mtime + 10
    os.utime(clone / "constraints.txt", (later, later))
    assert make("demo", cwd=clone).returncode == 0
    assert called(clone)[3:] == first, "changed constraints install again"


def test_ci_runs_demo_test_check_notebooks_in_this_order(clone):
    done = subprocess.run([clone / ".ci" / "run"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    words = [line.split()[:3] for line in called(clone) if not line.startswith("python -m pip")]
    assert [line[0] for line in words] == [
        "audioldm",
        "python",
        "ruff",
        "ruff",
        "mypy",
        "lint-imports",
        "python",
    ]
    assert words[1][:3] == words[6][:3] == ["python", "-m", "pytest"]
    assert "--nbmake" in called(clone)[-1]


@pytest.mark.parametrize("broken", ["audioldm", "python", "ruff", "mypy", "lint-imports"])
def test_ci_fails_when_one_part_fails(clone, broken):
    (clone / ".venv" / "base.stamp").touch()
    (clone / ".venv" / "dev.stamp").touch()
    done = subprocess.run(
        [clone / ".ci" / "run"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FAIL": broken},
    )
    assert done.returncode != 0
    assert called(clone)[-1].startswith(broken), "nothing runs after a failure"


def test_a_python_that_does_not_run_is_passed_over(clone, tmp_path):
    shutil.rmtree(clone / ".venv")
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name, body in {
        "python3.12": "exit 127",  # a pyenv shim without its version
        "python3.11": 'echo "$0 $*" >> called; [ "$1" != --version ] || echo "Python 3.11.9"',
    }.items():
        (stubs / name).write_text(f"#!/bin/sh\n{body}\n")
        (stubs / name).chmod(0o755)
    done = make(".venv/bin/python", cwd=clone, PATH=f"{stubs}:/usr/bin:/bin")
    assert "creating .venv with Python 3.11.9" in done.stdout, done.stderr
    assert called(clone)[-1].endswith("python3.11 -m venv .venv")


def test_without_python_one_line_says_so(clone):
    shutil.rmtree(clone / ".venv")
    empty = clone / "empty"
    empty.mkdir()
    for name in ("bash", "grep", "cut"):
        (empty / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [shutil.which("make"), "setup"],
        cwd=clone,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": str(empty)},
    )
    assert done.returncode != 0
    assert "no Python >= 3.11" in done.stderr


def chromium_makers(folder: Path, *, root: bool) -> Path:
    """A PATH without any browser: ``apt-get`` notes how it was called, ``id`` says who asks."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "bash").symlink_to(shutil.which("bash"))
    for name, body in {"apt-get": 'echo "apt-get $*" >> called', "id": f"echo {0 if root else 1000}"}.items():
        (tools / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (tools / name).chmod(0o755)
    return tools


def test_root_gets_a_browser_and_others_are_told(clone, tmp_path):
    program = shutil.which("make")
    for root in (True, False):
        (tmp_path / str(root)).mkdir()
        path = chromium_makers(tmp_path / str(root), root=root)
        done = subprocess.run(
            [program, "browser"],
            cwd=clone,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": str(path)},
        )
        if root:
            assert done.returncode == 0, done.stderr
            assert [line.split()[1] for line in called(clone)] == ["update", "install"]
            assert called(clone)[1].endswith(" chromium")
        else:
            assert done.returncode != 0, "CI must not go on and skip"
            assert "no Chromium for the tests" in done.stderr


def test_a_browser_that_is_there_is_taken(clone):
    assert make("browser", cwd=clone, AUDIOLDM_CHROMIUM="/opt/chrome").returncode == 0
    assert called(clone) == []


def test_constraints_pin_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["train"] + extras["eval"] + extras["dev"]
    names = {bare(requirement) for requirement in wanted}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {bare(line) for line in lines if "==" in line and not line.startswith("#")}
    assert names <= pinned, names - pinned
    assert "audioldm" not in pinned
    assert not [line for line in lines if "://" in line]


def bare(requirement: str) -> str:
    """The name in a requirement."""
    return (
        requirement.split("[")[0].split("=")[0].split(">")[0].split("<")[0].strip().lower().replace("_", "-")
    )


def test_compromised_lightning_is_excluded():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "lightning>=2.6.4" in project["optional-dependencies"]["train"]
