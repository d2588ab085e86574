"""From a clean latent to a number per sample: draw t, add noise, ask the net, weigh the error.   z (B, C, T, F)."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor
from torch.nn import functional as nnf

from audioldm.diffusion.prediction import NetCall, Prediction, express, parts, spread
from audioldm.diffusion.schedule import FlowPath, Path

Draw = Literal["uniform", "logit_normal", "low_discrepancy"]
Weighting = Literal["uniform", "min_snr", "p2", "edm"]


def unit_draw(count: int, kind: Draw = "uniform", *, generator: Generator | None = None) -> Tensor:
    """(count,) float64 numbers in [0, 1) on the generator's device, spread as ``kind`` says."""
    device = torch.device("cpu") if generator is None else generator.device
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64, "device": device}
    if kind not in get_args(Draw):
        raise ValueError(f"draw={kind!r} is none of {', '.join(get_args(Draw))}.")
    if kind == "logit_normal":  # middle times more often.   Esser et al. 2024 (SD3) eq. 19
        return torch.randn(count, **options).sigmoid()
    if kind == "uniform":
        return torch.rand(count, **options)
    # a random shift of an even grid, so that each batch covers all times.   Kingma et al. 2021 (VDM) app. I.1
    grid = torch.arange(count, dtype=torch.float64, device=device) / count
    even = (grid + torch.rand(1, **options)) % 1
    return even[torch.randperm(count, generator=generator, device=device)]


def draw_t(
    count: int, schedule: Path, *, generator: Generator | None = None, kind: Draw = "uniform",
    levels: tuple[float, float] = (0.0, 1.0), device: torch.device | str = "cpu",
) -> Tensor:  # fmt: skip
    """Training times (count,), whole in [0, T-1], of a FlowPath real in (0, T], between ``levels`` as shares of T."""
    u = levels[0] + (levels[1] - levels[0]) * unit_draw(count, kind, generator=generator)
    if isinstance(schedule, FlowPath):
        return schedule.shifted((levels[0] + levels[1] - u) * schedule.length).to(device, torch.float32)
    return (u * schedule.length).long().clamp(max=schedule.length - 1).to(device)


def add_noise(z: Tensor, t: Tensor, noise: Tensor, schedule: Path) -> Tensor:
    """x_t = alpha z + sigma noise.   z, noise (B, ...); t (B,).   DDPM eq. 4."""
    alpha, sigma = schedule.coefficients(t)
    return spread(alpha, z) * z + spread(sigma, z) * noise


def target(z: Tensor, t: Tensor, noise: Tensor, schedule: Path, prediction: Prediction = "eps") -> Tensor:
    """What the net should say at x_t.   z, noise (B, ...); t (B,)."""
    alpha, sigma = schedule.coefficients(t)
    return express(z, noise, alpha=alpha, sigma=sigma, prediction=prediction)


def error_ratio(alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """Squared error of a prediction over that of the x0 it implies: eps SNR, v SNR + 1.   alpha, sigma (B,)."""
    p, q = parts(prediction, alpha, sigma)
    return ((q * alpha - p * sigma) / sigma) ** 2


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "uniform": None,
    "min_snr": lambda snr: snr.clamp(max=5.0),  # so eps by min/SNR and v by min/(SNR + 1).   Hang et al. 2023
    "p2": lambda snr: snr / (1 + snr),  # less where only fine detail is left.   Choi et al. 2022
    "edm": lambda snr: snr + 1,  # (sigma^2 + std^2) / (sigma std)^2, std 1.   Karras et al. 2022 (EDM) tab. 1
}
"""Weight of the x0 error as a function of SNR; None leaves the net's own error as it is."""


def weight(
    t: Tensor, schedule: Path, *, prediction: Prediction = "eps", weighting: Weighting = "uniform"
) -> Tensor:
    """Factor (B,) on the squared error of ``prediction``; a weighting weighs the same x0 error for every prediction."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting={weighting!r} is none of {', '.join(WEIGHTINGS)}.")
    alpha, sigma = schedule.coefficients(t)
    if (function := WEIGHTINGS[weighting]) is None:
        return torch.ones_like(alpha)
    # zero terminal SNR: eps' factor 0/0 has the limit that it has just above
    alpha = alpha.clamp(min=2.0**-12)
    return function((alpha / sigma) ** 2) / error_ratio(alpha, sigma, prediction)


def loss(
    net_call: NetCall, z: Tensor, t: Tensor, noise: Tensor, schedule: Path,
    prediction: Prediction = "eps", weighting: Weighting = "uniform",
) -> Tensor:  # fmt: skip
    """Weighted mean squared error per sample (B,).   z, noise (B, ...); t (B,).   DDPM eq. 14."""
    x_t = add_noise(z, t, noise, schedule)
    error = (net_call(x_t, t) - target(z, t, noise, schedule, prediction)).square().flatten(1).mean(1)
    return error * weight(t, schedule, prediction=prediction, weighting=weighting).to(error)


def preference(errors: Tensor, reference: Tensor, *, beta: float = 2000.0) -> Tensor:
    """-log sigmoid(-beta ((win - ref win) - (lose - ref lose))) per pair (B,).   Wallace et al. 2023 (DPO) eq. 14.

    ``errors`` and ``reference`` (2, B) are the losses of the net and of the one that it began as, the preferred
    sample's first, at the same times and noise; ``beta`` holds T.   At the begin it is log 2.
    """
    gain = errors - reference
    return -nnf.logsigmoid(-beta * (gain[0] - gain[1]))


def loss_by_bin(losses: Tensor, t: Tensor, schedule: Path, *, bins: int = 10) -> Tensor:
    """Mean loss in each of ``bins`` equal ranges of t: (bins,), nan where no sample fell.   losses, t (B,)."""
    index = (t.double() * bins / schedule.length).long().clamp(0, bins - 1)
    total = losses.new_zeros(bins).index_add(0, index, losses.detach())
    return total / losses.new_zeros(bins).index_add(0, index, torch.ones_like(losses))
