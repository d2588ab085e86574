"""Packages of Debian and npm, downloaded by the system's own clients; nothing in them is installed or run."""

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audioldm.errors import AudioLDMError

NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")
DOWNLOAD_SECONDS = 1800.0
GONE = re.compile(
    r"unable to locate package|no installation candidate|was not found|can't find a source|E404|404 +not found"
    r"|no matching version|ETARGET",
    re.I,
)
"""what the clients say of a package or version that their registry does not have"""


class FetchError(AudioLDMError):
    """A package that could not be had: ``fate`` is "gone" (not in the registry) or "later" (the network, the disk)."""

    def __init__(self, package: "Package", said: str) -> None:
        self.fate = "gone" if GONE.search(said) else "later"
        hint = (
            "Run `apt-get update`; else it is not there any more."
            if self.fate == "gone"
            else "Try again later."
        )
        last = (said.splitlines() or ["nothing was said"])[-1]
        super().__init__(f"Cannot download {package.name} {package.version}: {last}", hint, code=1)


@dataclass(frozen=True)
class Package:
    """Where a package comes from and how much is downloaded for it."""

    name: str
    registry: str
    version: str
    mb: float

    def __post_init__(self) -> None:
        if (
            self.registry not in COMMANDS
            or not NAME.fullmatch(self.name)
            or not VERSION.fullmatch(self.version)
        ):
            raise AudioLDMError(f"{self} is not a package of {', '.join(COMMANDS)}.", "Correct the index.")


def _apt(package: Package, folder: Path) -> list[list[str]]:
    """The listed version, else whatever version there is: md5 decides about each sound."""
    return [
        ["apt-get", "download", f"{package.name}={package.version}"],
        ["apt-get", "download", package.name],
    ]


def _npm(package: Package, folder: Path) -> list[list[str]]:
    """npm refuses nothing but the listed version."""
    exact = f"{package.name}@{package.version}"
    return [["npm", "pack", "--ignore-scripts", "--pack-destination", str(folder), exact]]


COMMANDS: dict[str, Callable[[Package, Path], list[list[str]]]] = {"deb": _apt, "npm": _npm}
"""registry -> the commands to try, in order, in an empty folder"""


def fetch(package: Package, cache: Path) -> Path:
    """The package's file in ``cache``, downloaded by its own package manager if it is not there yet."""
    target = cache / f"{package.name}_{package.version}.{'deb' if package.registry == 'deb' else 'tgz'}"
    if target.is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    said = ""
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        for command in COMMANDS[package.registry](package, Path(folder)):
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
                continue
            files = [file for file in Path(folder).iterdir() if file.suffix in (".deb", ".tgz")]
            if done.returncode == 0 and len(files) == 1:
                os.replace(files[0], target)
                return target
            said = done.stderr.strip() or f"{command[0]} ended with {done.returncode}"
    raise FetchError(package, said)
