"""Clips of YouTube videos by yt-dlp; a journal keeps which are gone for good, so that the next run goes on."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import Finding, Row
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.progress import counted
from audioldm.tables import lines, read_text

ADDRESS = "https://www.youtube.com/watch?v={video}"
JOURNAL = "gone.jsonl"
OPTIONS = (
    "--ignore-config", "--no-playlist", "--quiet", "--no-warnings", "--no-progress", "--format", "bestaudio/best",
    "--extract-audio", "--audio-format", "flac", "--retries", "3", "--retry-sleep", "exp=5:60",
)  # fmt: skip
CLIP_SECONDS = 10.0
SECONDS = 300.0  # of trying to get one clip
GIVE_UP = 10  # so many passing failures in a row mean that no clip can be had now
PERMANENT = (
    r"(?i)private video|video unavailable|is unavailable|not available|removed|terminated|copyright|members[- ]only"
    r"|no longer|confirm your age|age[- ]restricted|unsupported url|live event|HTTP Error (401|404|410)"
)
PASSING = (
    r"(?i)not a bot|rate.?limit|too many requests|HTTP Error (429|5\d\d)|try again|timed? ?out|temporar"
    r"|content isn't available"
)


def is_permanent(said: str) -> bool:
    """Whether a clip is gone for good, by what yt-dlp said; what is not known passes."""
    return bool(re.search(PERMANENT, said)) and not re.search(PASSING, said)


def fetch(rows: Sequence[Row], folder: str | Path, *, address: str = ADDRESS) -> list[Finding]:
    """Get the clip VIDEO_START of every row whose file is called so and not there, nor VIDEO_START.flac in ``folder``.

    Findings are "gone" and "later".   Raises AudioLDMError without yt-dlp or ffmpeg, and after GIVE_UP of "later".
    """
    there = {"yt-dlp": importlib.util.find_spec("yt_dlp"), "ffmpeg": shutil.which("ffmpeg")}
    if lost := [program for program, place in there.items() if not place]:
        hint = 'Run: pip install "audioldm[data]"; apt-get install ffmpeg (Debian, Ubuntu).'
        raise AudioLDMError(f"{lost[0]} is not installed.", hint)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [Path(f"{Path(row.path).name}.flac") for row in rows if not Path(row.path).is_file()]
    files = [file for file in files if not inside(folder, file.name).is_file()]
    gone, findings, in_a_row = known(folder / JOURNAL), list[Finding](), 0
    with open(folder / JOURNAL, "a", encoding="utf-8") as journal:
        for file in counted(files, "clips"):
            why = gone.get(file.name) or attempt(file.stem, folder, address)
            in_a_row = in_a_row + 1 if why and not is_permanent(why) else 0
            if why:
                findings.append(Finding("later" if in_a_row else "gone", file.name, why))
            if why and not in_a_row and file.name not in gone:
                # the empty line ends what a killed run may have left
                journal.write("\n" + json.dumps({"clip": file.name, "why": why}) + "\n")
                journal.flush()
            if in_a_row == GIVE_UP:
                what = f"{GIVE_UP} clips in a row could not be had: {why}"
                raise AudioLDMError(what, "The same command goes on later.", code=1)
    return findings


def known(journal: Path) -> dict[str, str]:
    """clip -> why it is gone for good; a line that a killed run cut off is passed over."""
    out = dict[str, str]()
    for line in lines(read_text(journal)) if journal.is_file() else []:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            entry = json.loads(line)
            out[str(entry["clip"])] = str(entry["why"])
    return out


def attempt(name: str, folder: Path, address: str) -> str:
    """Get one clip into a folder of its own, then in one move to its place; why it failed, or ""."""
    video, start = name.rsplit("_", 1)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        command = [sys.executable, "-m", "yt_dlp", *OPTIONS, "--output", f"{part}/sound.%(ext)s"]
        command += ["--download-sections", f"*{start}-{float(start) + CLIP_SECONDS:g}", "--"]
        how: dict[str, Any] = {"capture_output": True, "errors": "replace", "stdin": subprocess.DEVNULL}
        try:
            done = subprocess.run([*command, address.format(video=video)], timeout=SECONDS, **how)
        except subprocess.TimeoutExpired:
            return f"timed out after {SECONDS:g} s"
        sound = Path(part) / "sound.flac"
        if done.returncode == 0 and sound.is_file() and sound.stat().st_size:
            os.replace(sound, folder / f"{name}.flac")
            return ""
        return (done.stderr.strip().splitlines() or ["yt-dlp left no sound"])[-1][:200]
