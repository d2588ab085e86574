"""How sure a mean is.   Only means: resampling clips with replacement biases a Fréchet distance beyond use."""

import torch
from torch import Generator, Tensor


def bootstrap_mean(
    values: Tensor, *, generator: Generator, draws: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of n values over ``draws`` resamples of clips.   Efron (1979).

    >>> low, high = bootstrap_mean(torch.arange(100.0), generator=torch.Generator().manual_seed(0))
    >>> 43 < low < 45 < 54 < high < 56
    True
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values has shape {tuple(values.shape)}; give (n,) with n of 2 or more.")
    index = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values.double()[index].mean(dim=1)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = means.quantile(ends).tolist()
    return low, high
