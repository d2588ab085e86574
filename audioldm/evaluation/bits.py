"""Bits per dimension of latents under a model: DDPM's bound (Ho et al. 2020 eq. 5), fixed or learned variances.

Latents are continuous, so these are bits of a density: only differences mean something.   n windows.
"""

from collections.abc import Iterable

import torch
from torch import Generator, Tensor

from audioldm.batch import Condition, LatentBatch
from audioldm.components import Components
from audioldm.diffusion import objective, posterior
from audioldm.diffusion.prediction import to_x0
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import net_call


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
    rng, schedule, device = Generator().manual_seed(seed), parts.schedule, parts.device
    call = net_call(parts.unet, variance=True)  # the net's whole answer, so not as fast modes run it
    for control in parts.controls:
        call = control.around(call, parts.unet)
    weights = torch.tensor([1.0] + [(schedule.length - 1) / (times - 1)] * (times - 1))
    rows: dict[str, list[Tensor]] = {}
    for batch in batches:
        drawn = batch.mean + batch.std * torch.randn(batch.mean.shape, generator=rng)
        for latent, text in zip(drawn * parts.vae.config.scaling_factor, batch.text, strict=True):
            # time 0, which alone may weigh as much as all others, and the rest spread evenly
            shift = torch.rand((), generator=rng, dtype=torch.float64)
            even = (torch.arange(times - 1, dtype=torch.float64) + shift) / (times - 1)
            t = torch.cat([torch.zeros(1), 1 + (even * (schedule.length - 1)).floor()]).long()
            z = latent.expand(times, *latent.shape)
            x_t = objective.add_noise(z, t, torch.randn(z.shape, generator=rng), schedule)
            condition = Condition(film=text.to(device).expand(times, -1))
            answer = call(x_t.to(device), t.to(device), condition).float().cpu()
            value, *learned = answer.split(z.shape[1], dim=1)
            alpha, sigma = schedule.coefficients(t)
            guess = to_x0(value, x_t, alpha=alpha, sigma=sigma, prediction=parts.prediction)
            shares = {"fixed small": torch.tensor(-1.0), "fixed large": torch.tensor(1.0)}
            for name, share in (shares | dict(zip(["learned"], learned, strict=False))).items():
                variance = posterior.log_variance(share.expand(z.shape), t, schedule)
                terms = posterior.bound_term(z, x_t, t, guess, variance, schedule)
                rows.setdefault(name, []).append((terms * weights).sum())
                if name == "fixed small":
                    rows.setdefault("of it, the first step", []).append(terms[0])
    return {name: torch.stack(values) for name, values in rows.items()}
