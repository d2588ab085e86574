"""The sounds of a test: one rate, one loudness, one length a prompt, PCM16, blind names.   N samples at 48 kHz."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import signal

from audioldm.datasets.decode import decode
from audioldm.datasets.loudness import loudness
from audioldm.datasets.manifest import SILENT_PEAK
from audioldm.errors import AudioLDMError
from audioldm.listening.design import ANCHOR, DAMAGED

Wave = npt.NDArray[np.float32]

RATE = 48_000  # Hz: what browsers play without resampling in their own way
TARGET_LUFS = -23.0  # EBU R 128
LARGEST_GAIN_DB = 30.0  # a quieter clip stays quieter than the target: its noise is not blown up further
PEAK_DBFS = -1.0
FADE_SECONDS = 0.01
ANCHOR_HZ = 3500.0  # BS.1534's low anchor; its 7 kHz anchor is nearly the whole band of a 16 kHz model


def read(path: Path) -> Wave:
    """A file as mono (N,) at 48 kHz; a silent one, and samples that are not numbers, are an error."""
    wave = decode(path, RATE).numpy()
    if not np.isfinite(wave).all():
        raise AudioLDMError(f"{path} has samples that are not finite numbers.", "Make this clip again.")
    if not len(wave) or float(np.abs(wave).max()) < SILENT_PEAK:
        raise AudioLDMError(f"{path} is silent.", "Leave its prompt out, or make this clip again.")
    return wave


def lowpass(wave: Wave, cutoff: float) -> Wave:
    """Linear phase, flat to ``cutoff`` Hz, 60 dB down 1 kHz (at most an octave) above; window of Kaiser (1974)."""
    transition = min(1000.0, cutoff)
    size, beta = signal.kaiserord(60, 2 * transition / RATE)
    taps = signal.firwin(size | 1, cutoff + transition / 2, window=("kaiser", beta), fs=RATE)
    return np.asarray(signal.oaconvolve(wave, taps, mode="same"), dtype=np.float32)


def damage(wave: Wave) -> Wave:
    """A copy that nobody can take for good, whatever the sound: cut into pieces of 80 ms, and dull (1 kHz)."""
    open_ = (np.arange(len(wave)) // round(0.08 * RATE)) % 2 == 0
    gate = np.convolve(open_.astype(np.float32), np.full(240, 1 / 240, dtype=np.float32), mode="same")
    return lowpass(wave, 1000.0) * gate.astype(np.float32)


def version(name: str, clips: dict[str, Wave], reference: str | None) -> Wave:
    """The version called ``name`` of one prompt's clips: a system's own, an anchor, or a damaged copy."""
    if name == ANCHOR and reference is not None:
        return lowpass(clips[reference], ANCHOR_HZ)
    return damage(clips[name.removeprefix(DAMAGED)]) if name.startswith(DAMAGED) else clips[name]


def level(waves: dict[str, Wave]) -> dict[str, tuple[Wave, float, float]]:
    """All to -23 LUFS, faded, then all together as much quieter as the highest peak needs to stay below -1 dBFS.

    One headroom a prompt keeps its clips equally loud.   Gives each with its loudness before (LUFS) and the gain (dB).
    """
    faded = {name: fade(wave) for name, wave in waves.items()}
    lufs = {name: loudness(torch.from_numpy(wave), RATE) for name, wave in faded.items()}
    gains = {name: min(TARGET_LUFS - value, LARGEST_GAIN_DB) for name, value in lufs.items()}
    peaks = [20 * np.log10(np.abs(wave).max()) + gains[name] for name, wave in faded.items()]
    headroom = min(0.0, PEAK_DBFS - float(max(peaks)))
    gains = {name: gain + headroom for name, gain in gains.items()}
    waves = {name: (wave * 10 ** (gains[name] / 20)).astype(np.float32) for name, wave in faded.items()}
    return {name: (wave, round(lufs[name], 2), round(gains[name], 2)) for name, wave in waves.items()}


def fade(wave: Wave) -> Wave:
    """10 ms raised-cosine ramps at both ends, so that no clip starts or ends with a click."""
    n = min(round(FADE_SECONDS * RATE), len(wave) // 2)
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / max(n, 1))).astype(np.float32)
    return wave * np.concatenate([ramp, np.ones(len(wave) - 2 * n, dtype=np.float32), ramp[::-1]])


def blind_name(secret: str, *parts: str) -> str:
    """A file name that tells nothing to who has not the secret.

    >>> blind_name("s", "modelA", "rain") == blind_name("s", "modelA", "rain") != blind_name("t", "modelA", "rain")
    True
    """
    digest = hashlib.blake2b("\0".join(parts).encode(), key=secret.encode()[:64], digest_size=8)
    return f"{digest.hexdigest()}.wav"


def volume_noise() -> Wave:
    """8 s of pink noise at the test's loudness, to set the volume by; its ends fit together in a loop."""
    n = 8 * RATE
    hertz = np.fft.rfftfreq(n, 1 / RATE)
    shape = np.where((hertz >= 50) & (hertz <= 10_000), 1 / np.sqrt(np.maximum(hertz, 1)), 0)
    wave = np.fft.irfft(shape * np.exp(2j * np.pi * np.random.default_rng(0).random(len(hertz))), n)
    wave = (0.2 * wave / np.abs(wave).max()).astype(np.float32)
    gain = TARGET_LUFS - loudness(torch.from_numpy(wave), RATE)
    return np.asarray(wave * 10 ** (gain / 20), dtype=np.float32)


def beeps(count: int) -> Wave:
    """Tones of 1 kHz, 0.25 s, -45 dBFS: who hears all ``count`` has sound, and not too little of it."""
    tone = fade(np.sin(2 * np.pi * 1000 * np.arange(RATE // 4) / RATE).astype(np.float32)) * 10 ** (-45 / 20)
    gap = np.zeros(RATE // 4, dtype=np.float32)
    return np.concatenate([*[gap, tone] * count, gap]).astype(np.float32)
