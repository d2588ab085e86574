"""Guidance as functions that give a Denoiser, most from a ``Pair``.   x (B, ...), sigma (B,), x0 (B, ...)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from math import inf

import torch
from torch import Tensor

from audioldm.diffusion.prediction import Denoiser, spread
from audioldm.diffusion.schedule import double
from audioldm.diffusion.table import Entry


@dataclass(frozen=True)
class Pair:
    """A net with its condition and without it (or with a negative prompt, or a weaker net, in the second place)."""

    cond: Denoiser
    uncond: Denoiser
    both: Denoiser | None = None  # answers 2B rows, the condition's first, by one call of the net

    def __call__(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(x0 with the condition, x0 without), each (B, ...)."""
        if self.both is None:
            return self.cond(x, sigma), self.uncond(x, sigma)
        cond, uncond = self.both(torch.cat([x, x]), torch.cat([sigma, sigma])).chunk(2)
        return cond, uncond


def method(combine: Callable[..., Tensor]) -> Callable[..., Denoiser]:
    """(pair, scale, **options) -> Denoiser of ``combine(cond, uncond, scale, **options)``; scale 1 is cond alone."""

    @wraps(combine)
    def guided(pair: Pair, scale: float, **options: float) -> Denoiser:
        return pair.cond if scale == 1 else lambda x, sigma: combine(*pair(x, sigma), scale, **options)

    return guided


@method
def classifier_free(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Away from the empty prompt, or what stands in its place.   Ho & Salimans 2022, arXiv:2207.12598 eq. 6."""
    return uncond + scale * (cond - uncond)


@method
def rescale(cond: Tensor, uncond: Tensor, scale: float, *, phi: float = 0.7) -> Tensor:
    """Guided, each sample's spread brought back to that of cond (phi).   Lin et al. 2024, arXiv:2305.08891."""
    x0 = uncond + scale * (cond - uncond)
    ratio = cond.flatten(1).std(1) / x0.flatten(1).std(1)
    return x0 * spread(phi * ratio + (1 - phi), x0)


@method
def apg(cond: Tensor, uncond: Tensor, scale: float, *, eta: float = 0.0, radius: float = inf) -> Tensor:
    """The part along the answer times eta, the length cut at radius.   Sadat et al. 2025, arXiv:2410.02416 Alg. 1."""
    # the paper's momentum is state between steps, so it is left out
    change = cond - uncond
    change = change * spread((radius / norm(change)).clamp(max=1), cond)
    along = (change * cond).flatten(1).sum(1) / norm(cond) ** 2
    return cond + (scale - 1) * (change + (eta - 1) * spread(along, cond) * cond)


def norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def compose(pair: Pair, scale: float, others: Sequence[tuple[Denoiser, float]]) -> Denoiser:
    """Several prompts with weights; a negative one is avoided.   Liu et al. 2022, arXiv:2206.01714."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        cond, uncond = pair(x, sigma)
        x0 = uncond + scale * (cond - uncond)
        for other, weight in others:
            x0 = x0 + weight * (other(x, sigma) - uncond)
        return x0

    return denoise


def interval(guided: Denoiser, cond: Denoiser, *, low: float, high: float) -> Denoiser:
    """Guide where low <= sigma <= high; ``cond`` elsewhere.   Kynkaanniemi et al. 2024, arXiv:2404.07724."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (sigma >= low) & (sigma <= high)
        if bool((inside == inside[0]).all()):
            return (guided if bool(inside[0]) else cond)(x, sigma)
        return torch.where(spread(inside, x).bool(), guided(x, sigma), cond(x, sigma))

    return denoise


def cfg_plus_plus(pair: Pair, scale: float, *, sigmas: Tensor) -> Denoiser:
    """Guide x0 by ``scale`` in [0, 1], renoise with uncond's noise.   Chung et al. 2025, arXiv:2406.08070."""
    # Euler's and DDIM's step x0_guided + next eps_uncond is plain guidance of scale / (1 - next / now)
    levels, after = double(sigmas)[:-1], double(sigmas)[1:]
    strengths = scale / (1 - after / levels)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        cond, uncond = pair(x, sigma)
        exact = double(sigma)[:, None]
        place = (levels.to(exact.device) - exact).abs().argmin(1)
        return uncond + spread(strengths.to(place.device)[place], x) * (cond - uncond)

    return denoise


def cfg_zero_star(pair: Pair, scale: float, *, zero_above: float = inf) -> Denoiser:
    """Fit uncond's flow velocity to cond's; above zero_above do not move.   Fan et al. 2025, arXiv:2503.18886."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        s = spread(sigma, x)
        x_u, u = x / (1 + s), s / (1 + s)
        cond, uncond = ((x_u - x0) / u for x0 in pair(x, sigma))
        fit = spread((cond * uncond).flatten(1).sum(1) / norm(uncond) ** 2, x) * uncond
        still = spread(sigma > zero_above, x).bool()
        return x_u - u * torch.where(still, 0, fit + scale * (cond - fit))

    return pair.cond if scale == 1 and zero_above == inf else denoise


def dynamic_threshold(denoise: Denoiser, *, quantile: float = 0.995, floor: float = 1.0) -> Denoiser:
    """Clip x0 at its own quantile of |x0|, scale it back to floor.   Saharia et al. 2022, arXiv:2205.11487 sec. 2.3."""

    def clipped(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoise(x, sigma)
        edge = spread(x0.flatten(1).abs().quantile(quantile, dim=1).clamp(min=floor), x0)
        return x0.clamp(-edge, edge) * (floor / edge)

    return clipped


def uphill(worth: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], scale: float, limit: float) -> Denoiser:
    """x0 + scale sigma^2 x the slope of a value (B,), of root mean square ``limit`` at most; worth gives both."""

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            free = x.detach().requires_grad_(True)
            x0, value = worth(free, sigma)
        (slope,) = torch.autograd.grad(value, free, torch.ones_like(value))
        move = scale * spread(sigma, x) ** 2 * slope
        size = move.flatten(1).square().mean(1).sqrt()
        return x0.detach() + move * spread((limit / size.clamp(min=1e-30)).clamp(max=1), move)

    return guided


def classifier(
    denoise: Denoiser, log_prob: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0, limit: float = inf
) -> Denoiser:
    """Up the gradient of a noise-aware classifier.   Dhariwal & Nichol 2021, arXiv:2105.05233.

    ``log_prob`` (x (B, ...), sigma (B,)) -> (B,) is log p(y | x; sigma), trained on noisy x; scale 1 is Bayes' rule.
    """
    plain = torch.no_grad()(denoise)
    return uphill(lambda x, sigma: (plain(x, sigma), log_prob(x, sigma)), scale, limit)


def reward(
    denoise: Denoiser, value: Callable[[Tensor], Tensor], scale: float = 1.0, limit: float = inf
) -> Denoiser:
    """Up the gradient of a value (B,) of x0, such as a CLAP score.   Chung et al. 2023 (DPS), arXiv:2209.14687."""
    return uphill(lambda x, sigma: ((x0 := denoise(x, sigma)), value(x0)), scale, limit)


WAYS = (
    classifier_free, compose, rescale, interval, apg, cfg_plus_plus, cfg_zero_star, dynamic_threshold,
    classifier, reward,
)  # fmt: skip
GUIDANCE = {way.__name__: Entry(way) for way in WAYS} | {
    "negative": Entry(classifier_free, "Away from a given prompt.   Liu et al. 2022, arXiv:2206.01714."),
    "autoguidance": Entry(classifier_free, "Away from a weaker net.   Karras et al. 2024, arXiv:2406.02507."),
}
