"""A U-Net that attends to cached tokens: they reach it, are dropped for the empty prompt's, and it learns."""

import torch

from audioldm.batch import LatentBatch
from audioldm.diffusion.schedule import audioldm
from audioldm.nets.unet import build_unet
from audioldm.training.latent_diffusion import LatentDiffusion, padded
from tests.training.test_modules import fit


def build(batches: int) -> LatentDiffusion:
    torch.manual_seed(0)
    unet = build_unet(
        "cross", channels=(16, 32), latent_channels=4, layers=1, head_channels=8, context_dim=6, groups=4
    )
    return LatentDiffusion(
        unet, audioldm(), scaling_factor=1.0, empty=torch.zeros(8), empty_tokens=torch.ones(1, 6), lr=3e-3,
        batches=batches, warmup=5,
    )  # fmt: skip


def latents(n: int = 4) -> LatentBatch:
    g = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(n, 8, generator=g), dim=-1)
    tokens, mask = (
        torch.randn(n, 3, 6, generator=g),
        torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]),
    )
    mean = torch.randn(n, 4, 16, 8, generator=g)
    return LatentBatch(mean, torch.full_like(mean, 0.01), unit, unit, tokens, mask)


def test_tokens_are_told_or_replaced_by_the_empty_prompts():
    module, batch = build(1), latents()
    told = module.condition(batch, torch.Generator().manual_seed(0), drop=0.0)
    assert torch.equal(told.tokens, batch.tokens) and torch.equal(told.mask, batch.mask)
    empty = module.condition(batch, torch.Generator().manual_seed(0), drop=1.0)
    assert torch.equal(empty.tokens[0], torch.tensor([[1.0] * 6, [0.0] * 6, [0.0] * 6]))
    assert empty.mask.tolist() == [[1, 0, 0]] * 4


def test_it_learns_one_batch():
    module, batch = build(60), latents()

    def validated() -> float:
        with torch.no_grad():
            rng = torch.Generator().manual_seed(1)
            return sum(module.losses(batch, rng, drop=0.0)["loss"].item() for _ in range(6))

    before = validated()
    fit(module, batch)
    assert validated() < 0.6 * before  # predicting zero keeps it where it was


def test_padding_cuts_and_fills():
    tokens, mask = padded(torch.ones(2, 3), 4)
    assert tokens.sum() == 6 and mask.tolist() == [1, 1, 0, 0]
    assert padded(torch.ones(5, 3), 4)[0].shape == (4, 3)
