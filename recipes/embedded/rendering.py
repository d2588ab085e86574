"""Sounds that the computer makes, so that their captions are true by construction: written once, found again.

A sound is known by its ``key``, a text that says everything that decides its samples; its file is named by the key's
hash.   So the same command goes on where it stopped, and another seed, text or way of making never meets an old file.
"""

import hashlib
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from audioldm.datasets.decode import encode
from audioldm.datasets.manifest import Finding, Row, split_of
from audioldm.errors import AudioLDMError

RATE = 16000
PEAK = 0.8
SHORTEST, LONGEST = 2.0, 5.0
"""seconds of a made sound"""
TOOL_SECONDS = 60.0
TOOL_BYTES = 256 * 2**20
"""A program that writes more than this is stopped: a note that never ends would fill the disk."""
PACKAGES = {"fluidsynth": "fluidsynth", "espeak-ng": "espeak-ng"}
"""program -> the Debian package that has it"""


@dataclass(frozen=True)
class Clip:
    """One sound to be: ``make()`` gives its samples (N,) at 16 kHz; the rest becomes its manifest row."""

    key: str
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    group: str
    licence: str
    author: str
    source: str
    make: Callable[[], Tensor]
    split: str = ""
    """\"\" follows from the group's hash"""
    parts: tuple[str, ...] = ()

    def place(self, folder: Path) -> Path:
        """Its FLAC file, named by the hash of its key."""
        return folder / f"{hashlib.sha256(self.key.encode()).hexdigest()[:20]}.flac"

    def row(self, folder: Path) -> Row:
        """Its manifest row."""
        return Row(
            path=str(self.place(folder).absolute()),
            captions=self.captions,
            labels=self.labels,
            split=self.split or split_of(self.group, val=0.05, test=0.05),
            licence=self.licence,
            source=self.source,
            author=self.author,
            group=self.group,
            parts=self.parts,
        )


def chooser(seed: int, name: str, index: int) -> random.Random:
    """Random choices that depend on (seed, name, index) only; Python keeps ``random`` and ``choice`` stable by seed.

    >>> chooser(0, "notes", 3).random() == chooser(0, "notes", 3).random()
    True
    """
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest))


def length(rng: random.Random, longest: float = LONGEST) -> float:
    """Seconds of a sound, to a tenth."""
    return round(SHORTEST + (longest - SHORTEST) * rng.random(), 1)


def fit(wave: Tensor, seconds: float) -> Tensor:
    """(N,) cut or padded to ``seconds``, its last 20 ms faded, its peak brought to PEAK."""
    samples = round(seconds * RATE)
    out = torch.nn.functional.pad(wave, (0, max(0, samples - len(wave))))[:samples].clone()
    fade = min(samples, RATE // 50)
    out[samples - fade :] *= torch.linspace(1, 0, fade)
    peak = float(out.abs().max())
    return out * (PEAK / peak) if peak > 0 else out


def write(
    sounds: Sequence[Clip], folder: Path | str, *, on_sound: Callable[[], None] | None = None
) -> tuple[list[Row], list[Finding]]:
    """Make what ``folder`` has not yet, as 16 kHz FLAC; a sound that comes out silent or fails is named, not used."""
    folder = Path(folder)
    rows, findings = [], []
    for sound in sounds:
        place = sound.place(folder)
        try:
            if not place.is_file():
                wave = sound.make()
                if float(wave.abs().max()) == 0.0:
                    raise AudioLDMError(f"{sound.key}: it came out silent.", code=1)
                encode(place, wave, RATE, "flac")
            rows.append(sound.row(folder))
        except AudioLDMError as error:
            if error.code == 2:  # a program or a file is not there: no later sound would fare better
                raise
            findings.append(Finding("unmade", str(place), error.message))
        if on_sound is not None:
            on_sound()
    return rows, findings


def program(name: str) -> str:
    """The path of a program, or how to install it."""
    path = shutil.which(name)
    if path is None:
        raise AudioLDMError(
            f"The program {name} is not installed.",
            f"Run `apt-get install {PACKAGES[name]}` (Debian, Ubuntu).",
        )
    return path


def run(command: Sequence[str]) -> None:
    """Run a program; its last line on stderr tells why if it failed."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=TOOL_SECONDS,
            stdin=subprocess.DEVNULL,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (TOOL_BYTES, TOOL_BYTES)),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AudioLDMError(f"{command[0]} did not work: {error}", code=1) from error
    if done.returncode != 0:
        said = (
            done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        )[-1]
        raise AudioLDMError(f"{command[0]} did not work: {said}", code=1)
