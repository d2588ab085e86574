"""Bits per dimension of latents under a model: the bound that DDPM trains, with fixed and with learned variances.

Ho et al. 2020 (DDPM) eq. 5; Nichol & Dhariwal 2021 sec. 3.   Latents are continuous, so these are bits of a density:
only differences mean something.   B batch, n windows.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

from audioldm.batch import Condition, LatentBatch
from audioldm.components import Components
from audioldm.diffusion import objective, posterior
from audioldm.diffusion.prediction import to_x0
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import learns_variance, net_call

FIRST = "of it, the first step"


def times_of(count: int, schedule_length: int, rng: Generator) -> Tensor:
    """Time 0, which alone may weigh as much as all others, and count - 1 spread evenly over the rest, (count,)."""
    shift = torch.rand((), generator=rng, dtype=torch.float64)
    even = (torch.arange(count - 1, dtype=torch.float64) + shift) / (count - 1)
    return torch.cat([torch.zeros(1), 1 + (even * (schedule_length - 1)).floor()]).long()


@torch.no_grad()
def bits(
    parts: Components, batches: Iterable[LatentBatch], *, times: int = 64, seed: int = 0
) -> dict[str, Tensor]:
    """Name of a variance -> bits per dimension of every window (n,), under its caption, by ``times`` times each.

    Fixed and learned variances meet the same times and noise, so their differences are far surer than themselves.
    Raises AudioLDMError for a U-Net that is conditioned on tokens.
    """
    if parts.token_encoder is not None:
        raise AudioLDMError(f"{parts.name} is conditioned on tokens.", "Use a model of a CLAP vector.")
    rng = Generator().manual_seed(seed)
    # the net's whole answer, so not as fast modes run it
    call, schedule, rows = net_call(parts.unet, variance=True), parts.schedule, dict[str, list[Tensor]]()
    for batch in batches:
        drawn = batch.mean + batch.std * torch.randn(batch.mean.shape, generator=rng)
        for z, text in zip(drawn * parts.vae.config.scaling_factor, batch.text, strict=True):
            t = times_of(times, schedule.length, rng)
            noise = torch.randn(times, *z.shape, generator=rng)
            weights = torch.tensor([1.0] + [(schedule.length - 1) / (times - 1)] * (times - 1))
            terms = terms_of(parts, call, z.expand(times, *z.shape), t, noise, text)
            for name, values in terms.items():
                rows.setdefault(name, []).append((values * weights).sum())
                if name == "fixed small":
                    rows.setdefault(FIRST, []).append(values[0])
    return {name: torch.stack(values) for name, values in rows.items()}


def terms_of(
    parts: Components, call: Callable[..., Tensor], z: Tensor, t: Tensor, noise: Tensor, text: Tensor
) -> dict[str, Tensor]:
    """Name of a variance -> the bound's terms (B,) of one window z (B, C, T, F) at times t (B,)."""
    schedule, device = parts.schedule, parts.device
    x_t = objective.add_noise(z, t, noise, schedule)
    condition = Condition(film=text.to(device).expand(len(t), -1))
    for control in parts.controls:
        call = control.around(call, parts.unet)
    answer = call(x_t.to(device), t.to(device), condition).float().cpu()
    value, shares = (
        answer[:, : z.shape[1]],
        {"fixed small": z.new_tensor(-1.0), "fixed large": z.new_tensor(1.0)},
    )
    if learns_variance(parts.unet):
        shares["learned"] = answer[:, z.shape[1] :]
    alpha, sigma = schedule.coefficients(t)
    guess = to_x0(value, x_t, alpha=alpha, sigma=sigma, prediction=parts.prediction)
    return {
        name: posterior.bound_term(
            z, x_t, t, guess, posterior.log_variance(share.expand(z.shape), t, schedule), schedule
        )
        for name, share in shares.items()
    }
