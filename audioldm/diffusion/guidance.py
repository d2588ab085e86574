"""Guidance as wrappers: each takes Denoisers and gives a Denoiser.   x (B, ...), sigma (B,), x0 (B, ...)."""

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from audioldm.diffusion.gradients import classifier, reward
from audioldm.diffusion.prediction import Denoiser, spread
from audioldm.diffusion.table import Entry


def classifier_free(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    """Extrapolate from uncond to cond; scale 1 is ``cond`` and never calls uncond.   Ho & Salimans 2022 eq. 6."""
    if scale == 1:
        return cond

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        base = uncond(x, sigma)
        return base + scale * (cond(x, sigma) - base)

    return guided


def negative(cond: Denoiser, avoid: Denoiser, scale: float) -> Denoiser:
    """Extrapolate away from what ``avoid`` was told: classifier-free guidance with that prompt as the empty one."""
    return classifier_free(cond, avoid, scale)


def autoguidance(good: Denoiser, weak: Denoiser, scale: float) -> Denoiser:
    """Extrapolate away from a weaker net with the same condition.   Karras et al. 2024 (Guiding with a bad version)."""
    return classifier_free(good, weak, scale)


def compose(uncond: Denoiser, parts: Sequence[tuple[Denoiser, float]]) -> Denoiser:
    """Several prompts, each (denoiser, weight); a negative weight avoids one.   Liu et al. 2022."""

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        base = uncond(x, sigma)
        return sum((weight * (part(x, sigma) - base) for part, weight in parts), base)

    return guided


def rescale(cond: Denoiser, uncond: Denoiser, scale: float, *, phi: float = 0.7) -> Denoiser:
    """Classifier-free guidance with each sample's spread brought back to that of ``cond``.   Lin et al. 2024.

    ``phi`` mixes the two: 0 is plain.   Done on x0, the one prediction that all schedules have.
    """
    if scale == 1:
        return cond

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with_text = cond(x, sigma)
        base = uncond(x, sigma)
        x0 = base + scale * (with_text - base)
        ratio = with_text.flatten(1).std(1) / x0.flatten(1).std(1)
        return x0 * spread(phi * ratio + (1 - phi), x0)

    return guided


def interval(guided: Denoiser, cond: Denoiser, *, low: float, high: float) -> Denoiser:
    """``guided`` where low <= sigma <= high, ``cond`` elsewhere.   Kynkaanniemi et al. 2024."""

    def chosen(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (sigma >= low) & (sigma <= high)
        if bool(inside.all()):
            return guided(x, sigma)
        if not bool(inside.any()):
            return cond(x, sigma)
        return torch.where(spread(inside, x).bool(), guided(x, sigma), cond(x, sigma))

    return chosen


def norm(x: Tensor) -> Tensor:
    """Length of each sample (B,)."""
    return x.flatten(1).norm(dim=1)


def apg(cond: Denoiser, uncond: Denoiser, scale: float, *, eta: float = 0.0, radius: float = inf) -> Denoiser:
    """Guidance with its part along ``cond`` times eta and its length cut at ``radius``.   Sadat et al. 2025 Alg. 1.

    eta 1 and no radius is plain guidance.   The paper's momentum is state between steps, so it is left out.
    """
    if scale == 1:
        return cond

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with_text = cond(x, sigma)
        change = with_text - uncond(x, sigma)
        change = change * spread((radius / norm(change)).clamp(max=1), x)
        along = (change * with_text).flatten(1).sum(1) / norm(with_text) ** 2
        parallel = spread(along, x) * with_text
        return with_text + (scale - 1) * (change - parallel + eta * parallel)

    return guided


def cfg_plus_plus(cond: Denoiser, uncond: Denoiser, scale: float, *, sigmas: Tensor) -> Denoiser:
    """CFG++ for Euler and DDIM on the grid ``sigmas``: x0 is guided, the noise put back is not.   Chung et al. 2025.

    Its step x0_guided + next eps_uncond is plain guidance of scale / (1 - next / now); ``scale`` is in [0, 1].
    """
    levels = sigmas[:-1].double()
    strengths = scale / (1 - sigmas[1:].double() / levels)

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        place = (levels.to(sigma.device) - sigma.double()[:, None]).abs().argmin(1)
        base = uncond(x, sigma)
        return base + spread(strengths.to(sigma.device)[place], x) * (cond(x, sigma) - base)

    return guided


def cfg_zero_star(cond: Denoiser, uncond: Denoiser, scale: float, *, zero_above: float = inf) -> Denoiser:
    """CFG-Zero*: fit uncond's flow velocity to cond's first; above ``zero_above`` do not move.   Fan et al. 2025."""
    if scale == 1 and zero_above == inf:
        return cond

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        s = spread(sigma, x)
        x_u, u = x / (1 + s), s / (1 + s)
        fast, base = ((x_u - net(x, sigma)) / u for net in (cond, uncond))
        fit = spread((fast * base).flatten(1).sum(1) / norm(base) ** 2, x) * base
        still = spread(sigma > zero_above, x).bool()
        return x_u - u * torch.where(still, 0, fit + scale * (fast - fit))

    return guided


def dynamic_threshold(denoise: Denoiser, *, quantile: float = 0.995, floor: float = 1.0) -> Denoiser:
    """Clip each x0 at its own quantile of |x0| and scale it back to ``floor``.   Saharia et al. 2022 sec. 2.3.

    Samples whose quantile is below ``floor`` are only clipped there; for latents give the largest honest value.
    """

    def clipped(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoise(x, sigma)
        edge = spread(x0.flatten(1).abs().quantile(quantile, dim=1).clamp(min=floor), x0)
        return x0.clamp(-edge, edge) * (floor / edge)

    return clipped


GUIDANCE: dict[str, Entry] = {
    "classifier_free": Entry(
        classifier_free, "Away from the empty prompt.", "Ho & Salimans 2022, arXiv:2207.12598"
    ),
    "negative": Entry(negative, "Away from a given prompt.", "Liu et al. 2022, arXiv:2206.01714"),
    "compose": Entry(compose, "Several prompts with weights.", "Liu et al. 2022, arXiv:2206.01714"),
    "rescale": Entry(
        rescale,
        "Classifier-free, spread kept (phi).",
        "Lin et al. 2024, arXiv:2305.08891",
        limits={"phi": (0, 1)},
    ),
    "interval": Entry(interval, "Guide at middle noise only.", "Kynkaanniemi et al. 2024, arXiv:2404.07724"),
    "apg": Entry(
        apg,
        "Drop the part along the answer (adaptive projected).",
        "Sadat et al. 2025, arXiv:2410.02416",
        limits={"radius": (1e-6, inf)},
    ),
    "cfg_plus_plus": Entry(
        cfg_plus_plus, "Guide x0, renoise with uncond's noise.", "Chung et al. 2025, arXiv:2406.08070"
    ),
    "cfg_zero_star": Entry(
        cfg_zero_star, "Fit uncond's velocity first.", "Fan et al. 2025, arXiv:2503.18886"
    ),
    "autoguidance": Entry(autoguidance, "Away from a weaker net.", "Karras et al. 2024, arXiv:2406.02507"),
    "dynamic_threshold": Entry(
        dynamic_threshold, "Clip x0 at its quantile.", "Saharia et al. 2022, arXiv:2205.11487"
    ),
    "classifier": Entry(
        classifier, "Up the gradient of a noise-aware classifier.", "Dhariwal & Nichol 2021, arXiv:2105.05233"
    ),
    "reward": Entry(
        reward,
        "Up the gradient of a value of x0, such as a CLAP score.",
        "Chung et al. 2023 (DPS), arXiv:2209.14687",
    ),
}
"""Guidance by name."""
