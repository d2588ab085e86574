"""What lies between convolutions, in one pass each way, is what torch computes in several; the kernels step by step."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch
from torch.nn import functional as nnf

from audioldm.losses.adversarial import feature_matching, least_squares_generator
from audioldm.nets import pictures
from audioldm.nets.discriminators import WaveDiscriminator
from audioldm.nets.hifigan import build_hifigan, generate, vocode
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae

SHAPES = ((2, 24, 3, 7), (1, 130, 5, 4), (3, 1, 9, 2))
FORMS = ((0, False, 0.1), (1, True, 0.1), (2, True, 1.0), (2, False, 0.01), (0, True, 1.0))
"""further summands, whether the sum is wanted, the slope"""


def differences(device: str) -> float:
    """The greatest relative difference of sums, activations and gradients from torch's own."""
    from audioldm.nets.kernels import Join

    rng, worst = torch.Generator().manual_seed(0), 0.0
    for shape, (more, keep, slope) in product(SHAPES, FORMS):
        leaves = [torch.randn(shape, generator=rng).to(device) for _ in range(1 + more)]
        leaves = [x.to(memory_format=torch.channels_last).requires_grad_() for x in leaves]
        bias = torch.randn(shape[1], generator=rng).to(device).requires_grad_()
        back = torch.randn(2, *shape, generator=rng).to(device)
        total = sum(leaves[1:], leaves[0] + bias[:, None, None])
        plain = total if keep else None, nnf.leaky_relu(total, slope) if slope != 1 else None
        ours = Join.apply(leaves[0], bias, slope, keep, *leaves[1:])
        assert [part is None for part in ours] == [part is None for part in plain]
        results = []
        for parts in (ours, plain):
            pairs = [(part, slopes) for part, slopes in zip(parts, back, strict=True) if part is not None]
            loss = sum((part * slopes).sum() for part, slopes in pairs)
            results.append([part for part, _ in pairs] + list(torch.autograd.grad(loss, [bias, *leaves])))
        gaps = [float((a - b).detach().norm() / b.detach().norm()) for a, b in zip(*results, strict=True)]
        worst = max(worst, *gaps)
    return worst


def test_kernels_agree_with_torch_step_by_step():
    pytest.importorskip("triton")
    code = (
        "import sys; sys.path.insert(0, 'tests/nets'); import test_pictures as t; print(t.differences('cpu'))"
    )
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1e-6  # float32, in another order


@pytest.mark.gpu
def test_kernels_agree_with_torch_on_a_gpu():
    assert differences("cuda") < 1e-6


def game(device: str) -> list[torch.Tensor]:
    """The generator's losses against a discriminator, and the gradients of all weights of both."""
    torch.manual_seed(0)
    vocoder = build_hifigan(channels=64, kernels=(3, 7), dilations=((1, 3), (1, 3))).to(device)
    judges = WaveDiscriminator(periods=(2, 3), resolutions=(512,), period_width=4, resolution_width=4)
    judges, mel = judges.to(device), torch.randn(2, 1, 32, 64).to(device)
    real = 0.1 * torch.randn(2, 1, 5120).to(device)
    outputs = judges(100 * vocode(vocoder, mel))
    loss = least_squares_generator(outputs) + feature_matching(judges(real), outputs)
    weights = [*vocoder.parameters(), *judges.parameters()]
    return [part.detach().cpu() for part in (loss, *torch.autograd.grad(loss, weights, allow_unused=True))]


@pytest.mark.gpu
def test_a_game_on_a_gpu_has_the_gradients_of_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    here, there = (torch.cat([part.flatten() for part in game(device)]) for device in ("cpu", "cuda"))
    assert (here - there).norm() < 1e-3 * here.norm()


def test_the_generator_on_pictures_learns_as_its_own_function_does():
    """In float32 the two add in other orders, and a mean over branches is taken in the weights."""
    torch.manual_seed(0)
    vocoder = build_hifigan(channels=64, kernels=(3, 7), dilations=((1, 3), (1, 3)))
    mel = torch.randn(2, 1, 8, 64)
    waves = [vocoder(mel[:, 0])[:, None], generate(vocoder, mel)]
    back = torch.randn(waves[0].shape)
    slopes = [torch.autograd.grad((w * back).sum(), list(vocoder.parameters())) for w in waves]
    assert torch.allclose(*waves, atol=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(*slopes, strict=True))


def answers(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What a net gives of which a CPU runs every block in its own way, in ``dtype``, and as it is, in float32."""
    torch.manual_seed(0)
    unet = build_unet(
        channels=(16, 32, 32), latent_channels=4, layers=1, head_channels=16, film_dim=16, groups=4
    )
    net = unet if kind == "unet" else build_vae(channels=(8, 16, 320), latent_channels=4, layers=1, groups=4)
    net.eval().to(memory_format=torch.channels_last)
    x, t, film = torch.randn(2, 4, 32, 8), torch.tensor([500.0, 40.0]), torch.randn(2, 16)

    def call(net, dtype=torch.float32):
        with torch.no_grad():
            if kind == "unet":
                return net(x.to(dtype), t, None, class_labels=film.to(dtype)).sample.float()
            return net.decode(x.to(dtype)).sample.float()

    wanted = call(net)
    twin = pictures.hasten(net.to(dtype))
    assert {type(part) for part in twin.modules()} >= {pictures.NarrowConv, pictures.TransposedUpsample}
    return call(twin, dtype), wanted


@pytest.mark.parametrize("kind", ["unet", "vae"])
def test_a_net_as_a_cpu_runs_it_is_the_net(kind: str, monkeypatch):
    monkeypatch.setattr(pictures, "SCORES", 4000)  # so that attention goes by parts
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    got, wanted = answers(kind, torch.float32)
    assert torch.allclose(got, wanted, atol=1e-4)  # sums of some hundred numbers in another order
    got, wanted = answers(kind, torch.bfloat16)
    assert (
        float((got - wanted).norm() / wanted.norm()) < 0.03
    )  # a rounding of bfloat16 is 0.4 %, some ten add up


def test_the_net_itself_stays_as_it_is():
    unet = build_unet(channels=(16, 32), latent_channels=4, layers=1, head_channels=16, film_dim=16, groups=4)
    kinds, twin = [type(part) for part in unet.modules()], pictures.hasten(unet)
    assert kinds == [type(part) for part in unet.modules()]
    assert twin.conv_out.weight is unet.conv_out.weight
