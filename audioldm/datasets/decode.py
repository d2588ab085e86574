"""Audio files to mono waveforms and back.   N samples; every wave is float32.

One policy for all data: soundfile reads any rate, width and channel count; channels are averaged; rates are changed by
``torchaudio.functional.resample`` with the one setting below.
"""

import os
import tempfile
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional as audio
from torch import Tensor

from audioldm.errors import AudioLDMError

RESAMPLE = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
"""torchaudio's "kaiser best" setting: flat to 7.5 kHz at 16 kHz, aliases below -100 dB."""

LARGEST_RATIO = 640
"""Resampling kernels grow with the reduced ratio's terms; ordinary rates need at most 640 (11025 to 16000 Hz)."""

OPEN_SIZE = 2**32 - 2**16
OGG_PAGE = 65307  # the largest there is
OGG_LAST = 4

SUBTYPES = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS"}


def resample(wave: Tensor, source: int, target: int) -> Tensor:
    """Change the rate of (..., N) from ``source`` to ``target`` Hz; the length becomes ceil(N * target / source).

    Odd rates whose ratio has huge terms use the nearest small ratio (less than 0.02 cents away).

    >>> resample(torch.zeros(44100), 44100, 16000).shape
    torch.Size([16000])
    """
    if source == target or wave.shape[-1] == 0:
        return wave
    length = ceil(wave.shape[-1] * target / source)
    ratio = Fraction(target, source).limit_denominator(LARGEST_RATIO)
    out = audio.resample(wave, ratio.denominator, ratio.numerator, **RESAMPLE)
    return torch.nn.functional.pad(out, (0, max(0, length - out.shape[-1])))[..., :length]


def read_channels(
    path: str | Path, *, start: float = 0.0, seconds: float | None = None
) -> tuple[Tensor, int]:
    """Samples (N, channels) at the file's own rate, and that rate in Hz; fewer than the file promises are an error."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate, total = file.samplerate, file.frames
            promised = (
                file.format != "MP3"
            )  # an mp3 states no length: libsndfile guesses it from the bit rate
            first = min(round(start * rate), total)
            wanted = total - first if seconds is None else min(round(seconds * rate), total - first)
            file.seek(first)
            data = file.read(wanted, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise AudioLDMError(
            f"Cannot read audio from {path}: {why(path, error)}.", "Replace or remove this file.", code=1
        ) from error
    if cut_off(path):
        raise AudioLDMError(f"{path} is cut off before its end.", "Replace or remove this file.", code=1)
    if promised and len(data) < wanted:
        raise AudioLDMError(
            f"{path} is cut off: {len(data)} of {wanted} samples.", "Replace or remove this file.", code=1
        )
    return torch.from_numpy(np.ascontiguousarray(data)), rate


def why(path: str | Path, error: Exception) -> str:
    """libsndfile's reason, but for files that it misjudges: it says of a web page named .mp3 that there is no file."""
    if Path(path).is_file():
        with open(path, "rb") as file:
            head = file.read(256).lstrip().lower()
        if not head:
            return "the file is empty"
        if head.startswith((b"<!doctype", b"<html", b"<?xml")):
            return "it is a web page"
    reason = str(error).removeprefix(f"Error opening {str(path)!r}: ").removeprefix("Error : ").strip(" .")
    return "format not recognised" if Path(path).is_file() and "does not exist" in reason else reason


def cut_off(path: str | Path) -> bool:
    """True if a WAV or AIFF file ends before its sound chunk does, or an Ogg file before its last page.

    libsndfile reads what is left of them without a word.   Sizes that a program which writes to a pipe leaves open (0,
    or near 2^32) state nothing.   RIFF, IFF; RFC 3533 for Ogg.
    """
    with open(path, "rb") as file:
        head, total = file.read(12), os.fstat(file.fileno()).st_size
        if head[:4] == b"OggS":
            file.seek(max(0, total - OGG_PAGE))
            tail = file.read()
            page = tail[tail.rfind(b"OggS") :]
            whole = 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) > 26 else OGG_PAGE
            return len(page) < whole or not page[5] & OGG_LAST
        order = {b"RIFF": "little", b"FORM": "big"}.get(head[:4])
        while order is not None and len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], order)  # type: ignore[arg-type]
            if chunk[:4] in (b"data", b"SSND"):
                return 0 < size < OPEN_SIZE and file.tell() + size > total
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


def mono(channels: Tensor) -> Tensor:
    """The mean of (N, channels) as (N,); of one channel, that channel without a copy."""
    return channels[:, 0] if channels.shape[1] == 1 else channels.mean(1)


def read_mono(path: str | Path, *, start: float = 0.0, seconds: float | None = None) -> tuple[Tensor, int]:
    """The mean of the channels (N,) at the file's own rate, and that rate in Hz."""
    channels, rate = read_channels(path, start=start, seconds=seconds)
    return mono(channels), rate


def decode(path: str | Path, rate: int, *, start: float = 0.0, seconds: float | None = None) -> Tensor:
    """Mono float32 (N,) at ``rate`` Hz, from ``start`` for ``seconds`` (to the file's end if None)."""
    wave, own = read_mono(path, start=start, seconds=seconds)
    return resample(wave, own, rate)


def encode(path: str | Path, wave: Tensor, rate: int, format: str | None = None) -> Path:
    """Write (N,) as ``wav``, ``flac`` (16 bit) or ``ogg``; the file appears whole or not at all.

    ``format`` is taken from the suffix if None.   Samples outside [-1, 1] are cut by the 16-bit formats.
    """
    path = Path(path)
    kind = (format or path.suffix.lstrip(".")).lower()
    if kind not in SUBTYPES:
        raise AudioLDMError(
            f"{path}: format {kind!r} cannot be written.", f"Use one of {', '.join(SUBTYPES)}."
        )
    if wave.ndim != 1:
        raise ValueError(f"encode takes one mono wave (N,), got {tuple(wave.shape)}")
    if not torch.isfinite(wave).all():
        raise AudioLDMError(
            f"{path}: the wave has samples that are not finite numbers.", "Nothing was written.", code=1
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".{kind}")
    os.close(handle)
    try:
        data = wave.detach().clamp(-1, 1).float().cpu().numpy()
        soundfile.write(name, data, rate, format=kind.upper(), subtype=SUBTYPES[kind])
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
