"""Scenes put together from single clips: over a bed, one after the other, at once, and counted.   N samples at 16 kHz.

What is said of a scene is what was done: which clips, in which order, how many times, which of them quiet.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.paths import sha256

from .phrasing import captions, usable
from .rendering import LONGEST, RATE, Clip, chooser, fit, length

SHAPES = ("over", "then", "over", "together", "times", "over", "then", "times then")
"""Scene i has shape i modulo 8."""
QUIET = 0.01
"""A clip sounds from the first to the last sample whose 20 ms level is above -40 dB of its loudest."""
FRAME = RATE // 50
READ = 12.0
"""At most so many seconds of a clip are read."""
STEADY = 0.5
"""A bed's quiet tenth of frames has at least this part of its median level: it can be looped and is always heard."""
SPLITS = (("train", 0.9), ("val", 0.05), ("test", 0.05))
TRIES = 200


@dataclass(frozen=True)
class Layer:
    """One clip in a scene: where it begins, where it ends if it is a loop, and its level against the others."""

    row: Row
    start: float
    seconds: float | None
    gain_db: float


def levels(wave: Tensor) -> Tensor:
    """RMS of each 20 ms of (N,)."""
    frames = torch.nn.functional.pad(wave, (0, -len(wave) % FRAME)).view(-1, FRAME)
    return frames.square().mean(1).sqrt()


def sounding(wave: Tensor) -> tuple[int, int]:
    """The samples between which (N,) is heard.

    >>> wave = torch.zeros(16000)
    >>> wave[3200:6400] = 1.0
    >>> sounding(wave)
    (3200, 6400)
    """
    level = levels(wave)
    loud = (level > QUIET * level.max()).nonzero().flatten()
    if not len(loud):
        return 0, len(wave)
    return int(loud[0]) * FRAME, min(len(wave), (int(loud[-1]) + 1) * FRAME)


@lru_cache(maxsize=1024)
def piece(path: str, start: float, seconds: float | None) -> Tensor:
    """The sounding part of a clip, its RMS there at 0.1."""
    wave = decode(path, RATE, start=start, seconds=min(seconds or READ, READ))
    first, last = sounding(wave)
    wave = wave[first:last]
    rms = float(wave.square().mean().sqrt()) if len(wave) else 0.0
    if rms == 0.0:
        raise AudioLDMError(f"{path} is silent.", "Run `audioldm data check`.", code=1)
    return wave * (0.1 / rms)


def of(row: Row) -> Tensor:
    """The sounding part of a row's clip."""
    return piece(row.path, row.start, row.seconds)


def is_bed(row: Row) -> bool:
    """True for a clip of 1.5 s or more whose level stays even."""
    level = levels(of(row))
    return len(level) >= 75 and float(level.quantile(0.1)) >= STEADY * float(level.median())


def is_event(row: Row, longest: float) -> bool:
    """True for a clip that is heard whole within ``longest`` seconds."""
    return (row.seconds or READ) < READ and len(of(row)) <= longest * RATE


def is_single(row: Row) -> bool:
    """True for one short burst, so that three of it are three: it rises within 0.1 s, and not again after falling.

    Falling is below a tenth of the peak, rising again above 0.3 of it; the whole is at most 1.2 s.
    """
    level = levels(of(row))
    if len(level) > 60 or int(level.argmax()) > 5:
        return False
    below = (level < 0.1 * level.max()).nonzero().flatten()
    below = below[below > level.argmax()]
    return not len(below) or bool((level[int(below[0]) :] < 0.3 * level.max()).all())


class Pool:
    """Rows of one split, drawn evenly over manifests, then over the first three words of captions, then over clips."""

    def __init__(self, manifests: Sequence[Sequence[Row]], split: str) -> None:
        self.groups: list[list[list[Row]]] = []
        for rows in manifests:
            named = defaultdict(list)
            for row in rows:
                if row.split == split and (texts := usable(row.captions)):
                    named[" ".join(texts[0].split()[:3])].append(replace(row, captions=texts))
            if named:
                self.groups.append(list(named.values()))

    def draw(self, rng: random.Random, suits: Callable[[Row], bool], other: Row | None = None) -> Row | None:
        """A row that suits and whose captions are not ``other``'s; None if none was found in TRIES draws."""
        for _ in range(TRIES):
            row = rng.choice(rng.choice(rng.choice(self.groups)))
            if (other is None or not set(row.captions) & set(other.captions)) and suits(row):
                return row
        return None


def compose(rng: random.Random, pool: Pool, shape: str) -> tuple[float, list[Layer], tuple[str, ...]] | None:
    """(seconds, layers, captions) of one scene, or None if no clips were found for its shape."""
    seconds = max(3.0, length(rng))
    if shape == "over":
        bed, event = pool.draw(rng, is_bed), None
        if bed is not None:
            event = pool.draw(rng, lambda row: is_event(row, seconds - 0.8) and not is_bed(row), bed)
        if bed is None or event is None:
            return None
        start = rng.uniform(0.3, seconds - 0.3 - len(of(event)) / RATE)
        layers = [Layer(bed, 0.0, seconds, -rng.uniform(9.0, 13.0)), Layer(event, round(start, 3), None, 0.0)]
        return seconds, layers, captions(shape, rng.choice(event.captions), rng.choice(bed.captions))
    if shape == "together":
        first = pool.draw(rng, is_bed)
        second = pool.draw(rng, is_bed, first) if first else None
        if first is None or second is None:
            return None
        layers = [Layer(row, 0.0, seconds, 0.0) for row in (first, second)]
        return seconds, layers, captions(shape, rng.choice(first.captions), rng.choice(second.captions))
    count = rng.randint(2, 4) if shape.startswith("times") else 1
    first = pool.draw(rng, is_single if count > 1 else lambda row: is_event(row, 2.2))
    if first is None:
        return None
    layers, time = [], 0.05
    step = max(0.35, len(of(first)) / RATE + rng.uniform(0.08, 0.2))
    for _ in range(count):
        layers.append(Layer(first, round(time, 3), None, 0.0))
        time += step
    second = None
    if shape != "times":
        time = layers[-1].start + len(of(first)) / RATE + rng.uniform(0.1, 0.4)
        room = LONGEST - time
        second = pool.draw(rng, lambda row: is_event(row, room), first) if room > 0.3 else None
        if second is None:
            return None
        layers.append(Layer(second, round(time, 3), None, 0.0))
        time += len(of(second)) / RATE
    if time > LONGEST:
        return None
    text = captions(shape, rng.choice(first.captions), rng.choice(second.captions) if second else None, count)
    return round(max(2.0, time + 0.1), 3), layers, text


def loop(wave: Tensor, samples: int) -> Tensor:
    """(N,) cut or repeated to ``samples``, each repeat cross-faded into the next over 0.1 s at equal power."""
    fade = min(RATE // 10, len(wave) // 4)
    ramp = torch.linspace(0, torch.pi / 2, fade)
    out = wave
    while len(out) < samples:
        seam = out[-fade:] * ramp.cos() + wave[:fade] * ramp.sin()
        out = torch.cat([out[:-fade], seam, wave[fade:]])
    return out[:samples]


def mix(layers: Sequence[Layer], seconds: float) -> Tensor:
    """The layers added up: (N,) at 16 kHz."""
    out = torch.zeros(round(seconds * RATE))
    for layer in layers:
        wave, first = of(layer.row), round(layer.start * RATE)
        if layer.seconds is not None:
            wave = loop(wave, round(layer.seconds * RATE))
        wave = wave[: len(out) - first]
        out[first : first + len(wave)] += wave * 10 ** (layer.gain_db / 20)
    return fit(out, seconds)


def sounds(
    manifests: Sequence[Sequence[Row]], count: int, seed: int, *, on_scene: Callable[[], None] | None = None
) -> list[Clip]:
    """``count`` scenes; scene ``i`` depends on (seed, i) and the manifests.   A scene is of its clips' one split."""
    pools = {split: Pool(manifests, split) for split, _ in SPLITS}
    if not pools["train"].groups:
        raise AudioLDMError(
            "No training row has a caption that can be part of a scene.", "Give other manifests."
        )
    out = []
    for index in range(count):
        rng = chooser(seed, "scenes", index)
        split = rng.choices([name for name, _ in SPLITS], [share for _, share in SPLITS])[0]
        pool = pools[split] if pools[split].groups else pools["train"]
        split = split if pools[split].groups else "train"
        match = None
        for shift in range(len(SHAPES)):  # the next shape if the clips allow none of this one
            match = match or compose(rng, pool, SHAPES[(index + shift) % len(SHAPES)])
        if match is not None:
            out.append(scene(*match, split=split))
        if on_scene is not None:
            on_scene()
    return out


def scene(seconds: float, layers: list[Layer], texts: tuple[str, ...], *, split: str) -> Clip:
    """A scene with the licences, authors and hashes of all its parts."""
    rows = {layer.row.path: layer.row for layer in layers}
    parts = {path: row.sha256 or sha256(path) for path, row in rows.items()}
    recipe = [
        {
            **{k: v for k, v in asdict(layer).items() if k != "row"},
            "of": parts[layer.row.path],
            "from": layer.row.start,
        }
        for layer in layers
    ]
    key = f"scene/1/{seconds}/{json.dumps(recipe)}"
    return Clip(
        key,
        texts,
        tuple(dict.fromkeys(label for row in rows.values() for label in row.labels)),
        "composed/" + "+".join(dict.fromkeys(row.group or row.path for row in rows.values())),
        " AND ".join(sorted({row.licence or "unknown" for row in rows.values()})),
        "; ".join(sorted({row.author for row in rows.values() if row.author})),
        "composed",
        partial(mix, layers, seconds),
        split=split,
        parts=tuple(dict.fromkeys(parts.values())),
    )
