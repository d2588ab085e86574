"""The picture beside each sound: waveform over log-mel, with units."""

import io

import numpy as np
import torch

from audioldm.pipeline.outputs import Wave
from audioldm.signal.mel import log_mel
from audioldm.spec import AudioSpec

DECIBELS_PER_NEPER = 20 / np.log(10)
TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000)
RANGE_DB = 80


def draw(wave: Wave, spec: AudioSpec, *, title: str) -> bytes:
    """PNG of ``wave`` (N,): amplitude against time, and the log-mel of ``spec`` in dB below."""
    # Figure with its own Agg canvas: no pyplot, so no global state and no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    seconds = wave.size / spec.rate
    upper.plot(np.arange(wave.size) / spec.rate, wave, linewidth=0.4)
    upper.set(title=shortened(title), ylabel="amplitude (full scale = 1)", ylim=(-1.05, 1.05))
    decibels = mel_decibels(wave, spec)
    top = decibels.max()
    image = lower.imshow(
        decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=top - RANGE_DB, vmax=top,
        extent=(0, seconds, -0.5, spec.mels - 0.5), interpolation="nearest",
    )  # fmt: skip
    lower.set(xlabel="time (s)", ylabel="mel frequency (Hz)", xlim=(0, seconds))
    ticks = [hertz for hertz in TICKS_HZ if spec.fmin <= hertz <= spec.fmax]
    lower.set_yticks(mel_position(np.array(ticks), spec), labels=[str(hertz) for hertz in ticks])
    figure.colorbar(image, ax=lower, label="mel magnitude (dB)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def mel_decibels(wave: Wave, spec: AudioSpec) -> np.ndarray:
    """Log-mel of ``wave`` in dB re a magnitude of 1, (T, F); a clip shorter than a window is padded."""
    short = max(0, spec.n_fft - wave.size)
    padded = torch.from_numpy(np.pad(wave, (0, short)))
    return log_mel(padded[None, None].float(), spec)[0, 0].numpy() * DECIBELS_PER_NEPER


def mel_position(hertz: np.ndarray, spec: AudioSpec) -> np.ndarray:
    """Where ``hertz`` lies among the bands 0 .. F-1 of Slaney's mel scale (see ``slaney``)."""
    low, high = slaney(np.array(spec.fmin)), slaney(np.array(spec.fmax))
    return (slaney(hertz) - low) / (high - low) * (spec.mels + 1) - 1


def slaney(hertz: np.ndarray) -> np.ndarray:
    """Slaney's mel: 200/3 Hz per mel to 1 kHz, then 27 mels per factor of 6.4.   Auditory Toolbox, 1998."""
    return np.where(
        hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
    )


def shortened(title: str) -> str:
    """``title`` on one line of at most 80 characters, with ``$`` kept from being read as mathematics."""
    line = " ".join(title.split())
    return (line if len(line) <= 80 else f"{line[:79]}…").replace("$", r"\$")
