"""Two sounds in one, both captions kept: the augmentation of between-class learning, which AudioLDM names.   N samples.

Tokozume et al. 2018 (arXiv:1711.10282) eq. 2; AudioLDM (arXiv:2301.12503) sec. 3.4, with lambda ~ Beta(5, 5).
"""

from math import sqrt

import torch
from torch import Generator, Tensor

ALPHA = 5.0  # AudioLDM's: lambda is near a half, so that both sounds are heard
FLOOR_DB = -120.0


def level_db(wave: Tensor) -> float:
    """RMS of (..., N) in dB of full scale; the plain level stands for Tokozume's A-weighted one."""
    return max(FLOOR_DB, float(10 * wave.double().square().mean().clamp_min(1e-30).log10()))


def share(rng: Generator, alpha: float = ALPHA) -> float:
    """lambda ~ Beta(alpha, alpha) by its two gamma draws."""
    draws = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=rng)
    return float(draws[0] / draws.sum())


def mixed(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    """(..., N) of which ``first`` is heard at ``ratio``, whatever the levels of the two.

    p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r); x = (p x1 + (1 - p) x2) / sqrt(p^2 + (1 - p)^2).

    >>> mixed(torch.ones(2), torch.ones(2), 0.5)
    tensor([1.4142, 1.4142])
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio={ratio} is not between 0 and 1")
    p = 1 / (1 + float(10 ** ((level_db(first) - level_db(second)) / 20)) * (1 - ratio) / ratio)
    return (p * first + (1 - p) * second) / sqrt(p**2 + (1 - p) ** 2)


def both(first: str, second: str) -> str:
    """The two captions as one.

    >>> both("A dog barks.", "rain falling")
    'A dog barks and rain falling'
    """
    return f"{first.rstrip(' .')} and {second}"
