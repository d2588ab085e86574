"""What every sampler shares: from a bare loop over noise levels to a function with guards and one signature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from itertools import pairwise
from math import log
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser

OnStep = Callable[[int, float, Tensor, Tensor], None]
"""(step, sigma, x (B, ...) at sigma, x0 (B, ...) as now believed) -> None"""
Net = Callable[[Tensor, float | Tensor], Tensor]
"""a Denoiser that also takes one level for all samples: (x (B, ...), sigma or (B,)) -> x0 (B, ...)"""


class Sampler(Protocol):
    """From x (B, ...) at sigmas[0] down the grid (n + 1,) to x at sigmas[-1].   Raises ValueError for a wrong grid.

    ``noise`` is for the stochastic ones; ``options`` are each sampler's own.
    """

    def __call__(
        self,
        denoise: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Tensor: ...


def check_grid(sigmas: Tensor) -> None:
    """Refuse a grid that is not (n + 1,) finite, descending, with only its last entry allowed to be 0."""
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"sigmas has shape {tuple(sigmas.shape)}; give (n + 1,) noise levels, n >= 1.")
    if not (bool(sigmas.isfinite().all()) and bool((sigmas.diff() < 0).all()) and sigmas[-1] >= 0):
        raise ValueError(
            f"sigmas must be finite, descend and stay above 0, not {[round(s, 4) for s in sigmas.tolist()]}."
        )


class Point(NamedTuple):
    """A noise level on the way down, x (B, ...) there, and the x0 (B, ...) that the net saw in it."""

    sigma: float
    x: Tensor
    x0: Tensor

    @property
    def slope(self) -> Tensor:
        """dx/dsigma of the probability flow, which is the noise."""
        return (self.x - self.x0) / self.sigma


@dataclass(frozen=True)
class Step:
    """What a rule may use to go on from ``at`` to the level ``nxt``."""

    at: Point
    nxt: float
    past: Sequence[Point]
    """the last three points before, newest first"""
    denoise: Net
    noise: Noise

    @property
    def ratio(self) -> float:
        """The next level over this one."""
        return self.nxt / self.at.sigma

    @property
    def length(self) -> float:
        """The step in log sigma, of a level that is not 0."""
        return log(self.at.sigma / self.nxt)


def rule(function: Callable[..., Tensor]) -> Sampler:
    """The sampler that asks the net once at each level and lets ``function(step, **options)`` go on to the next."""

    @wraps(function)
    def loop(
        denoise: Net, x: Tensor, sigmas: list[float], *, noise: Noise, on_step: OnStep, **options: Any
    ) -> Tensor:
        past: list[Point] = []
        for i, (now, nxt) in enumerate(pairwise(sigmas)):
            at = Point(now, x, denoise(x, now))
            on_step(i, *at)
            x = function(Step(at, nxt, past, denoise, noise), **options)
            past = [at, *past[:2]]
        return x

    return sampler(loop)


def at_level(denoise: Denoiser) -> Net:
    """``denoise`` for one level of all samples, or one each; the answer has x's type."""

    def net(x: Tensor, sigma: float | Tensor) -> Tensor:
        levels = sigma if isinstance(sigma, Tensor) else x.new_full((len(x),), sigma)
        return denoise(x, levels).to(x.dtype)

    return net


def sampler(loop: Callable[..., Tensor]) -> Sampler:
    """The sampler of a bare ``loop``, whose state is float32 or better; gradients are off, the answer has x's type.

    The loop's grid is a list of floats, and its ``noise``, if it takes one, and ``on_step`` are always there to be
    called.
    """
    stochastic = "noise" in signature(loop, follow_wrapped=False).parameters

    @wraps(loop)
    def sample(
        denoise: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        *,
        noise: Noise | None = None,
        on_step: OnStep | None = None,
        **options: Any,
    ) -> Tensor:
        check_grid(sigmas)
        state = x.to(torch.promote_types(x.dtype, torch.float32))

        def next_noise() -> Tensor:
            if noise is None:
                raise ValueError(
                    "this sampler is stochastic: give noise=, for example noise.PerSample(generators, shape)."
                )
            return noise().to(state)

        report = on_step or (lambda *_: None)
        levels = sigmas.double().tolist()
        with torch.no_grad():
            if stochastic:
                options["noise"] = next_noise
            end = loop(at_level(denoise), state, levels, on_step=report, **options)
        return end.to(x.dtype)

    return sample
