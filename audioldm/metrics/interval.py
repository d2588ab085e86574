"""How sure a mean or a share is.   Not for a Fréchet distance: resampling with replacement biases it beyond use."""

import torch
from scipy.stats import binomtest
from torch import Generator, Tensor


def bootstrap_mean(values: Tensor, *, generator: Generator, draws: int = 2000) -> tuple[float, float]:
    """95 % percentile interval of the mean of n values over ``draws`` resamples of clips.   Efron (1979).

    >>> low, high = bootstrap_mean(torch.arange(100.0), generator=torch.Generator().manual_seed(0))
    >>> 43 < low < 45 < 54 < high < 56
    True
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values has shape {tuple(values.shape)}; give (n,) with n of 2 or more.")
    index = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values.double()[index].mean(dim=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a fraction.   E. B. Wilson, JASA 22 (1927).

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} hits in {trials} trials is not a fraction.")
    low, high = binomtest(hits, trials).proportion_ci(method="wilson")
    return float(low), float(high)
