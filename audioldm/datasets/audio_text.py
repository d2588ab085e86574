"""Clips with captions as a torch data set; every draw follows from (seed, epoch, index).   B batch, N samples."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from audioldm.batch import Batch
from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row
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
        self.value = torch.zeros((), dtype=torch.int64).share_memory_()

    def set(self, epoch: int) -> None:
        """Begin ``epoch``."""
        self.value.fill_(epoch)

    def __int__(self) -> int:
        return int(self.value)


def generator(seed: int, epoch: int, index: int, *, device: torch.device | str = "cpu") -> Generator:
    """A fresh generator for one item.

    >>> bool(torch.equal(torch.rand(2, generator=generator(0, 1, 2)), torch.rand(2, generator=generator(0, 1, 2))))
    True
    """
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return Generator(device).manual_seed(int.from_bytes(digest) >> 1)


def draw(count: int, rng: Generator) -> int:
    """A whole number from 0 to count - 1."""
    return int(torch.randint(count, (), generator=rng))


class AudioText(Dataset[Item]):
    """Windows of ``seconds`` from the rows' clips, each with one of its captions.

    ``cache`` keeps every decoded clip in memory as 16-bit samples (1.9 MB a minute at 16 kHz); the samples are the same
    without it.   ``captions`` is "random" or "first".   Call ``set_epoch`` before each epoch for new draws.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        spec: AudioSpec,
        seconds: float,
        *,
        seed: int,
        cache: bool = True,
        captions: str = "random",
    ) -> None:
        if not rows:
            raise AudioLDMError("There are no rows to train on.", "Check the manifest and its splits.")
        if captions not in CAPTIONS:
            raise AudioLDMError(
                f"captions={captions!r} is not a choice.", f"Use one of {', '.join(CAPTIONS)}."
            )
        if seconds <= 0:
            raise AudioLDMError(f"seconds={seconds} is not a length.", "Use more than 0.")
        self.rows = list(rows)
        self.spec = spec
        self.samples = spec.samples(seconds)
        self.seed = seed
        self.captions = captions
        self.epoch = Epoch()
        self.clips = [self.load(row) for row in self.rows] if cache else None

    def load(self, row: Row) -> Tensor:
        """The clip as 16-bit samples (N,) at the spec's rate."""
        wave = decode(row.path, self.spec.rate, start=row.start, seconds=row.seconds)
        return (wave.clamp(-1, 1) * 32767).round().to(torch.int16)

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of ``epoch``."""
        self.epoch.set(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int]) -> Item:
        """Row ``index`` in the current epoch, or row and draw number in one."""
        index, epoch = index if isinstance(index, tuple) else (index, int(self.epoch))
        row = self.rows[index]
        rng = generator(self.seed, epoch, index)
        caption = row.captions[draw(len(row.captions), rng) if self.captions == "random" else 0]
        clip = self.clips[index] if self.clips is not None else self.load(row)
        return window(clip.float() / 32767, self.samples, rng)[None], caption, row.path


def window(wave: Tensor, samples: int, rng: Generator) -> Tensor:
    """``samples`` of (N,): short waves get zeros at the end, long ones a random crop, not a silent one if it can be.

    >>> window(torch.ones(3), 5, generator(0, 0, 0))
    tensor([1., 1., 1., 0., 0.])
    """
    spare = len(wave) - samples
    if spare <= 0:
        return torch.nn.functional.pad(wave, (0, -spare))
    starts = torch.randint(spare + 1, (STARTS,), generator=rng).tolist()
    crops = [wave[start : start + samples] for start in starts]
    powers = [float(crop.square().mean()) for crop in crops]
    enough = ENOUGH**2 * float(wave.square().mean())
    first = next((place for place, power in enumerate(powers) if power >= enough), powers.index(max(powers)))
    return crops[first]


def collate(items: Sequence[Item]) -> Batch:
    """Stack items of one length to a Batch."""
    waves, captions, paths = zip(*items, strict=True)
    return Batch(torch.stack(waves), list(captions), list(paths))


def weights(rows: Sequence[Row], shares: Mapping[str, float]) -> Tensor:
    """Weights (len(rows),) float64 for a WeightedRandomSampler that draws source ``s`` ``shares[s]`` of the time.

    "a" also covers sources such as "a/b"; the longest matching name counts; rows of unnamed sources get 0.

    >>> rows = [Row("1", ("x",), source="a"), Row("2", ("x",), source="b/c"), Row("3", ("x",), source="b/d")]
    >>> weights(rows, {"a": 0.5, "b": 0.5}).tolist()
    [0.5, 0.25, 0.25]
    """
    if any(share < 0 for share in shares.values()) or sum(shares.values()) <= 0:
        raise AudioLDMError(f"shares {dict(shares)} are not weights.", "Use numbers of 0 or more, not all 0.")
    names = sorted(shares, key=len, reverse=True)
    match = [
        next((n for n in names if row.source == n or row.source.startswith(f"{n}/")), None) for row in rows
    ]
    if empty := [name for name in shares if name not in match]:
        raise AudioLDMError(
            f"No rows come from {empty}.", f"Sources here: {sorted({row.source for row in rows})}."
        )
    total = sum(shares.values())
    each = {name: shares[name] / total / match.count(name) for name in shares}
    return torch.tensor([each.get(name, 0.0) if name else 0.0 for name in match], dtype=torch.float64)
