"""Sounds side by side in a notebook: players that change no level, and log-mels on one scale."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from IPython.display import HTML
from torch import Tensor

from audioldm.evaluation import html
from audioldm.evaluation.picture import Picture
from audioldm.signal.decibels import RANGE_DB, TICKS_HZ, mel_decibels, mel_position
from audioldm.spec import AudioSpec

Sound = Tensor | npt.NDArray[np.float32]
Table = Mapping[str, Mapping[str, Sound]]
"""row -> column -> wave (N,)"""
LOUDEST = 10 ** (-1 / 20)


def samples(sound: Sound) -> npt.NDArray[np.float32]:
    """One wave as float32 (N,)."""
    wave = sound.detach().cpu().numpy() if isinstance(sound, Tensor) else np.asarray(sound)
    if wave.ndim != 1:
        raise ValueError(f"a sound has shape {wave.shape}; give one wave (N,).")
    return wave.astype(np.float32)


def columns_of(table: Table) -> list[str]:
    """Names of all columns, in order."""
    return list(dict.fromkeys(name for sounds in table.values() for name in sounds))


def players(table: Table, rate: int) -> HTML:
    """A player for every sound, rows by columns.

    The sounds go over as 16-bit files, which no browser normalises; where one exceeds full scale, all are turned down
    together, and the table says by how much.
    """
    waves = {row: {name: samples(sound) for name, sound in sounds.items()} for row, sounds in table.items()}
    peak = max(float(np.abs(wave).max()) for sounds in waves.values() for wave in sounds.values())
    gain = min(1.0, LOUDEST / max(peak, 1e-9))
    columns = columns_of(table)

    def cell(sounds: Mapping[str, npt.NDArray[np.float32]], name: str) -> str:
        return html.player(torch.from_numpy(gain * sounds[name]), rate, "WAV") if name in sounds else ""

    rows = [[row, *(cell(sounds, name) for name in columns)] for row, sounds in waves.items()]
    note = "" if gain == 1 else f"<p>All turned down by {-20 * np.log10(gain):.1f} dB.</p>"
    return HTML(f'{html.table(["", *columns], rows)}{note}')


def log_mels(table: Table, spec: AudioSpec) -> Picture:
    """The log-mel of every sound, rows by columns, with one colour scale and one time axis for all."""
    columns = columns_of(table)
    mels = {
        (row, name): mel_decibels(samples(sound), spec)
        for row, sounds in table.items()
        for name, sound in sounds.items()
    }
    top = max(float(mel.max()) for mel in mels.values())
    longest = max(len(mel) for mel in mels.values()) * spec.hop / spec.rate
    figure = Picture(figsize=(2.6 * len(columns) + 1.6, 1.9 * len(table) + 0.6))
    panels = figure.subplots(len(table), len(columns), sharex=True, sharey=True, squeeze=False)
    ticks = [hertz for hertz in TICKS_HZ if spec.fmin <= hertz <= spec.fmax]
    image = None
    for axes_row, row in zip(panels, table, strict=True):
        for axes, name in zip(axes_row, columns, strict=True):
            if (row, name) not in mels:
                axes.set_axis_off()
                continue
            mel = mels[row, name]
            image = axes.imshow(
                mel.T, origin="lower", aspect="auto", cmap="magma", vmin=top - RANGE_DB, vmax=top,
                extent=(0, len(mel) * spec.hop / spec.rate, -0.5, spec.mels - 0.5), interpolation="nearest",
            )  # fmt: skip
            axes.set_title(name.replace("$", r"\$") if row == next(iter(table)) else "", fontsize=9)
            axes.set_xlim(0, longest)
        axes_row[0].set_yticks(mel_position(ticks, spec), labels=[str(hertz) for hertz in ticks], fontsize=7)
        axes_row[0].set_ylabel(f"{row}\nmel frequency (Hz)".replace("$", r"\$"), fontsize=8)
    for axes in panels[-1]:
        axes.set_xlabel("time (s)", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=panels, label="mel magnitude (dB)", shrink=0.8)
    return figure
