"""What a distance would be with endless clips: a line in 1/n through subsets drawn without replacement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

Distance = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Extrapolation:
    """Intercept at 1/n = 0, its standard error from the regression, and how straight the line was."""

    value: float
    error: float
    r2: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def line(counts: Sequence[int], distances: Sequence[float]) -> Extrapolation:
    """Least squares of distance = a + b / n.   The error is that of ordinary regression (n - 2 degrees of freedom).

    >>> found = line([10, 20, 40], [3.0, 2.5, 2.25])
    >>> round(found.value, 9), round(found.error, 9), round(found.r2, 9)
    (2.0, 0.0, 1.0)
    """
    if len(counts) != len(distances) or len(set(counts)) < 2 or len(counts) < 3:
        raise ValueError(
            f"{len(counts)} counts and {len(distances)} distances; give 3 pairs or more at 2 different counts."
        )
    x = 1 / torch.tensor(counts, dtype=torch.float64)
    y = torch.tensor(distances, dtype=torch.float64)
    spread = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    value = y.mean() - slope * x.mean()
    rest = (y - value - slope * x).square().sum()
    error = (rest / (len(counts) - 2) * (1 / len(counts) + x.mean().square() / spread)).sqrt()
    total = (y - y.mean()).square().sum()
    r2 = float(1 - rest / total) if float(total) > 0 else 1.0
    return Extrapolation(float(value), float(error), r2, tuple(counts), tuple(distances))


def infinity(
    rows: Tensor,
    reference: Tensor,
    distance: Distance,
    *,
    generator: Generator,
    points: int = 12,
    draws: int = 1,
) -> Extrapolation:
    """The distance of ``rows`` (n, D) to ``reference`` (m, D) with the bias of few clips taken out of both sets.

    Both are thinned together, from a third of the smaller one to all of it: Chong and Forsyth (arXiv:1911.07023)
    sec. 3, Gui et al. (arXiv:2311.01616) sec. 2.3 for audio.   Subsets are drawn without replacement: drawing with it
    shrinks the number of different clips, and the line then ends at the biased value of all n.   A row should be a
    clip, since the frames of one clip are not independent.   Each point is the mean over ``draws`` pairs of subsets.
    """
    n = min(len(rows), len(reference))
    if points < 3 or n < 12:
        raise ValueError(f"{n} clips and {points} points; 12 clips and 3 points are the least.")
    counts = [round(1 / x) for x in torch.linspace(3 / n, 1 / n, points, dtype=torch.float64).tolist()]
    distances = []
    for count in counts:
        values = []
        for _ in range(1 if count == len(rows) == len(reference) else draws):
            a = rows[torch.randperm(len(rows), generator=generator)[:count]]
            b = reference[torch.randperm(len(reference), generator=generator)[:count]]
            values.append(distance(a, b))
        distances.append(sum(values) / len(values))
    return line(counts, distances)
