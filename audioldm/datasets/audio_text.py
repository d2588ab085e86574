"""Clips with captions as a torch data set; every draw follows from (seed, draw number, index).   B batch, N samples."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from audioldm.batch import Batch
from audioldm.datasets.decode import resample
from audioldm.datasets.draws import bucket_of, draw, generator
from audioldm.datasets.manifest import Row
from audioldm.datasets.store import SCALE, Store, load
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec

Item = tuple[Tensor, str, str]  # wave (1, N), caption, path

STARTS = 4  # how many crops are drawn before the loudest is taken
ENOUGH = 0.5  # of the clip's own RMS: the first crop as loud is taken, so quiet parts still occur
ALPHA = 5.0  # AudioLDM's: lambda is near a half, so that both sounds are heard
FLOOR_DB = -120.0


@dataclass(eq=False)
class AudioText(Dataset[Item]):
    """Windows of ``seconds`` from the rows' clips, each with one of its captions; an index is a row, or (row, draw).

    Of several ``seconds``, the shortest first, each row has the shortest that holds it.
    ``mixup`` is the chance that a second row of the same length is mixed in, its caption joined.
    ``cache`` decodes every clip once to 16-bit samples (1.9 MB a minute at 16 kHz), in memory or in a store that all
    trainings share; the samples are the same without it.  ``captions`` is "random" or "first".
    """

    rows: Sequence[Row]
    spec: AudioSpec
    seconds: float | Sequence[float]
    _: KW_ONLY
    seed: int
    cache: bool = True
    captions: Literal["random", "first"] = "random"
    mixup: float = 0.0

    def __post_init__(self) -> None:
        if not self.rows:
            raise AudioLDMError("There are no rows to train on.", "Check the manifest and its splits.")
        self.lengths = [self.seconds] if isinstance(self.seconds, int | float) else list(self.seconds)
        self.ids = [bucket_of(row.seconds, self.lengths) for row in self.rows]
        """each row's bucket, for BucketDraws"""
        self.alike = defaultdict[int, list[int]](list)
        for i, bucket in enumerate(self.ids):
            self.alike[bucket].append(i)
        self.clips = Store(self.rows, self.spec.rate) if self.cache else None
        self.last: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        index, number = index if isinstance(index, tuple) else (index, 0)
        wave, caption, _ = self.crop(index, generator(self.seed, number, index))
        if (other := self.partner(index, number)) is not None:
            rng = generator(self.seed + 2, number, index)
            second, also, _ = self.crop(other, rng)
            wave, caption = mixed(wave, second, share(rng)), both(caption, also)
        return wave, caption, self.rows[index].path

    def crop(self, index: int, rng: Generator) -> tuple[Tensor, str, int]:
        """A window (1, N) of one row, one of its captions, and where in the clip it begins."""
        captions = self.rows[index].captions
        caption = captions[draw(len(captions), rng) if self.captions == "random" else 0]
        samples = self.spec.samples(self.lengths[self.ids[index]])
        wave, start = window(self.clip(index).float() / SCALE, samples, rng)
        return wave[None], caption, start

    def facts(self, index: int, number: int) -> Tensor:
        """(5,): start, seconds, rate, loudness and clipping of the clip (the first of two) of a window."""
        row, rate = self.rows[index], self.spec.rate
        _, _, start = self.crop(index, generator(self.seed, number, index))
        loudness = 0.0 if row.loudness is None else row.loudness
        return torch.tensor([start / rate, len(self.clip(index)) / rate, row.rate, loudness, row.clipping])

    def clip(self, index: int) -> Tensor:
        """The whole clip of a row as int16; without a cache, the last one stays for its next window."""
        if self.clips is not None:
            return self.clips[index]
        if self.last is None or self.last[0] != index:
            self.last = index, load(self.rows[index], self.spec.rate)
        return self.last[1]

    def partner(self, index: int, number: int) -> int | None:
        """The row that is mixed into ``index`` in a draw; None for most of them, and for the row itself."""
        rng = generator(self.seed + 1, number, index)
        if not self.mixup or float(torch.rand((), generator=rng)) >= self.mixup:
            return None
        alike = self.alike[self.ids[index]]
        other = alike[draw(len(alike), rng)]
        return None if other == index else other


def window(wave: Tensor, samples: int, rng: Generator) -> tuple[Tensor, int]:
    """``samples`` of (N,), and where they begin: a random crop, not a silent one if it can be.

    A short wave gets zeros at its end; its mean goes before: taken off later, it would leave a constant in the silence.
    """
    if (spare := len(wave) - samples) < 0:
        return torch.nn.functional.pad(wave - wave.mean(), (0, -spare)), 0
    if not spare:
        return wave, 0
    starts: list[int] = torch.randint(spare + 1, (STARTS,), generator=rng).tolist()
    powers = [float(wave[start : start + samples].square().mean()) for start in starts]
    enough = ENOUGH**2 * float(wave.square().mean())
    start = starts[next((i for i, power in enumerate(powers) if power >= enough), powers.index(max(powers)))]
    return wave[start : start + samples], start


def level_db(wave: Tensor) -> float:
    """RMS of (..., N) in dB of full scale; the plain level stands for Tokozume's A-weighted one."""
    return max(FLOOR_DB, float(10 * wave.double().square().mean().clamp_min(1e-30).log10()))


def share(rng: Generator) -> float:
    """lambda ~ Beta(ALPHA, ALPHA) by its two gamma draws.   AudioLDM (arXiv:2301.12503) sec. 3.4."""
    draws = torch._standard_gamma(torch.full((2,), ALPHA, dtype=torch.float64), generator=rng)
    return float(draws[0] / draws.sum())


def mixed(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    """(..., N) of which ``first`` is heard at ``ratio``, whatever the levels.   Tokozume et al. 2018, 1711.10282 eq. 2.

    p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r); x = (p x1 + (1 - p) x2) / sqrt(p^2 + (1 - p)^2).
    """
    p = 1 / (1 + float(10 ** ((level_db(first) - level_db(second)) / 20)) * (1 - ratio) / ratio)
    return (p * first + (1 - p) * second) / sqrt(p**2 + (1 - p) ** 2)


def both(first: str, second: str) -> str:
    """The two captions as one: "A dog barks and rain falling"."""
    return f"{first.rstrip(' .')} and {second}"


def varied(wave: Tensor, row: int, draw: int, *, speed: float) -> Tensor:
    """The first draw (1, N) as it is; the others at another speed, and moved where silence at the end allows."""
    if draw == 0:
        return wave
    rng, length = generator(0, draw, row), wave.shape[-1]
    if speed:
        factor = 1 + speed * (2 * float(torch.rand((), generator=rng)) - 1)
        wave = resample(wave, 50, round(50 / factor))[..., :length]  # small terms, small kernels
        wave = torch.nn.functional.pad(wave, (0, length - wave.shape[-1]))
    loud = wave[0].abs().nonzero()
    free = length - (int(loud[-1]) + 1 if len(loud) else 0)
    return wave.roll(int(torch.randint(free + 1, (), generator=rng)), dims=-1)


def collate(items: Sequence[Item]) -> Batch:
    waves, captions, paths = zip(*items, strict=True)
    return Batch(torch.stack(waves), list(captions), list(paths))


def weights(rows: Sequence[Row], shares: Mapping[str, float]) -> Tensor:
    """Weights (len(rows),) float64 for a WeightedRandomSampler that draws source ``s`` ``shares[s]`` of the time.

    "a" also covers sources such as "a/b"; the longest matching name counts; other rows get 0.  Within a source a row is
    drawn by its own ``weight``.
    """
    least, total = min(shares.values(), default=0), sum(shares.values())
    if not least >= 0 < total:
        raise AudioLDMError(f"shares {dict(shares)} are not weights.", "Use numbers of 0 or more, not all 0.")
    names = [
        max((name for name in shares if f"{row.source}/".startswith(f"{name}/")), key=len, default="")
        for row in rows
    ]
    if empty := sorted(set(shares) - set(names)):
        hint = f"Sources here: {sorted({row.source for row in rows})}."
        raise AudioLDMError(f"No rows come from {empty}.", hint)
    sums = defaultdict[str, float](float)
    for row, name in zip(rows, names, strict=True):
        sums[name] += row.weight
    pairs = zip(rows, names, strict=True)
    values = [row.weight * shares.get(name, 0.0) / max(sums[name], 1e-12) for row, name in pairs]
    return torch.tensor(values, dtype=torch.float64) / total
