"""Where the sounds of the checks come from: held-out rows, disjoint halves, one framing for all.   N samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.clips import shuffled
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.progress import counted
from audioldm.signal.level import normalise_peak
from recipes.embedded.esc10 import PROMPTS, TEST_FOLD, TRAIN_FOLDS
from recipes.embedded.tagger import load_row

ESC10, OPENSOUNDS, OPENSOUNDS2 = "esc10", "opensounds", "opensounds2"
CAPTIONS = 200
"""held-out captions of open sounds"""
SEED = 0


@dataclass(frozen=True)
class Framing:
    """Every sound, real or generated, gets this length and this gain before it is compared: zeros fill up, peak 0.5."""

    seconds: float
    rate: int = RATE

    def __call__(self, wave: Tensor, rate: int) -> Tensor:
        """A wave (N,) at ``rate`` Hz to (samples,) at the framing's rate."""
        wave = resample(wave.detach().cpu().float(), rate, self.rate)
        samples = round(self.seconds * self.rate)
        wave = torch.nn.functional.pad(wave, (0, max(0, samples - len(wave))))[:samples]
        return normalise_peak(wave)

    def of_row(self, row: Row) -> Tensor:
        """A manifest row, framed."""
        return self(load_row(row, self.rate), self.rate)

    def bare(self, row: Row) -> Tensor:
        """The same of a row without the zeros; at least 0.25 s, so that every analysis window fits."""
        wave = load_row(row, self.rate)[: round(self.seconds * self.rate)]
        return normalise_peak(torch.nn.functional.pad(wave, (0, max(0, self.rate // 4 - len(wave)))))

    def __str__(self) -> str:
        return f"{self.seconds:g} s at {self.rate} Hz, zeros at the end, mean removed, peak 0.5"


@dataclass(frozen=True)
class Tagged:
    """What YAMNet makes of n clips: pooled embeddings (n, 1024), and the largest and mean tag of each (n, 521)."""

    embeddings: Tensor
    largest: Tensor
    mean: Tensor

    @classmethod
    def of(cls, waves: Sequence[Tensor], yamnet: YamNet) -> "Tagged":
        """Embed each 16 kHz wave once."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for wave in counted(waves, "sounds"):
            embeddings = yamnet.embed(wave)
            scores = embeddings.scores
            parts.append((embeddings.rows.mean(dim=0), scores.amax(dim=0), scores.mean(dim=0)))
        return cls(*(torch.stack(column) for column in zip(*parts, strict=True)))

    def __getitem__(self, index: slice | Tensor) -> "Tagged":
        return Tagged(self.embeddings[index], self.largest[index], self.mean[index])


def of_source(rows: Sequence[Row], *sources: str) -> list[Row]:
    """Rows of some sources, "opensounds" covering "opensounds/package"."""
    return [row for row in rows if row.source.split("/")[0] in sources]


def hold_out(rows: Sequence[Row], groups: Sequence[str]) -> list[Row]:
    """The rows with these groups of opensounds2 as its test split, and all its other rows as training rows."""
    held = {f"{OPENSOUNDS2}/{group.removeprefix(f'{OPENSOUNDS2}/')}" for group in groups}
    there = {row.group for row in of_source(rows, OPENSOUNDS2)}
    if held and not held & there:
        raise AudioLDMError(
            f"None of the {len(held)} held-out groups is in the manifests, {min(held)!r} for one.",
            "Give the manifest of opensounds2, or leave --held out.",
        )
    return [
        replace(row, split="test" if row.group in held else "train")
        if held and row.source.startswith(OPENSOUNDS2)
        else row
        for row in rows
    ]


def held_out(rows: Sequence[Row], count: int = CAPTIONS) -> list[Row]:
    """``count`` open sounds of the test split; where it has fewer, validation rows fill up."""
    open_rows = of_source(rows, OPENSOUNDS, OPENSOUNDS2)
    test = shuffled([row for row in open_rows if row.split == "test"])
    spare = shuffled([row for row in open_rows if row.split == "val"])
    selected = [*test, *spare][:count]
    if len(selected) < 2:
        raise AudioLDMError(
            f"The manifests hold {len(selected)} held-out open sounds.",
            "Make them with `python -m recipes.embedded.prepare opensounds`.",
        )
    return selected


def test_fold(rows: Sequence[Row]) -> list[Row]:
    """ESC-10's test fold, class by class."""
    fold = [row for row in of_source(rows, ESC10) if row.fold == TEST_FOLD]
    return [row for label in PROMPTS for row in fold if label in row.labels]


def halves(rows: Sequence[Row], *, per_class: int, opensounds: int) -> tuple[list[Row], list[Row]]:
    """Two sets of training rows that share no recording, each as large and as mixed as the held-out set.

    ESC-10 gives ``per_class`` rows of each class, the open sounds ``opensounds``.   Recordings are dealt to two sides;
    from each side rows are drawn at random, so that a recording of many takes counts as often as it does in the data.
    """
    esc = [row for row in of_source(rows, ESC10) if row.fold in TRAIN_FOLDS]
    quotas = [([row for row in esc if label in row.labels], per_class) for label in PROMPTS]
    quotas += [
        ([row for row in of_source(rows, OPENSOUNDS, OPENSOUNDS2) if row.split == "train"], opensounds)
    ]
    first, second = [], []
    for pool, quota in quotas:
        sides: tuple[list[Row], list[Row]] = ([], [])
        place: dict[str, int] = {}
        for row in shuffled(pool):
            side = place.setdefault(row.group or row.path, int(len(sides[0]) > len(sides[1])))
            sides[side].append(row)
        if (short := min(map(len, sides))) < quota:
            raise AudioLDMError(
                f"Training rows give {short} clips a half, {quota} are needed.", "Use the whole data sets."
            )
        first += sides[0][:quota]
        second += sides[1][:quota]
    return first, second
