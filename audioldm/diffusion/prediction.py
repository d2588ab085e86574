"""What a net may be trained to say, and how to turn each into every other.

``x_t = alpha x0 + sigma eps`` with alpha, sigma of shape (B,).   Kinds: x0, eps, v = alpha eps - sigma x0 (Salimans &
Ho 2022), score = -eps / sigma (Song et al. 2021), flow = eps - x0 (rectified flow).   B batch.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from audioldm.diffusion.schedule import Path, double

Prediction = Literal["eps", "x0", "v", "score", "flow"]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x (B, ...), sigma (B,)) -> x0 (B, ...), where x = x0 + sigma eps."""
NetCall = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, ...), t (B,)) -> what the net predicts (B, ...)."""

PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


def spread(values: Tensor, x: Tensor) -> Tensor:
    """Per-sample numbers (B,) shaped (B, 1, ...) in x's type and place: they multiply x along its first axis only."""
    if values.shape != x.shape[:1]:
        raise ValueError(f"values {tuple(values.shape)} are not one per sample of x {tuple(x.shape)}.")
    return values.to(x).reshape(-1, *[1] * (x.ndim - 1))


def unknown(prediction: str) -> ValueError:
    """The error for a prediction that is not in PREDICTIONS."""
    return ValueError(f"prediction={prediction!r} is none of {', '.join(PREDICTIONS)}.")


def to_x0(value: Tensor, x_t: Tensor, *, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The clean sample that ``value`` implies at x_t.   value, x_t (B, ...); alpha, sigma (B,).   Salimans & Ho."""
    a, s = spread(alpha, x_t), spread(sigma, x_t)
    match prediction:
        case "x0":
            return value
        case "eps":
            return (x_t - s * value) / a
        case "v":
            return (a * x_t - s * value) / (a**2 + s**2)
        case "score":
            return (x_t + s**2 * value) / a
        case "flow":
            return (x_t - s * value) / (a + s)
    raise unknown(prediction)


def to_eps(value: Tensor, x_t: Tensor, *, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The noise that ``value`` implies at x_t.   Shapes as in ``to_x0``."""
    a, s = spread(alpha, x_t), spread(sigma, x_t)
    match prediction:
        case "x0":
            return (x_t - a * value) / s
        case "eps":
            return value
        case "v":
            return (s * x_t + a * value) / (a**2 + s**2)
        case "score":
            return -s * value
        case "flow":
            return (x_t + a * value) / (a + s)
    raise unknown(prediction)


def express(x0: Tensor, eps: Tensor, *, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The pair (x0, eps) said as ``prediction``: what a net is trained on.   x0, eps (B, ...); alpha, sigma (B,)."""
    a, s = spread(alpha, x0), spread(sigma, x0)
    match prediction:
        case "x0":
            return x0
        case "eps":
            return eps
        case "v":
            return a * eps - s * x0
        case "score":
            return -eps / s
        case "flow":
            return eps - x0
    raise unknown(prediction)


def convert(
    value: Tensor, x_t: Tensor, *, alpha: Tensor, sigma: Tensor, source: Prediction, to: Prediction
) -> Tensor:
    """One prediction said as another.   Where ``source`` or ``to`` divides by alpha or sigma, it must be positive.

    >>> x, one = torch.ones(1, 2), torch.tensor([0.6])
    >>> convert(x, x, alpha=one, sigma=torch.tensor([0.8]), source="eps", to="x0").tolist()
    [[0.3333333134651184, 0.3333333134651184]]
    """
    if source == to:
        return value
    x0 = to_x0(value, x_t, alpha=alpha, sigma=sigma, prediction=source)
    eps = to_eps(value, x_t, alpha=alpha, sigma=sigma, prediction=source)
    return express(x0, eps, alpha=alpha, sigma=sigma, prediction=to)


def as_denoiser(
    net_call: NetCall, schedule: Path, *, prediction: Prediction = "eps", dtype: torch.dtype | None = None
) -> Denoiser:
    """A trained net as a Denoiser: sigma becomes t, x is scaled by alpha, the answer becomes x0.

    ``dtype`` is what the net is called in (bfloat16, say); all else stays in x's own type.
    """
    if prediction not in PREDICTIONS:
        raise unknown(prediction)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = double(sigma)
        alpha = schedule.alpha_of(level)
        x_t = x * spread(alpha, x)
        inside = dtype or x.dtype
        t = schedule.t_at(level).to(x.device, torch.promote_types(inside, torch.float32))
        out = net_call(x_t.to(inside), t).to(x.dtype)
        return to_x0(out, x_t, alpha=alpha, sigma=alpha * level, prediction=prediction)

    return denoise
