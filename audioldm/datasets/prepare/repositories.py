"""Files of public git repositories at pinned commits; only the listed files are downloaded."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from audioldm.errors import AudioLDMError
from audioldm.paths import inside

HOST = "https://github.com"
SECONDS = 3600.0
"""the longest that one step of git may take"""
SETTINGS = (
    "-c", "core.autocrlf=false", "-c", "core.symlinks=false", "-c", "core.hooksPath=/dev/null",
    "-c", "advice.detachedHead=false", "-c", "gc.auto=0", "--literal-pathspecs",
)  # fmt: skip
"""bytes as they are committed, and nothing of the repository is run"""
ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *words: str, data: bytes = b"") -> bytes:
    """What git prints, run on the repository and working tree ``folder``.   Raises AudioLDMError."""
    command = ["git", *SETTINGS, "-C", str(folder), *words]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=SECONDS, env=os.environ | ENVIRONMENT
        )
    except FileNotFoundError:
        raise AudioLDMError("There is no git.", "Install it, or name a folder of the set.") from None
    except subprocess.TimeoutExpired:
        raise AudioLDMError(
            f"git {words[0]} took over {SECONDS:g} s.", "Run the same command again."
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise AudioLDMError(
            f"git {words[0]} failed: {said[-1]}.", "Run the same command again later.", code=1
        )
    return done.stdout


def fetch(repository: str, commit: str, paths: Iterable[str], folder: Path, *, host: str = HOST) -> list[str]:
    """Put those of ``paths`` that ``commit`` of HOST/OWNER/NAME holds below ``folder``; their names.

    What is downloaded is that one commit without its history, its trees, and the named files; a second call goes on.
    Raises AudioLDMError where the commit cannot be had.
    """
    wanted = {path for path in paths if inside(folder, path)}
    if not (folder / ".git").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "--quiet")
    address = f"{host}/{repository}"
    git(folder, "config", "remote.origin.url", address)
    git(folder, "config", "remote.origin.promisor", "true")
    git(folder, "config", "remote.origin.partialclonefilter", "blob:none")
    git(folder, "fetch", "--quiet", "--depth=1", "--no-tags", "--filter=blob:none", "origin", commit)
    names = git(folder, "ls-tree", "-r", "-z", "--name-only", "--full-tree", commit).split(b"\0")
    there = sorted(wanted.intersection(map(os.fsdecode, names)))
    if there:
        listed = b"\0".join(map(os.fsencode, there))
        git(
            folder,
            "checkout",
            "--quiet",
            commit,
            "--pathspec-from-file=-",
            "--pathspec-file-nul",
            data=listed,
        )
    return there
