"""The rate of a Gaussian posterior."""

from torch import Tensor


def kl_to_standard_normal(mean: Tensor, std: Tensor) -> Tensor:
    """KL( N(mean, std^2) || N(0, 1) ) per latent value, in nats: a MEAN over channels, frames and bins, so (B,).

    The reduction is part of the number.   AudioLDM's weight of 1000 multiplies this mean (beside a reconstruction error
    summed over pixels); Stable Diffusion's 1e-6 multiplies the sum.   Here every term of the VAE loss is a mean.
    Kingma & Welling 2014 (arXiv:1312.6114) appendix B.

    >>> import torch
    >>> kl_to_standard_normal(torch.zeros(2, 8, 4, 4), torch.ones(2, 8, 4, 4))
    tensor([0., 0.])
    """
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).flatten(1).mean(1)
