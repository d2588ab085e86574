"""Clips of YouTube videos by yt-dlp; a journal keeps each clip's fate, so that the next run goes on."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audioldm.datasets.manifest import Finding
from audioldm.errors import AudioLDMError
from audioldm.paths import inside
from audioldm.progress import counted
from audioldm.tables import lines, read_text

ADDRESS = "https://www.youtube.com/watch?v={video}"
JOURNAL = "fetch.jsonl"
OPTIONS = (
    "--ignore-config", "--no-playlist", "--quiet", "--no-warnings", "--no-progress", "--format", "bestaudio/best",
    "--extract-audio", "--audio-format", "flac",
)  # fmt: skip
SECONDS = 300.0  # for one clip
GIVE_UP = 10  # so many passing failures in a row mean that no clip can be had now
PERMANENT = re.compile(
    r"private video|video unavailable|is unavailable|not available|removed|terminated|copyright|members[- ]only"
    r"|no longer|confirm your age|age[- ]restricted|unsupported url|live event|HTTP Error (401|404|410)",
    re.I,
)
PASSING = re.compile(
    r"not a bot|rate.?limit|too many requests|HTTP Error (429|5\d\d)|try again|timed? ?out|temporar"
    r"|content isn't available",
    re.I,
)


@dataclass(frozen=True)
class Clip:
    """Part of a video, in seconds."""

    video: str
    start: float
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.video}_{self.start:g}.flac"


def verdict(said: str) -> str:
    """Whether a failure is "permanent" or "passing", by what yt-dlp said; what is not known is passing."""
    return "permanent" if PERMANENT.search(said) and not PASSING.search(said) else "passing"


def journal(path: Path) -> dict[str, tuple[str, str]]:
    """clip name -> (what became of it, why); a line that was cut off is passed over."""
    out: dict[str, tuple[str, str]] = {}
    for line in lines(read_text(path)) if path.is_file() else []:
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            entry = json.loads(line)
            out[str(entry["clip"])] = str(entry["fate"]), str(entry["why"])
    return out


def fetch(
    clips: Sequence[Clip], folder: str | Path, *, address: str = ADDRESS, tries: int = 3, wait: float = 5.0
) -> list[Finding]:
    """Get every clip that ``folder`` has not; findings are "gone" (permanent) and "later" (passing)."""
    if importlib.util.find_spec("yt_dlp") is None:
        raise AudioLDMError("yt-dlp is not installed.", 'Run: pip install "audioldm[data]"')
    if shutil.which("ffmpeg") is None:
        hint = "Run `apt-get install ffmpeg` (Debian, Ubuntu)."
        raise AudioLDMError("The program ffmpeg is not installed.", hint)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known, findings, in_a_row = journal(folder / JOURNAL), list[Finding](), 0
    with open(folder / JOURNAL, "a", encoding="utf-8") as file:
        for clip in counted(clips, "clips"):
            fate, why = known.get(clip.name, ("", ""))
            if inside(folder, clip.name).is_file():
                in_a_row = 0
                continue
            for attempt in range(tries if fate != "permanent" else 0):
                time.sleep(wait * 2 ** (attempt - 1) if attempt else 0)
                fate, why = attempted(clip, folder, address)
                if fate != "passing":
                    break
            if (fate, why) != known.get(clip.name):
                # the empty line ends what a killed run may have left; on the disk before the next clip begins
                file.write("\n" + json.dumps({"clip": clip.name, "fate": fate, "why": why}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if fate != "done":
                findings.append(Finding("gone" if fate == "permanent" else "later", clip.name, why))
            in_a_row = in_a_row + 1 if fate == "passing" else 0
            if in_a_row == GIVE_UP:
                what = f"{GIVE_UP} clips in a row could not be had: {why}"
                raise AudioLDMError(what, "The same command goes on later.", code=1)
    return findings


def attempted(clip: Clip, folder: Path, address: str) -> tuple[str, str]:
    """The fate of one attempt: into a folder of its own, then in one move to its place."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        command = [sys.executable, "-m", "yt_dlp", *OPTIONS, "--output", f"{part}/sound.%(ext)s"]
        command += ["--download-sections", f"*{clip.start:g}-{clip.start + clip.seconds:g}"]
        command += ["--", address.format(video=clip.video)]
        quiet: dict[str, Any] = {"capture_output": True, "errors": "replace", "stdin": subprocess.DEVNULL}
        try:
            done = subprocess.run(command, timeout=SECONDS, **quiet)
        except subprocess.TimeoutExpired:
            return "passing", f"nothing came in {SECONDS:g} s"
        clip_file = Path(part) / "sound.flac"
        if done.returncode == 0 and clip_file.is_file() and clip_file.stat().st_size:
            os.replace(clip_file, folder / clip.name)
            return "done", ""
        said = (done.stderr.strip().splitlines() or ["yt-dlp left no sound"])[-1]
        return verdict(done.stderr), said[:200]
