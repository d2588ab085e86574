"""Where a control comes from: a sound that is analysed, or a curve drawn in a CSV.   T mel frames."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audioldm.control.maps import MAPS, known
from audioldm.datasets.decode import decode
from audioldm.errors import AudioLDMError
from audioldm.signal.level import normalise_peak
from audioldm.spec import AudioSpec
from audioldm.tables import header, lines, read_text, records


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
        name, _, rest = text.partition("=")
        if not name.strip() or not rest.strip():
            use = "Write such as loudness=ref.wav or pitch=curve.csv:0.8."
            raise AudioLDMError(f"control={text!r} is no MAP=FILE.", use)
        known(name.strip())
        path, _, tail = rest.rpartition(":")
        try:
            scale = float(tail) if path else 1.0
        except ValueError:
            path, scale = rest, 1.0
        if not (math.isfinite(scale) and scale >= 0):
            raise AudioLDMError(f"control={text!r}: {tail} is no scale.", "Use 0 (none) or more; 1 is full.")
        return cls(name.strip(), Path(path or rest), scale)

    def check(self) -> None:
        if not self.path.is_file():
            why = f"control {self.name}={self.path} is not a file."
            raise AudioLDMError(why, "Name a sound file, or a CSV of time,value.")
        if self.name == "edges" and self.path.suffix.lower() == ".csv":
            raise AudioLDMError("control edges are a picture, not a curve.", "Take them from a sound file.")

    def curve(self, spec: AudioSpec) -> Tensor:
        """The curve (T,), or edges (T, F), in the map's unit; as long as the sound or the drawing."""
        if self.path.suffix.lower() == ".csv":
            return read_curve(self.path, self.name, spec)
        where = f"control {self.name}={self.path}"
        try:
            wave = decode(self.path, spec.rate)
        except AudioLDMError as error:
            raise AudioLDMError(f"control {self.name}: {error.message}", "Name a sound file.") from error
        if wave.numel() < spec.hop or not bool((wave - wave.mean()).abs().max() > 1e-4):
            use = "Use another file, or draw the silence in a CSV if you mean it."
            raise AudioLDMError(f"{where} is silent: there is nothing to follow.", use)
        curve = MAPS[self.name].analyse(normalise_peak(wave[None])[0], spec)
        if self.name != "loudness" and not bool((curve > 0).any()):
            raise AudioLDMError(f"{where}: it has no {self.name}.", "Use a clearer recording, or draw a CSV.")
        return curve


def read_curve(path: Path, name: str, spec: AudioSpec) -> Tensor:
    """The curve of a CSV of rows "seconds,value": straight lines between points; onsets are points.

    A header is skipped.   In maps of Hz a value of 0 is no pitch, from its time to the next point.
    """
    times, values = read_points(path, name)
    length = max(1, spec.frames(float(times[-1])))
    at = (torch.arange(length) + 0.5) * spec.hop / spec.rate
    if name == "onset":
        place = (times * spec.rate / spec.hop).long().clamp(max=length - 1)
        return torch.zeros(length).index_put((place,), values.float())
    after = torch.searchsorted(times, at.double()).clamp(max=len(times) - 1)
    before = (after - 1).clamp(min=0)
    share = ((at - times[before]) / (times[after] - times[before]).clamp(min=1e-9)).clamp(0, 1)
    line = values[before].lerp(values[after], share)
    if MAPS[name].unit == "Hz":  # a glide to or from "none" would be a siren
        line = torch.where((values[before] > 0) & (values[after] > 0), line, values[before])
    return line.float()


def read_points(path: Path, name: str) -> tuple[Tensor, Tensor]:
    """Rising times in seconds and values (n,), float64, of the rows of a CSV; a header in the first row is skipped."""
    texts, kind, points, first = lines(read_text(path)), MAPS[name], list[tuple[float, float]](), True
    start, separator = header(texts)
    for number, row, why in records(texts, start, separator):
        place = f"{path}, line {number}"
        if why:
            raise AudioLDMError(f"{place}: {why}.", "Write two numbers a row.")
        if not any(row):
            continue
        # where a comma does not separate, it is the sign in a number
        row = row if separator == "," else [cell.replace(",", ".") for cell in row]
        titles, first = first, False
        try:
            time, value = float(row[0]), float(row[1]) if len(row) > 1 or name != "onset" else 1.0
        except (ValueError, IndexError):
            if titles:
                continue
            why = f"{place}: {','.join(row)!r} is no seconds,value."
            raise AudioLDMError(why, "Write two numbers a row.") from None
        if not (math.isfinite(time) and kind.low <= value <= kind.high):
            why = f"{place}: {name} of {value:g} {kind.unit} at {time:g} s cannot be."
            raise AudioLDMError(why, f"Use {kind.low:g} to {kind.high:g} {kind.unit}: {kind.line}.")
        points.append((time, value))
    if not points:
        raise AudioLDMError(f"control {name}={path} has no points.", "Write rows of seconds,value.")
    times, values = torch.tensor(points, dtype=torch.float64).T.contiguous()
    if not bool((times.diff() > 0).all()) or times[0] < 0:
        raise AudioLDMError(f"control {name}={path}: its times do not rise from 0.", "Sort the rows by time.")
    return times, values
