"""What a sound does in time, as maps on the mel grid: loudness, pitch, onsets, brightness, edges.

A map comes from a sound that is analysed, or from a curve drawn in a CSV (``MapSource``).   It is first a curve (T,),
or edges (T, F), in units that a person would draw, then a picture (1, T, F) in [0, 1] on the mel's own grid, which is
what a net sees.   N samples, T mel frames, F mel bins.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.datasets.decode import decode
from audioldm.errors import AudioLDMError
from audioldm.ranges import Between, weighted
from audioldm.signal.decibels import mel_position
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import log_mel
from audioldm.spec import AudioSpec
from audioldm.tables import header, lines, read_text, records

QUIET = -60.0
"""dB re full scale: what is drawn as nothing, and below which a frame has neither pitch nor colour"""
EDGE = 1.0  # nepers (8.7 dB) per cell of the smoothed mel that count as an edge
RISE = 0.3  # nepers of the mean rise of the mel from frame to frame that count as a full onset
PERIODIC = 0.15  # of YIN's normalised difference, below which a frame is periodic


class Map(NamedTuple):
    """One kind of map: from a wave (N,) to a curve, from a curve to a picture, its unit and its range."""

    analyse: Callable[[Tensor, AudioSpec], Tensor]
    draw: Callable[[Tensor, AudioSpec], Tensor]
    unit: str
    low: float
    high: float  # values outside are slips of the pen; 0 is "none here" in maps of Hz
    line: str


def frames(wave: Tensor, spec: AudioSpec) -> Tensor:
    """The windows (T, n_fft) under the mel's frames; a wave shorter than one is padded with silence."""
    padded = nnf.pad(wave, (spec.pad, max(spec.pad, spec.n_fft - wave.shape[-1] - spec.pad)))
    return padded.unfold(-1, spec.n_fft, spec.hop)


def mel_of(wave: Tensor, spec: AudioSpec) -> Tensor:
    """Log-mel (T, F); a wave shorter than a window is padded."""
    return log_mel(nnf.pad(wave, (0, max(0, spec.n_fft - wave.shape[-1])))[None, None], spec)[0, 0]


def loudness(wave: Tensor, spec: AudioSpec) -> Tensor:
    """RMS of each frame in dB re full scale (T,), at least QUIET."""
    return 10 * frames(wave, spec).square().mean(-1).clamp(min=10 ** (QUIET / 10)).log10()


def audible(curve: Tensor, wave: Tensor, spec: AudioSpec) -> Tensor:
    """``curve``, and 0 where the sound is silent."""
    return torch.where(loudness(wave, spec) > QUIET, curve, torch.zeros_like(curve))


def pitch(wave: Tensor, spec: AudioSpec) -> Tensor:
    """Fundamental frequency in Hz (T,), 0 where there is none."""
    return audible(yin(frames(wave, spec), spec.rate), wave, spec)


def yin(frames: Tensor, rate: int, *, low: float = 50.0, high: float = 1500.0) -> Tensor:
    """YIN (de Cheveigné & Kawahara 2002): frames (T, W > 2 rate / low) to Hz (T,), 0 where nothing is periodic."""
    x, width = frames.double(), frames.shape[-1] // 2
    longest, shortest = min(width - 2, int(rate / low)), max(2, int(rate / high))
    # difference function (eq. 6) as energies minus twice the correlation, which an FFT gives
    size = 2 * frames.shape[-1]
    head = torch.fft.rfft(x[:, :width], size)
    correlation = torch.fft.irfft(head.conj() * torch.fft.rfft(x, size), size)[:, :width]
    power = nnf.pad(x.square().cumsum(-1), (1, 0))
    energy = power[:, width : 2 * width] - power[:, :width]
    difference = (energy[:, :1] + energy - 2 * correlation).clamp(min=0)
    lag = torch.arange(width, dtype=torch.float64)
    mean = difference.cumsum(-1) / lag.clamp(min=1)
    # eq. 8
    normal = torch.where(lag > 0, difference / mean.clamp(min=1e-12), torch.ones_like(difference))
    inside = normal[:, shortest : longest + 1]
    # the first dip under the threshold (step 4), not the deepest: that may be an octave low
    first = (inside < PERIODIC) & nnf.pad(inside[:, :-1] <= inside[:, 1:], (0, 1))
    periodic = first.any(-1) & (energy[:, 0] > 1e-9)
    place = first.float().argmax(-1) + shortest
    a, b, c = (normal.gather(1, (place + step)[:, None])[:, 0] for step in (-1, 0, 1))
    bend = a - 2 * b + c  # parabola through three lags (step 5)
    shift = torch.where(bend.abs() > 1e-12, 0.5 * (a - c) / bend, torch.zeros_like(bend)).clamp(-1, 1)
    return torch.where(periodic, rate / (place + shift), torch.zeros_like(shift)).float()


def onset(wave: Tensor, spec: AudioSpec) -> Tensor:
    """Strength 0 to 1 at the frames where something begins, else 0 (T,).   Spectral flux: Bello et al. 2005."""
    mel = mel_of(wave, spec).clamp(min=-5.0)  # the noise floor rises and falls too
    rise = nnf.pad((mel[2:] - mel[:-2]).clamp(min=0).mean(-1), (1, 1))
    rise[-3:] = 0  # the end is mirrored, which is no beginning
    around = nnf.max_pool1d(rise[None, None], 11, stride=1, padding=5)[0, 0]
    usual = nnf.avg_pool1d(nnf.pad(rise, (20, 20))[None, None], 41, stride=1)[0, 0]
    peak = (rise == around) & (rise > usual + 0.3 * RISE)
    return torch.where(peak, (rise / RISE).clamp(max=1), torch.zeros_like(rise))


def centroid(wave: Tensor, spec: AudioSpec) -> Tensor:
    """Centre of mass of the magnitude spectrum in Hz (T,), 0 where it is silent."""
    size = torch.fft.rfft(frames(wave, spec) * torch.hann_window(spec.n_fft)).abs()
    hertz = torch.linspace(0, spec.rate / 2, size.shape[-1])
    return audible((size * hertz).sum(-1) / size.sum(-1).clamp(min=1e-9), wave, spec)


def edges(wave: Tensor, spec: AudioSpec) -> Tensor:
    """1 where the smoothed mel is steep, else 0 (T, F): Canny's first two steps, Sobel on a blurred picture."""
    mel = nnf.avg_pool2d(mel_of(wave, spec).clamp(min=-9.0)[None, None], 3, 1, 1, count_include_pad=False)
    across = torch.tensor([[-1.0, 0.0, 1.0]] * 3) / 2
    across[1] *= 2
    kernel = torch.stack([across, across.T])[:, None] / 2
    steep = nnf.conv2d(nnf.pad(mel, (1, 1, 1, 1), mode="replicate"), kernel).square().sum(1).sqrt()[0]
    return (steep > EDGE).float()


def draw_level(level: Tensor, spec: AudioSpec) -> Tensor:
    """As bright as the level (T,) in 0 to 1, in every bin."""
    return level.clamp(0, 1)[None, :, None].expand(1, -1, spec.mels)


def draw_hertz(curve: Tensor, spec: AudioSpec) -> Tensor:
    """A line a mel bin or so wide, where the curve runs; nothing where it is 0."""
    place = torch.from_numpy(mel_position(curve.clamp(min=1e-3).double().numpy(), spec)).float()
    line = torch.exp(-0.5 * (torch.arange(spec.mels) - place[:, None]) ** 2)
    return (line * (curve > 0).float()[:, None])[None]


def draw_onset(curve: Tensor, spec: AudioSpec) -> Tensor:
    """A flash at each onset that dies away within about 50 ms, in every bin."""
    fade = torch.exp(-torch.arange(20) / 5.0).flip(0)
    return draw_level(nnf.conv1d(nnf.pad(curve, (19, 0))[None, None], fade[None, None])[0, 0], spec)


MAPS: dict[str, Map] = {  # Maps by name.
    "loudness": Map(
        loudness, lambda x, spec: draw_level((x - QUIET) / -QUIET, spec), "dB", -200, 20, "RMS in dB re full scale",
    ),
    "pitch": Map(pitch, draw_hertz, "Hz", 0, 8000, "fundamental frequency in Hz, 0 for none"),
    "onset": Map(onset, draw_onset, "strength", 0, 1, "strength 0 to 1 where a sound begins"),
    "centroid": Map(centroid, draw_hertz, "Hz", 0, 8000, "brightness: spectral centroid in Hz"),
    "edges": Map(edges, lambda curve, spec: curve[None], "edge", 0, 1, "edges of the mel; from a sound only"),
}  # fmt: skip


def known(name: str) -> Map:
    """The map ``name``.   Raises AudioLDMError that lists the others."""
    if name not in MAPS:
        raise AudioLDMError(f"control={name!r} is no map.", f"Known: {', '.join(MAPS)}.")
    return MAPS[name]


def pictures(name: str, curves: Tensor, spec: AudioSpec) -> Tensor:
    """Curves (B, T) or (B, T, F) as pictures (B, 1, T, F)."""
    return torch.stack([known(name).draw(curve.float().cpu(), spec) for curve in curves]).to(curves.device)


@dataclass(frozen=True)
class MapSource:
    """A map, the file that it comes from, and how strongly it steers."""

    name: str
    path: Path
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "MapSource":
        """Read "MAP=FILE[:SCALE]".   Raises AudioLDMError.

        >>> MapSource.parse("loudness=ref.wav:0.6")
        MapSource(name='loudness', path=PosixPath('ref.wav'), scale=0.6)
        """
        name, _, rest = (part.strip() for part in text.partition("="))
        if not name or not rest:
            raise AudioLDMError(f"control={text!r} is no MAP=FILE.", "Write such as pitch=curve.csv:0.8.")
        known(name)
        path, scales = weighted(rest, "control", [1.0], Between(0))
        return cls(name, Path(path), scales[0])

    def check(self) -> None:
        if not self.path.is_file():
            what = f"control {self.name}={self.path} is not a file."
            raise AudioLDMError(what, "Name a sound file, or a CSV of time,value.")
        if self.name == "edges" and self.path.suffix.lower() == ".csv":
            raise AudioLDMError("control edges are a picture, not a curve.", "Take them from a sound file.")

    def curve(self, spec: AudioSpec) -> Tensor:
        """The curve (T,), or edges (T, F), in the map's unit; as long as the sound or the drawing."""
        if self.path.suffix.lower() == ".csv":
            return read_curve(self.path, self.name, spec)
        where = f"control {self.name}={self.path}"
        wave = decode(self.path, spec.rate)
        if wave.numel() < spec.hop or not bool((wave - wave.mean()).abs().max() > 1e-4):
            use = "Use another file, or draw the silence in a CSV if you mean it."
            raise AudioLDMError(f"{where} is silent: there is nothing to follow.", use)
        curve = MAPS[self.name].analyse(normalise_peak(wave[None])[0], spec)
        if self.name != "loudness" and not bool((curve > 0).any()):
            raise AudioLDMError(f"{where}: it has no {self.name}.", "Use a clearer recording, or draw a CSV.")
        return curve


def read_curve(path: Path, name: str, spec: AudioSpec) -> Tensor:
    """Straight lines between rows "seconds,value" of a CSV (onsets are points); 0 Hz is none until the next row."""
    kind, points = MAPS[name], read_points(path, name)
    if not points:
        raise AudioLDMError(f"control {name}={path} has no points.", "Write rows of seconds,value.")
    times, values = torch.tensor(points, dtype=torch.float64).T.contiguous()
    if not bool((times.diff() > 0).all()) or times[0] < 0:
        raise AudioLDMError(f"control {name}={path}: its times do not rise from 0.", "Sort the rows by time.")
    length = max(1, spec.frames(float(times[-1])))
    at = (torch.arange(length) + 0.5) * spec.hop / spec.rate
    if name == "onset":
        place = (times * spec.rate / spec.hop).long().clamp(max=length - 1)
        return torch.zeros(length).index_put((place,), values.float())
    after = torch.searchsorted(times, at.double()).clamp(max=len(times) - 1)
    before = (after - 1).clamp(min=0)
    share = ((at - times[before]) / (times[after] - times[before]).clamp(min=1e-9)).clamp(0, 1)
    line = values[before].lerp(values[after], share)
    if kind.unit == "Hz":  # a glide to or from "none" would be a siren
        line = torch.where((values[before] > 0) & (values[after] > 0), line, values[before])
    return line.float()


def read_points(path: Path, name: str) -> list[tuple[float, float]]:
    """Times in seconds and values of the rows of a CSV; a header in the first row is skipped."""
    texts, kind, points, hint = lines(read_text(path)), MAPS[name], [], "Write two numbers a row."
    start, separator = header(texts)
    rows = [record for record in records(texts, start, separator) if record[2] or any(record[1])]
    for number, row, why in rows:
        # where a comma does not separate, it is the sign in a number
        row = row if separator == "," else [cell.replace(",", ".") for cell in row]
        try:
            time, value = float(row[0]), float(row[1]) if len(row) > 1 or name != "onset" else 1.0
        except (ValueError, IndexError):
            if why or number != rows[0][0]:
                why = why or f"{','.join(row)!r} is no seconds,value"
                raise AudioLDMError(f"{path}, line {number}: {why}.", hint) from None
            continue
        if not (math.isfinite(time) and kind.low <= value <= kind.high):
            why = f"{path}, line {number}: {name} of {value:g} {kind.unit} at {time:g} s cannot be."
            raise AudioLDMError(why, f"Use {kind.low:g} to {kind.high:g} {kind.unit}: {kind.line}.")
        points.append((time, value))
    return points
