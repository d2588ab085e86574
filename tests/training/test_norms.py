"""The kernels of group norm give what torch gives, in both directions; here step by step on a CPU."""

import os
import subprocess
import sys
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as nnf

from audioldm.adapters.adapter import attach, defaults, start
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae

pytest.importorskip("triton")
from audioldm.training import norms as kernels

SHAPES = ((2, 24, 10, 16, 4), (3, 128, 9, 8, 32), (2, 96, 2, 3, 32), (1, 8, 70, 64, 2))
FORMS = ((True, True), (False, False), (True, False), (False, True))
"""with SiLU, with a shift"""
ALL = list(product(SHAPES, FORMS))
FEW = [(SHAPES[0], (True, True)), (SHAPES[2], (False, False)), (SHAPES[3], (False, True))]
"""step by step they take seconds"""


def differences(device: str, cases) -> float:
    """The greatest relative difference from float64 of output and gradients, over shapes and forms."""
    rng = torch.Generator().manual_seed(0)
    worst = 0.0
    for (rows, channels, height, width, groups), (silu, shifted) in cases:
        norm = nn.GroupNorm(groups, channels).to(device)
        for p in norm.parameters():
            nn.init.normal_(p, generator=None if device != "cpu" else rng)
        # a mean far from zero, where squares less squared means would lose digits
        x = (torch.randn(rows, channels, height, width, generator=rng) * 3 + 50).to(device)
        shift = torch.randn(rows, channels, generator=rng).to(device)
        back = torch.randn(x.shape, generator=rng).to(device)
        leaves = [t.requires_grad_() for t in (x, norm.weight, norm.bias, shift)][: 4 if shifted else 3]
        moved = (x + shift[:, :, None, None] if shifted else x).double()
        plain = nnf.group_norm(moved, groups, norm.weight.double(), norm.bias.double(), norm.eps)
        plain = nnf.silu(plain) if silu else plain
        ours = kernels.group_norm(norm, x, shift if shifted else None, silu=silu)
        gradients = [torch.autograd.grad((y * back).sum(), leaves) for y in (ours, plain)]
        pairs = [(ours, plain), *zip(*gradients, strict=True)]
        worst = max(worst, *(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs))
    return worst


def test_kernels_agree_with_torch_step_by_step():
    code = "import sys; sys.path.insert(0, 'tests/training'); import test_norms as t; "
    code += "print(t.differences('cpu', t.FEW))"
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1e-5


@pytest.mark.gpu
def test_kernels_agree_with_torch_on_a_gpu():
    assert differences("cuda", ALL) < 1e-4


@pytest.mark.parametrize("kind", ["vae", "unet", "unet with an adapter"])
def test_a_net_with_these_norms_keeps_its_names_and_its_function(kind: str):
    """LoCon wraps convolutions: a block then calls what stands in the convolution's place."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    vae = build_vae(channels=(8, 320), latent_channels=4, layers=1, groups=4)
    unet = build_unet(channels=(16, 32), latent_channels=4, layers=1, head_channels=16, film_dim=16, groups=4)
    if kind == "unet with an adapter":
        layers = defaults(unet, convolutions=True)
        attach(unet, start(unet, "lora", rank=2, targets=layers, generator=rng, alpha=None))
        with torch.no_grad():
            for name, p in unet.named_parameters():
                if p.requires_grad and "conv1" in name:
                    p.add_(0.1 * torch.randn(p.shape, generator=rng))
    x, film = torch.randn(2, 4, 8, 4, generator=rng), torch.randn(2, 16, generator=rng)
    mel, net = torch.randn(2, 1, 16, 8, generator=rng), vae if kind == "vae" else unet

    def call() -> torch.Tensor:
        return vae(mel).sample if net is vae else unet(x, 3, None, class_labels=film).sample

    def slopes() -> torch.Tensor:
        each = torch.autograd.grad(call().square().sum(), [p for p in net.parameters() if p.requires_grad])
        return torch.cat([part.flatten() for part in each])

    before, steep, names = call(), slopes(), list(net.state_dict())
    kernels.swap(net)
    assert list(net.state_dict()) == names and torch.allclose(call(), before, atol=1e-5)
    assert (slopes() - steep).norm() < 1e-5 * steep.norm()
    assert all(type(part) is not nn.GroupNorm for part in net.modules())
