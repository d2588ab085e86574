"""What one generated clip leaves behind: its name, its sound and its settings, all whole or not at all.

N samples; waves are (N,) float32 in [-1, 1].
"""

import io
import os
import platform
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audioldm.errors import AudioLDMError

Wave = npt.NDArray[np.float32]

FORMATS = {"wav": "WAV", "flac": "FLAC"}
PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "numpy", "soundfile", "safetensors")
NORMAL_PEAK = 10 ** (-1 / 20)
"""-1 dBFS: the peak that ``normalize`` gives."""


@dataclass(frozen=True)
class Clip:
    """One sound to make: its prompt, its seed, and the file name (without suffix) that they give."""

    prompt: str
    seed: int
    named: str | None = None
    """what it is named after, if not the prompt"""
    mark: str = ""
    """what else tells its name from that of other clips"""
    share: float = 0.0
    """how far it is on the way to a second prompt"""

    @property
    def stem(self) -> str:
        """``a_dog_barking_seed7``: letters and digits of the prompt, at most 48, then the seed."""
        name = "_".join(filter(None, (plain(self.named or self.prompt, 48), self.mark)))
        return f"{name or 'clip'}_seed{self.seed}"


def plain(text: str, most: int) -> str:
    """At most ``most`` letters and digits of ``text``, fit for a file name.

    >>> plain("../A dog!", 48)
    'a_dog'
    """
    return re.sub(r"\W+", "_", text.casefold()).strip("_")[:most].strip("_")


@dataclass(frozen=True)
class Files:
    """Where one clip goes."""

    audio: Path
    sidecar: Path
    figure: Path | None

    def all(self) -> list[Path]:
        """Every path, the sound first."""
        return [path for path in (self.audio, self.figure, self.sidecar) if path is not None]


@dataclass(frozen=True)
class Level:
    """How loud a wave is against full scale (1.0)."""

    peak: float
    clipped: int
    """samples at or beyond full scale: cut by the 16-bit file, or flattened by the vocoder's last tanh"""
    samples: int


def plan(prompts: list[str], n: int, *, seed: int) -> list[Clip]:
    """``n`` clips of each prompt; the clip at place i of the whole list has seed ``seed + i``.

    >>> [clip.stem for clip in plan(["rain", "A dog!"], 2, seed=5)]
    ['rain_seed5', 'rain_seed6', 'a_dog_seed7', 'a_dog_seed8']
    """
    asked = [prompt for prompt in prompts for _ in range(n)]
    return [Clip(prompt, seed + place) for place, prompt in enumerate(asked)]


def files_of(clip: Clip, folder: Path, *, audio_format: str, figure: bool) -> Files:
    """The paths of ``clip`` in ``folder``."""
    base = folder / clip.stem
    return Files(
        audio=base.with_name(f"{clip.stem}.{audio_format}"),
        sidecar=base.with_name(f"{clip.stem}.json"),
        figure=base.with_name(f"{clip.stem}.png") if figure else None,
    )


def check_free(paths: Iterable[Path]) -> None:
    """Raise if one of ``paths`` exists."""
    taken = [path for path in paths if path.exists()]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise AudioLDMError(
            f"{taken[0]}{more} already there.", "Use --force to overwrite, or another --seed or --out."
        )


def check_writable(folder: Path) -> None:
    """Raise unless files can be made in ``folder``, or in the nearest folder above it that exists."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise AudioLDMError(
            f"out={folder} cannot be written: {error.strerror}.", "Choose another folder with --out."
        ) from error


def level(wave: Wave) -> Level:
    """Peak and count of samples at or beyond full scale; a wave that is not finite is an error.

    >>> level(np.array([0.5, -1.5, 1.0], dtype=np.float32))
    Level(peak=1.5, clipped=2, samples=3)
    """
    if not np.isfinite(wave).all():
        raise AudioLDMError(
            "The model gave a wave that is not finite.", "Use --dtype float32 or lower --guidance.", code=1
        )
    size = np.abs(wave)
    return Level(peak=float(size.max(initial=0.0)), clipped=int((size >= 1).sum()), samples=wave.size)


def normalized(wave: Wave) -> Wave:
    """``wave`` scaled to a peak of -1 dBFS; silence stays as it is."""
    peak = level(wave).peak
    return wave if peak == 0 else (wave * np.float32(NORMAL_PEAK / peak))


def audio_bytes(wave: Wave, rate: int, *, audio_format: str) -> bytes:
    """A 16-bit WAV or FLAC file; samples outside [-1, 1] are cut to the limits."""
    import soundfile

    # libsndfile rounds floats in WAV and truncates them in FLAC: integers are the same in both.
    whole = np.rint(wave.clip(-1, 1) * 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, whole, rate, format=FORMATS[audio_format], subtype="PCM_16")
    return buffer.getvalue()


def versions() -> dict[str, str]:
    """Versions of Python and of every package that has a hand in the sound."""
    import audioldm

    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "audioldm": audioldm.__version__, **found}


def publish(contents: dict[Path, bytes]) -> None:
    """Write all files beside their places, then move them there; an error or Ctrl-C leaves no part of one."""
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged[path] = path.with_name(f".{path.name}.{os.getpid()}.part")
            staged[path].write_bytes(content)
        for path, part in staged.items():
            os.replace(part, path)
    except OSError as error:
        raise AudioLDMError(
            f"{path} cannot be written: {error.strerror}.", "Check the disk and --out.", code=1
        ) from error
    finally:
        for part in staged.values():
            part.unlink(missing_ok=True)
