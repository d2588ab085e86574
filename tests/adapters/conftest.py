"""A real small U-Net, and what it answers."""

import pytest
import torch

from audioldm.adapters.adapter import defaults, start
from audioldm.batch import Condition
from audioldm.nets.unet import build_unet, net_call


@pytest.fixture(scope="session")
def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_unet(
            channels=(16, 32), latent_channels=4, layers=1, head_channels=8, film_dim=16, groups=4
        ).eval()


@pytest.fixture(scope="session")
def answer():
    """The U-Net's answer to fixed noise under a fixed condition."""
    rng = torch.Generator().manual_seed(1)
    x, film = torch.randn(2, 4, 16, 8, generator=rng), torch.randn(2, 16, generator=rng)

    def ask(net):
        return net_call(net)(x, torch.tensor([3, 500]), Condition(film=film))

    return ask


@pytest.fixture(scope="session")
def moved():
    """An adapter that changes something: as after training, every factor is random."""

    def make(net, kind, *, rank=4, convolutions=True, seed=0, alpha=None, targets=None):
        rng = torch.Generator().manual_seed(seed)
        targets = targets or defaults(net, convolutions=convolutions)
        adapter = start(net, kind, rank=rank, targets=targets, generator=rng, alpha=alpha)
        for layer in adapter.layers.values():
            for name, value in layer.factors.items():
                noise = torch.randn(value.shape, generator=rng)
                layer.factors[name] = (
                    value * (1 + 0.1 * noise) if name == "dora_scale" else value + 0.1 * noise
                )
        return adapter

    return make
