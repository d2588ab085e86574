"""Clips with captions as a torch data set; every draw follows from (seed, epoch, index).   B batch, N samples."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from audioldm.batch import Batch
from audioldm.datasets.buckets import bucket_of
from audioldm.datasets.decode import resample
from audioldm.datasets.draws import draw, generator
from audioldm.datasets.manifest import Row
from audioldm.datasets.mixup import both, mixed, share
from audioldm.datasets.store import SCALE, Store, load
from audioldm.errors import AudioLDMError
from audioldm.spec import AudioSpec

Item = tuple[Tensor, str, str]
"""wave (1, N), caption, path"""

CAPTIONS = ("random", "first")
STARTS = 4
"""How many crops are drawn before the loudest is taken."""
ENOUGH = 0.5
"""A crop is loud enough at half the clip's own RMS; the first such crop is taken, so quiet parts still occur."""


class Epoch:
    """The current epoch, in shared memory so that persistent workers see it change."""

    def __init__(self) -> None:
        self.value: Tensor = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def set(self, epoch: int) -> None:
        """Begin ``epoch``."""
        self.value.fill_(epoch)

    def __int__(self) -> int:
        return int(self.value)


class AudioText(Dataset[Item]):
    """Windows of ``seconds`` from the rows' clips, each with one of its captions.

    Of several ``seconds``, the shortest first, each row has the shortest that holds it.
    ``mixup`` is the chance that a second row of the same length is mixed in, its caption joined.
    ``cache`` decodes every clip once to 16-bit samples (1.9 MB a minute at 16 kHz), in memory or in a store that all
    trainings share; the samples are the same without it.  ``captions`` is "random" or "first".  Call ``set_epoch``
    before each epoch for new draws.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        spec: AudioSpec,
        seconds: float | Sequence[float],
        *,
        seed: int,
        cache: bool = True,
        captions: str = "random",
        mixup: float = 0.0,
    ) -> None:
        if not rows:
            raise AudioLDMError("There are no rows to train on.", "Check the manifest and its splits.")
        if captions not in CAPTIONS:
            raise AudioLDMError(
                f"captions={captions!r} is not a choice.", f"Use one of {', '.join(CAPTIONS)}."
            )
        if isinstance(seconds, int | float) and seconds <= 0:
            raise AudioLDMError(f"seconds={seconds} is not a length.", "Use more than 0.")
        if not 0 <= mixup <= 1:
            raise AudioLDMError(f"mixup={mixup} is not a chance.", "Use 0 to 1.")
        self.rows = list(rows)
        self.spec = spec
        self.lengths = [seconds] if isinstance(seconds, int | float) else list(seconds)
        self.ids = [bucket_of(row.seconds, self.lengths) for row in self.rows]
        """each row's bucket, for BucketDraws"""
        self.alike = {
            bucket: [i for i, other in enumerate(self.ids) if other == bucket] for bucket in set(self.ids)
        }
        self.mixup = mixup
        self.seed = seed
        self.captions = captions
        self.epoch = Epoch()
        self.clips = Store(self.rows, spec.rate) if cache else None
        self.last: tuple[int, Tensor] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of ``epoch``."""
        self.epoch.set(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        """Row ``index`` in the current epoch, or row and draw number in one."""
        index, epoch = index if isinstance(index, tuple) else (index, int(self.epoch))
        wave, caption = self.crop(index, generator(self.seed, epoch, index))
        if (other := self.partner(index, epoch)) is not None:
            rng = generator(self.seed + 2, epoch, index)
            second, also = self.crop(other, rng)
            wave, caption = mixed(wave, second, share(rng)), both(caption, also)
        return wave, caption, self.rows[index].path

    def crop(self, index: int, rng: Generator) -> tuple[Tensor, str]:
        """A window (1, N) of one row, and one of its captions."""
        row = self.rows[index]
        caption = row.captions[draw(len(row.captions), rng) if self.captions == "random" else 0]
        clip = self.clip(index)
        samples = self.spec.samples(self.lengths[self.ids[index]])
        return window(clip.float() / SCALE, samples, rng)[None], caption

    def facts(self, index: int, epoch: int) -> Tensor:
        """(5,): start, seconds, rate, loudness and clipping of what window ``index`` of draw ``epoch`` is cut from.

        Of two mixed clips, those of the first.
        """
        row, wave, rng = (
            self.rows[index],
            self.clip(index).float() / SCALE,
            generator(self.seed, epoch, index),
        )
        if self.captions == "random":
            draw(len(row.captions), rng)
        start = crop_start(wave, self.spec.samples(self.lengths[self.ids[index]]), rng) / self.spec.rate
        seconds, loudness = len(wave) / self.spec.rate, 0.0 if row.loudness is None else row.loudness
        return torch.tensor([start, seconds, row.rate, loudness, row.clipping])

    def clip(self, index: int) -> Tensor:
        """The whole clip of a row as int16; without a cache, the last one stays for its next window."""
        if self.clips is not None:
            return self.clips[index]
        if self.last is None or self.last[0] != index:
            self.last = index, load(self.rows[index], self.spec.rate)
        return self.last[1]

    def partner(self, index: int, epoch: int) -> int | None:
        """The row that is mixed into ``index`` in draw ``epoch``; None for most of them, and for the row itself."""
        if not self.mixup:
            return None
        rng = generator(self.seed + 1, epoch, index)
        if float(torch.rand((), generator=rng)) >= self.mixup:
            return None
        alike = self.alike[self.ids[index]]
        other = alike[draw(len(alike), rng)]
        return None if other == index else other


def window(wave: Tensor, samples: int, rng: Generator) -> Tensor:
    """``samples`` of (N,): short waves get zeros at the end, long ones a random crop, not a silent one if it can be.

    The mean goes before the zeros come: taken off later, it would leave a constant in the silence.

    >>> window(torch.tensor([1.0, 2.0, 3.0]), 5, generator(0, 0, 0))
    tensor([-1.,  0.,  1.,  0.,  0.])
    """
    spare = len(wave) - samples
    if spare <= 0:
        return torch.nn.functional.pad(wave - wave.mean(), (0, -spare)) if spare else wave
    start = crop_start(wave, samples, rng)
    return wave[start : start + samples]


def crop_start(wave: Tensor, samples: int, rng: Generator) -> int:
    """Where ``window`` begins in a wave (N,): 0 for a short one."""
    spare = len(wave) - samples
    if spare <= 0:
        return 0
    starts = torch.randint(spare + 1, (STARTS,), generator=rng).tolist()
    crops = [wave[start : start + samples] for start in starts]
    powers = [float(crop.square().mean()) for crop in crops]
    enough = ENOUGH**2 * float(wave.square().mean())
    first = next((place for place, power in enumerate(powers) if power >= enough), powers.index(max(powers)))
    return int(starts[first])


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
    """Stack items of one length to a Batch."""
    waves, captions, paths = zip(*items, strict=True)
    return Batch(torch.stack(waves), list(captions), list(paths))


def weights(rows: Sequence[Row], shares: Mapping[str, float]) -> Tensor:
    """Weights (len(rows),) float64 for a WeightedRandomSampler that draws source ``s`` ``shares[s]`` of the time.

    "a" also covers sources such as "a/b"; the longest matching name counts; rows of unnamed sources get 0.  Within a
    source a row is drawn by its own ``weight``.

    >>> rows = [Row("1", ("x",), source="a"), Row("2", ("x",), source="b/c"), Row("3", ("x",), source="b/d")]
    >>> weights(rows, {"a": 0.5, "b": 0.5}).tolist()
    [0.5, 0.25, 0.25]
    """
    if any(share < 0 for share in shares.values()) or sum(shares.values()) <= 0:
        raise AudioLDMError(f"shares {dict(shares)} are not weights.", "Use numbers of 0 or more, not all 0.")
    names = [source_of(row, shares) for row in rows]
    if empty := sorted(set(shares) - set(names)):
        raise AudioLDMError(
            f"No rows come from {empty}.", f"Sources here: {sorted({row.source for row in rows})}."
        )
    chances = {name: share / sum(shares.values()) for name, share in shares.items()} | {"": 0.0}
    sums = Counter[str]()
    for row, name in zip(rows, names, strict=True):
        sums[name] += row.weight  # type: ignore[assignment]  # a Counter adds any numbers
    values = [
        chances[name] * row.weight / sums[name] if sums[name] else 0.0
        for row, name in zip(rows, names, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


def source_of(row: Row, names: Iterable[str]) -> str:
    """The longest of ``names`` that covers a row's source, "" if none does."""
    return max((n for n in names if row.source == n or row.source.startswith(f"{n}/")), key=len, default="")
