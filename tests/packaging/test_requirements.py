"""The requirements: every direct one is pinned, and a compromised release is refused."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bare(requirement: str) -> str:
    """The name in a requirement."""
    return re.split(r"[\[=<>; ]", requirement)[0].lower().replace("_", "-")


def test_constraints_pin_every_direct_dependency():
    extras = PROJECT["optional-dependencies"]
    names = {
        bare(each) for each in PROJECT["dependencies"] + extras["train"] + extras["eval"] + extras["dev"]
    }
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {bare(line) for line in lines if "==" in line and not line.startswith("#")}
    assert names <= pins, names - pins
    assert "audioldm" not in pins
    assert not [line for line in lines if "://" in line]


def test_compromised_lightning_is_excluded():
    assert "lightning>=2.6.4" in PROJECT["optional-dependencies"]["train"]
