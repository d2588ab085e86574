"""Sound files to waves and back by libsndfile and ffmpeg.  N samples; every wave is float32.

Files are read in blocks, and no header is believed: what a file promises and does not hold is an error.
"""

import io
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import lru_cache, partial
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from audioldm.datasets.containers import flaw_of
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.paths import staged

RESAMPLE: dict[str, Any] = {
    "lowpass_filter_width": 64, "rolloff": 0.9475937167399596, "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}  # fmt: skip
"""torchaudio's "kaiser best" setting: flat to 7.5 kHz at 16 kHz, aliases below -100 dB."""
LARGEST_RATIO = (
    640  # of rates; kernels grow with its terms, and ordinary rates need at most 640 (11025 to 16000)
)
BLOCK = 2**20  # samples times channels that are read at once
RATES = (500, 1_000_000)  # Hz
MOST_CHANNELS = 64
LOUDEST = 1000.0  # samples beyond it (60 dB above full scale) are no sound
ANTIPHASE_DB = 20.0  # where the mean of the channels is so much weaker than one of them, they cancel

SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".w64", ".rf64", ".caf", ".au", ".snd",
)  # fmt: skip
"""Endings of files that libsndfile reads."""
FOREIGN = (
    ".m4a", ".m4b", ".aac", ".mp4", ".webm", ".wma", ".mka", ".amr", ".ac3", ".3gp", ".ape", ".wv", ".tta",
)  # fmt: skip
"""Endings of files that ffmpeg reads."""
CONTAINER = re.compile(
    rb"RIFF.{4}WAVE.|.{4}ftyp|\x1a\x45\xdf\xa3", re.DOTALL
)  # WAV, MP4, Matroska: ffmpeg may read
EXACT = ("PCM", "FLOA", "DOUB", "ULAW", "ALAW")  # how subtypes begin whose files know their length
SUBTYPES = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
FFMPEG_SECONDS = 600.0
DEMUXERS = "mov,matroska,aac,asf,wav,amr,ac3,ape,wv,tta,mp3,ogg,flac,caf"  # no play lists: they name files
FFMPEG = ("-v", "error", "-nostdin", "-protocol_whitelist", "file", "-format_whitelist", DEMUXERS)
CHANGE = "Replace or remove this file."
NO_SOUND = ("the file is empty", "it is a web page")

Samples = npt.NDArray[np.generic]


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is not asked where it ends after each read: a FLAC file of unknown length cannot say it."""

    def seekable(self) -> bool:
        return False


class Reader:
    """A sound file: its rate in Hz, channels, libsndfile's subtype, and ``frames``, None if it states none."""

    def __init__(self, path: str | Path, place: str | Path, content: bytes | None = None) -> None:
        self.path, self.place, self.content = path, place, content
        with self.stream() as file:
            self.rate, self.channels = int(file.samplerate), int(file.channels)
            self.subtype = str(file.subtype)
            exact = file.format in ("FLAC", "OGG") or self.subtype.startswith(EXACT)
            self.frames = int(file.frames) if exact and file.frames < 2**62 else None
        if not RATES[0] <= self.rate <= RATES[1]:
            raise unreadable(path, f"its rate is {self.rate} Hz")
        if not 1 <= self.channels <= MOST_CHANNELS:
            raise unreadable(path, f"it has {self.channels} channels")

    def stream(self) -> _Stream:
        if self.content is not None:
            return _Stream(io.BytesIO(self.content))
        return _Stream(os.fsencode(self.place) if os.name == "posix" else str(self.place))

    def blocks(
        self, start: float = 0.0, seconds: float | None = None, dtype: str = "float32"
    ) -> Iterator[Samples]:
        """Arrays (n, channels) from ``start`` for ``seconds``.  Raises AudioLDMError if the file ends too early."""
        length = seconds or 0.0
        if min(start, length) < 0 or not isfinite(start + length):
            raise unreadable(self.path, f"no part begins at {start} s and lasts {seconds} s")
        first = round(start * self.rate)
        total = 2**62 if self.frames is None else max(0, self.frames - first)
        total = total if seconds is None else min(total, round(seconds * self.rate))
        size, done = max(1, BLOCK // self.channels), 0
        try:
            with self.stream() as file:
                if self.frames is not None:
                    file.seek(min(first, self.frames))
                    first = 0
                while first > 0 and (skipped := len(file.read(min(size, first), always_2d=True))):
                    first -= skipped
                read = partial(file.read, dtype=dtype, always_2d=True)
                while done < total and len(block := read(min(size, total - done))):
                    done += len(block)
                    yield block
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise unreadable(self.path, str(error).rpartition(": ")[2] or "it is damaged") from error
        if self.frames is not None and done < total:
            raise AudioLDMError(f"{self.path} is cut off: {done} of {total} samples.", CHANGE, code=1)


@contextmanager
def opened(path: str | Path, *, content: bytes | None = None, most: int | None = None) -> Iterator[Reader]:
    """A sound file to be read.  Raises AudioLDMError for one that is missing, damaged, or no sound.

    With ``content`` the file's bytes are these, and ``path`` is what messages call it.  Of what only ffmpeg reads,
    little more than ``most`` samples (all channels together) are decoded: the rest is missing without a word, so
    whoever has a limit counts.
    """
    if content is None and not os.path.isfile(path):
        raise AudioLDMError(f"There is no sound file {path}.", "Name a sound file.", code=1)
    try:
        with io.BytesIO(content) if content is not None else open(path, "rb") as file:
            head = file.read(256)
            file.seek(0)
            flaw = flaw_of(file)
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be opened") from error
    if flaw:
        raise AudioLDMError(f"{path} is {flaw}.", CHANGE, code=1)
    foreign = content is None and Path(path).suffix.lower() in FOREIGN
    with ExitStack() as stack:
        try:
            if foreign:  # libsndfile is not asked
                raise soundfile.LibsndfileError(1)
            reader = Reader(path, path, content)
        except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
            why = reason(head, error)
            if content is not None or why in NO_SOUND or not (foreign or CONTAINER.match(head)):
                raise unreadable(path, why) from error
            room = stack.enter_context(tempfile.TemporaryDirectory(prefix="audioldm-"))
            reader = Reader(path, by_ffmpeg(Path(path), Path(room) / "sound.wav", why, most))
        yield reader


def unreadable(path: str | Path, why: str) -> AudioLDMError:
    return AudioLDMError(f"Cannot read audio from {path}: {why}.", CHANGE, code=1)


def by_ffmpeg(path: Path, target: Path, why: str, most: int | None) -> Path:
    """A file's sound as 32-bit WAV, to the packet after ``most`` samples; nothing but that file is read."""
    if shutil.which("ffmpeg") is None:
        hint = "Install ffmpeg, or convert the file to WAV or FLAC."
        lacking = f"Cannot read audio from {path}: {why}; ffmpeg may read it and is not installed."
        raise AudioLDMError(lacking, hint, code=1)
    command = ["ffmpeg", *FFMPEG, "-i", f"file:{path.absolute()}", "-map", "0:a:0", "-vn"]
    # its limit is one of bytes, those of the header included
    limit = [] if most is None else ["-fs", str(4 * most + 2**16)]
    command += ["-c:a", "pcm_f32le", "-rf64", "auto", *limit, "-y", str(target)]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=FFMPEG_SECONDS)
    except subprocess.TimeoutExpired:
        raise unreadable(path, f"ffmpeg took more than {FFMPEG_SECONDS:g} s") from None
    if done.returncode or not target.is_file():
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2].rpartition("file:")[2]
        raise unreadable(path, f"{why}; ffmpeg: {said[:120].strip(' .') or 'no sound'}")
    return target


def reason(head: bytes, error: Exception) -> str:
    """libsndfile's reason, but for files that it misjudges: it says of a web page named .mp3 that there is no file."""
    head = head.lstrip().lower()
    if not head or head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return NO_SOUND[bool(head)]
    said = getattr(error, "error_string", None) or str(error).rpartition(": ")[2].removeprefix("Error : ")
    said = said.strip(" .")
    return "format not recognised" if "does not exist" in said or not said else said


def read_mono(
    path: str | Path, *, start: float = 0.0, seconds: float | None = None, content: bytes | None = None
) -> tuple[Tensor, int]:
    """One channel (N,), as of ``mono``, and the file's own rate in Hz.   Raises AudioLDMError for what is no sound."""
    with opened(path, content=content) as file:
        mixer = Mixer(file.channels)
        waves = [mixer.add(torch.from_numpy(block)) for block in file.blocks(start, seconds)]
        if (channel := mixer.strongest()) is not None:
            warnings.warn(AudioLDMWarning(f"{path}: {CANCEL.format(channel + 1)}"), stacklevel=2)
            waves = [torch.from_numpy(block[:, channel].copy()) for block in file.blocks(start, seconds)]
        wave = torch.cat(waves) if waves else torch.zeros(0)
        if not wave.isfinite().all():
            raise AudioLDMError(f"{path} has samples that are not finite.", "Replace or remove it.", code=1)
        check_level(path, float(wave.abs().max()) if len(wave) else 0.0)
        return wave, file.rate


def check_level(path: str | Path, peak: float) -> None:
    if peak > LOUDEST:
        what = f"{path} peaks at {peak:.1e} of full scale: it is no sound."
        raise AudioLDMError(what, "Give another file.", code=1)


CANCEL = "its channels cancel each other (antiphase); channel {} is used instead of their mean"


class Mixer:
    """The mean of channels, and whether that is the sound: their powers over all blocks that were added."""

    def __init__(self, channels: int) -> None:
        self.each = torch.zeros(channels, dtype=torch.float64)
        self.mean = 0.0

    def add(self, block: Tensor) -> Tensor:
        """The mean (n,) of a block (n, channels)."""
        if len(self.each) == 1:
            return block[:, 0]
        mean = block.mean(1)
        self.each += torch.linalg.vector_norm(block, dim=0, dtype=torch.float64).square()
        self.mean += float(torch.linalg.vector_norm(mean, dtype=torch.float64).square())
        return mean

    def strongest(self) -> int | None:
        """The channel to take instead of the mean, because the channels cancel each other; None as a rule."""
        place = int(self.each.argmax())
        cancel = self.mean < float(self.each[place]) * 10 ** (-ANTIPHASE_DB / 10)
        return place if cancel and len(self.each) > 1 else None


def mono(channels: Tensor) -> tuple[Tensor, int | None]:
    """One channel (N,) of (N, channels): the mean, or the strongest where they cancel each other, and which it is."""
    mixer = Mixer(channels.shape[1])
    mean = mixer.add(channels)
    channel = mixer.strongest()
    return mean if channel is None else channels[:, channel], channel


def resample(wave: Tensor, source: int, target: int) -> Tensor:
    """(..., N) at ``source`` Hz as (..., ceil(N target / source)); a ratio of huge terms is off by up to 0.02 cents."""
    if source == target or wave.shape[-1] == 0:
        return wave
    length = ceil(wave.shape[-1] * target / source)
    ratio = Fraction(target, source).limit_denominator(LARGEST_RATIO)
    out = resampler(ratio.denominator, ratio.numerator, wave.dtype)(wave)
    return torch.nn.functional.pad(out, (0, max(0, length - out.shape[-1])))[..., :length]


@lru_cache(maxsize=16)
def resampler(source: int, target: int, dtype: torch.dtype) -> Resample:
    """torchaudio's resampling with its filter, which takes longer to compute than to use on a short clip."""
    return Resample(source, target, **RESAMPLE, dtype=dtype)


def decode(path: str | Path, rate: int, *, start: float = 0.0, seconds: float | None = None) -> Tensor:
    """Mono (N,) at ``rate`` Hz, from ``start`` for ``seconds`` (to the file's end if None)."""
    wave, stored = read_mono(path, start=start, seconds=seconds)
    return resample(wave, stored, rate)


def encode(path: str | Path, wave: Tensor, rate: int, format: str | None = None) -> Path:
    """Write (N,), cut to [-1, 1], as wav, flac (16 bit), ogg or mp3 (by its suffix if None), whole or not at all."""
    path = Path(path)
    kind = (format or path.suffix.lstrip(".")).lower()
    if kind not in SUBTYPES:
        hint = f"Use one of {', '.join(SUBTYPES)}."
        raise AudioLDMError(f"{path}: format {kind!r} cannot be written.", hint)
    if not torch.isfinite(wave).all():
        what = f"{path}: the wave has samples that are not finite numbers."
        raise AudioLDMError(what, "Nothing was written.", code=1)
    with staged(path) as stage:
        data = wave.detach().clamp(-1, 1).float().cpu().numpy()
        soundfile.write(os.fsdecode(stage), data, rate, format=kind.upper(), subtype=SUBTYPES[kind])
    return path
