"""The picture beside each sound: waveform over log-mel, with units."""

import numpy as np
import numpy.typing as npt

from audioldm.evaluation.picture import Picture
from audioldm.signal.decibels import RANGE_DB, TICKS_HZ, mel_decibels, mel_position
from audioldm.spec import AudioSpec

Wave = npt.NDArray[np.float32]


def draw(wave: Wave, spec: AudioSpec, *, title: str) -> bytes:
    """PNG of ``wave`` (N,): amplitude against time, and the log-mel of ``spec`` in dB below."""
    # fixed margins: matplotlib's solver would draw everything twice
    figure = Picture(figsize=(8, 5), layout="none")
    places = {"left": 0.1, "right": 0.86, "bottom": 0.1, "top": 0.94, "hspace": 0.08}
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2), gridspec_kw=places)
    line = " ".join(title.split())  # of 80 characters, without mathematics
    line = (line if len(line) <= 80 else f"{line[:79]}…").replace("$", r"\$")
    upper.plot(np.arange(wave.size) / spec.rate, wave, linewidth=0.4)
    upper.set(title=line, ylabel="amplitude", ylim=(-1.05, 1.05))
    decibels, seconds = mel_decibels(wave, spec), wave.size / spec.rate
    image = lower.imshow(
        decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=decibels.max() - RANGE_DB,
        vmax=decibels.max(), extent=(0, seconds, -0.5, spec.mels - 0.5), interpolation="nearest",
    )  # fmt: skip
    lower.set(xlabel="time (s)", ylabel="mel frequency (Hz)", xlim=(0, seconds))
    ticks = [hertz for hertz in TICKS_HZ if spec.fmin <= hertz <= spec.fmax]
    lower.set_yticks(mel_position(np.array(ticks), spec), labels=[str(hertz) for hertz in ticks])
    figure.colorbar(image, cax=figure.add_axes((0.88, 0.1, 0.02, 0.54)), label="mel magnitude (dB)")
    return figure.png()


def strip(wave: Wave) -> bytes:
    """PNG of the waveform (N,) alone, without margins: seconds run from its left edge to its right."""
    figure = Picture(figsize=(10, 1.6), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.plot(np.arange(wave.size), wave, linewidth=0.4, color="#1d4ed8")
    top = 1.05 * max(1e-3, float(np.abs(wave).max()))
    axes.set(xlim=(0, max(1, wave.size - 1)), ylim=(-top, top))
    axes.axis("off")
    return figure.png(dpi=80)
