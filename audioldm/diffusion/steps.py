"""What every sampler shares: the guards on its grid and the type of its state."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser

OnStep = Callable[[int, float, Tensor, Tensor], None]
"""(step, sigma, x (B, ...) at sigma, x0 (B, ...) as now believed) -> None"""


P = ParamSpec("P")
Sampler = Callable[Concatenate[Denoiser, Tensor, Tensor, P], Tensor]
"""(denoise, x (B, ...), sigmas (n + 1,), *, noise=None, on_step=None) -> x (B, ...) at sigmas[-1]"""


def check_grid(sigmas: Tensor) -> None:
    """Refuse a grid that is not (n + 1,) finite, descending, with only its last entry allowed to be 0."""
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"sigmas has shape {tuple(sigmas.shape)}; give (n + 1,) noise levels, n >= 1.")
    if not (bool(sigmas.isfinite().all()) and bool((sigmas.diff() < 0).all()) and sigmas[-1] >= 0):
        raise ValueError(
            f"sigmas must be finite, descend and stay above 0, not {[round(s, 4) for s in sigmas.tolist()]}."
        )


def level(sigma: float, x: Tensor) -> Tensor:
    """Noise level for every sample of the batch: (B,)."""
    return x.new_full((x.shape[0],), sigma)


def fresh(noise: Noise | None, x: Tensor) -> Tensor:
    """The next noise, in x's type and place; a stochastic sampler without a source is a mistake."""
    if noise is None:
        raise ValueError(
            "this sampler is stochastic: give noise=, for example noise.PerSample(generators, shape)."
        )
    return noise().to(x)


def sampler(run: Sampler[P]) -> Sampler[P]:
    """Guard the grid, switch gradients off, and keep the state in float32 or better; the answer has x's type."""

    @wraps(run)
    def guarded(
        denoise: Denoiser, x: Tensor, sigmas: Tensor, /, *args: P.args, **options: P.kwargs
    ) -> Tensor:
        check_grid(sigmas)
        state = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.no_grad():
            return run(lambda x, s: denoise(x, s).to(x.dtype), state, sigmas.double(), *args, **options).to(
                x.dtype
            )

    return guarded
