"""What a net may be trained to say, and how to turn each into every other.   alpha, sigma (B,).

x0, eps, v = alpha eps - sigma x0 (Salimans & Ho 2022), score = -eps / sigma (Song et al. 2021) and flow = eps - x0
(rectified flow) are sums p x0 + q eps: with ``x_t = alpha x0 + sigma eps`` that is two equations for x0 and eps.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from audioldm.diffusion.schedule import Path, double

Prediction = Literal["eps", "x0", "v", "score", "flow"]
Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x = x0 + sigma eps (B, ...), sigma (B,)) -> x0 (B, ...)
NetCall = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, ...), t (B,)) -> what the net predicts (B, ...)
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


def parts(prediction: Prediction, alpha: Tensor, sigma: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """(p, q) of a prediction p x0 + q eps.   Raises ValueError for an unknown one."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction={prediction!r} is none of {', '.join(PREDICTIONS)}.")
    fixed = {"x0": (1.0, 0.0), "eps": (0.0, 1.0), "flow": (-1.0, 1.0)}
    return fixed.get(prediction) or ((-sigma, alpha) if prediction == "v" else (0.0, -1 / sigma))


def spread(values: Tensor, x: Tensor) -> Tensor:
    """Per-sample numbers (B,) shaped (B, 1, ...) in x's type and place: they multiply x along its first axis only."""
    if values.shape != x.shape[:1]:
        raise ValueError(f"values {tuple(values.shape)} are not one per sample of x {tuple(x.shape)}.")
    return values.to(x).reshape(-1, *[1] * (x.ndim - 1))


def to_x0(value: Tensor, x_t: Tensor, *, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The clean sample that ``value`` implies at x_t.   value, x_t (B, ...); alpha, sigma (B,).   Salimans & Ho."""
    a, s = spread(alpha, x_t), spread(sigma, x_t)
    p, q = parts(prediction, a, s)
    return value if prediction == "x0" else (q * x_t - s * value) / (q * a - p * s)


def express(x0: Tensor, eps: Tensor, *, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """The pair (x0, eps) said as ``prediction``: what a net is trained on.   x0, eps (B, ...); alpha, sigma (B,)."""
    p, q = parts(prediction, spread(alpha, x0), spread(sigma, x0))
    return p * x0 + q * eps


def convert(
    value: Tensor, x_t: Tensor, *, alpha: Tensor, sigma: Tensor, source: Prediction, to: Prediction
) -> Tensor:
    """One prediction said as another.   Where ``source`` or ``to`` divides by alpha or sigma, it must be positive."""
    if source == to:
        return value
    x0 = to_x0(value, x_t, alpha=alpha, sigma=sigma, prediction=source)
    a, s = spread(alpha, x_t), spread(sigma, x_t)
    p, q = parts(source, a, s)
    # the first two need no x_t, and so no alpha above 0
    eps = value / q if source in ("eps", "score") else (a * value - p * x_t) / (q * a - p * s)
    return express(x0, eps, alpha=alpha, sigma=sigma, prediction=to)


def as_denoiser(
    net_call: NetCall, schedule: Path, *, prediction: Prediction = "eps", dtype: torch.dtype | None = None
) -> Denoiser:
    """A trained net, called in ``dtype``, as a Denoiser: sigma becomes t, x is scaled by alpha, the answer is x0."""
    parts(prediction, torch.ones(1), torch.ones(1))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = double(sigma)
        alpha = schedule.alpha_of(level)
        x_t, inside = x * spread(alpha, x), dtype or x.dtype
        t = schedule.t_at(level).to(x.device, torch.promote_types(inside, torch.float32))
        out = net_call(x_t.to(inside), t).to(x.dtype)
        return to_x0(out, x_t, alpha=alpha, sigma=alpha * level, prediction=prediction)

    return denoise
