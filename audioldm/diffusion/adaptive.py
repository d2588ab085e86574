"""An ODE solver that chooses its own steps, for each sample by itself."""

import torch
from torch import Tensor

from audioldm.diffusion.noise import Noise
from audioldm.diffusion.prediction import Denoiser, spread
from audioldm.diffusion.steps import OnStep, sampler
from audioldm.errors import AudioLDMError

STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
PLACES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Dormand & Prince 1980: 5th order, with a 4th-order answer to compare; the last slope is the next step's first."""


def blend(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """Weighted sum of slopes."""
    return sum((w * s for w, s in zip(weights, slopes, strict=True)), torch.zeros_like(slopes[0]))


@sampler
def adaptive(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    on_step: OnStep | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    most: int = 1000,
) -> Tensor:
    """Dormand-Prince 5(4) on dx/dlog sigma = x - x0, six calls per try.   Song et al. 2021 (score SDE) app. D.4.

    Of ``sigmas`` only the ends count: it runs from the first to the last positive one, then takes x0 if the last is 0.
    Each sample has its own level and step, so a sample's result does not depend on its batch.
    """
    ends = sigmas[sigmas > 0].log().to(x)
    now, end = ends[0].expand(len(x)).clone(), ends[-1]
    step = (end - now) / 10

    def slope_at(x: Tensor, logs: Tensor) -> Tensor:
        return x - denoise(x, logs.exp())

    first = slope_at(x, now)
    for i in range(most):
        if bool((now <= end).all()):
            return denoise(x, now.exp()) if sigmas[-1] == 0 else x
        if on_step:
            on_step(i, float(now.max().exp()), x, x - first)
        last_one = now + step <= end
        step = torch.where(last_one, end - now, step)
        slopes, h = [first], spread(step, x)
        for weights, place in zip(STAGES, PLACES, strict=True):
            new = x + h * blend(weights, slopes)
            slopes.append(slope_at(new, now + place * step))
        scale = atol + rtol * torch.maximum(x.abs(), new.abs())
        error = (h * blend(ERROR, slopes) / scale).flatten(1).square().mean(1).sqrt()
        good = error <= 1
        keep = good.reshape(-1, *[1] * (x.ndim - 1))
        x, first = torch.where(keep, new, x), torch.where(keep, slopes[-1], first)
        now = torch.where(good, torch.where(last_one, end, now + step), now)
        step = step * (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
    raise AudioLDMError(
        f"the adaptive solver took {most} steps and is not done.", "Raise rtol or atol.", code=1
    )
