"""A log-mel for the eye: decibels against time, and where a frequency lies among the mel bands."""

import numpy as np
import numpy.typing as npt
import torch

from audioldm.signal.mel import log_mel
from audioldm.spec import AudioSpec

DECIBELS_PER_NEPER = 20 / np.log(10)
TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000)
RANGE_DB = 80


def mel_decibels(wave: npt.NDArray[np.float32], spec: AudioSpec) -> npt.NDArray[np.float64]:
    """Log-mel of ``wave`` in dB re a magnitude of 1, (T, F); a clip shorter than a window is padded."""
    padded = torch.from_numpy(np.pad(wave, (0, max(0, spec.n_fft - wave.size))))
    return np.asarray(log_mel(padded[None, None].float(), spec)[0, 0].numpy() * DECIBELS_PER_NEPER)


def mel_position(hertz: npt.ArrayLike, spec: AudioSpec) -> npt.NDArray[np.float64]:
    """Where ``hertz`` lies among the bands 0 .. F-1 of Slaney's mel scale.   Auditory Toolbox, 1998."""
    value = np.concatenate([[spec.fmin, spec.fmax], np.ravel(hertz)])
    # 200/3 Hz per mel to 1 kHz, then 27 mels per factor of 6.4
    upper = 15 + 27 * np.log(np.maximum(value, 1000) / 1000) / np.log(6.4)
    low, high, *mels = np.where(value < 1000, value * 3 / 200, upper)
    return np.reshape((np.array(mels) - low) / (high - low) * (spec.mels + 1) - 1, np.shape(hertz))
