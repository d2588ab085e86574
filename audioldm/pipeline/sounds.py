"""A sound file as it is, for edits that must leave its samples alone: any rate, channels and width.   N samples."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from audioldm.datasets.decode import CANCEL, check_level, mono, opened, resample
from audioldm.datasets.manifest import SILENT_PEAK
from audioldm.errors import AudioLDMError
from audioldm.signal.splice import splice

BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
KEPT = {"wav": (*BITS, "FLOAT", "DOUBLE"), "flac": ("PCM_S8", "PCM_16", "PCM_24")}  # what a format can hold
CEILING = 10 ** (-0.1 / 20)  # largest sample of what is put into a sound: -0.1 dB of full scale
SHORTEST, LONGEST = 0.03, 1800.0  # seconds of sound that an edit takes
MOST_VALUES = 2**28  # samples times channels: 1 GiB in memory


@dataclass(frozen=True)
class Sound:
    """Samples (N, C), left-justified int32 or floating as they lie in the file, their rate in Hz and their width."""

    data: npt.NDArray[Any]
    rate: int
    subtype: str
    gain_db: float = 0.0  # what the new parts of an edit were turned down by

    @property
    def seconds(self) -> float:
        return len(self.data) / self.rate

    def floats(self) -> npt.NDArray[np.float64]:
        """Samples (N, C) in [-1, 1]."""
        return self.data.astype(np.float64) / (2.0**31 if self.data.dtype == np.int32 else 1.0)

    def mono(self, rate: int) -> Tensor:
        """The mean of the channels (N',), float32, at ``rate`` Hz."""
        return resample(mono(torch.from_numpy(self.floats()))[0].float(), self.rate, rate)

    def notes(self, *, splice: bool = False) -> list[str]:
        """What becomes of the channels of a file that an edit reads as one, where somebody would be surprised."""
        channels, (_, channel) = self.data.shape[1], mono(torch.from_numpy(self.floats()))
        notes = [] if channel is None else [CANCEL.format(channel + 1)]
        if bool((np.ptp(self.floats(), axis=0) < 2 * SILENT_PEAK).all()):
            notes.append("it is silent")
        if channels > 1:
            alike = f"the new part is the same in its {channels} channels"
            notes.append(alike if splice else f"its {channels} channels become one")
        return notes

    def padded(self, before: float, after: float) -> "Sound":
        """With silence of so many seconds at its ends."""
        ends = round(before * self.rate), round(after * self.rate)
        return replace(self, data=np.pad(self.data, (ends, (0, 0))))


def read(path: str | Path) -> Sound:
    """A sound file.   Raises AudioLDMError where it is missing, no sound, cut off, empty, or longer than LONGEST."""
    if not Path(path).is_file():
        raise AudioLDMError(f"{path} is not a file.", "Name a sound file.")
    try:
        with opened(path, most=MOST_VALUES) as file:
            rate, subtype, length = file.rate, file.subtype, file.frames or 0
            most = int(min(LONGEST * rate, MOST_VALUES // file.channels))
            kind = {**dict.fromkeys(BITS, "int32"), "DOUBLE": "float64"}.get(subtype, "float32")
            blocks = [] if length > most else list(file.blocks(seconds=(most + 1) / rate, dtype=kind))
        length = max(length, sum(map(len, blocks)))
        if length > most:
            hint = f"Cut it to {most / rate:.0f} s or less."
            raise AudioLDMError(f"{path} has {length / rate:.0f} s.", hint)
        if not blocks:
            raise AudioLDMError(f"{path} holds no sound (0 samples).", "Give another file.")
        if length < SHORTEST * rate:
            raise AudioLDMError(f"{path} has {length / rate:.4f} s.", f"Give {SHORTEST} s or more.")
        sound = Sound(np.concatenate(blocks), rate, subtype)
        check_level(path, float(np.abs(sound.floats()).max()))
    except AudioLDMError as error:  # wrong use: nothing has begun
        raise AudioLDMError(error.message, error.hint) from error
    return sound


def splice_into(
    sound: Sound, edited: Tensor, rate: int, regions: Sequence[tuple[float, float]], *, fade: float
) -> Sound:
    """``edited`` (N',) at ``rate`` Hz put into every channel in ``regions`` (seconds), all else bit by bit."""
    wave = resample(edited.double(), rate, sound.rate)[: len(sound.data)]
    wave = torch.nn.functional.pad(wave, (0, len(sound.data) - len(wave)))
    places = [(round(begin * sound.rate), round(end * sound.rate)) for begin, end in regions]
    # what would be beyond full scale is turned down as a whole, not cut off
    new = torch.cat([wave[begin:end] for begin, end in places])
    gain = CEILING / max(CEILING, float(new.abs().max()) if len(new) else 0.0)
    base = torch.from_numpy(sound.floats().T.copy())
    mixed = splice(base, gain * wave.expand_as(base), places, fade=round(fade * sound.rate)).numpy().T
    touched = mixed != base.numpy().T
    if sound.data.dtype == np.int32:  # rounded to its width and left-justified
        full = 2.0 ** (BITS[sound.subtype] - 1)
        mixed = np.rint(mixed * full).clip(-full, full - 1) * (2.0**31 / full)
    data = np.where(touched, mixed, sound.data).astype(sound.data.dtype)
    return replace(sound, data=data, gain_db=round(20 * log10(gain), 4))


def file_bytes(sound: Sound, audio_format: str) -> bytes:
    """A WAV or FLAC file of the sound in its own width, where the format has it."""
    fallback = {"wav": "FLOAT", "flac": "PCM_24"}[audio_format]
    subtype = sound.subtype if sound.subtype in KEPT[audio_format] else fallback
    subtype = {"PCM_S8": "PCM_U8"}.get(subtype, subtype) if audio_format == "wav" else subtype
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.data, sound.rate, format=audio_format.upper(), subtype=subtype)
    return buffer.getvalue()
