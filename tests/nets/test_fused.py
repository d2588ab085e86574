"""The fused blocks and their kernels, by Triton's interpreter: the answers of diffusers' own blocks."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

KERNELS = """
import copy
import torch
from torch.nn import functional as F
from audioldm.nets import kernels

torch.manual_seed(0)
last = {"memory_format": torch.channels_last}
for channels, groups, height, width in ((32, 8, 9, 4), (80, 4, 5, 3)):
    norm = torch.nn.GroupNorm(groups, channels)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    x = (torch.randn(2, channels, height, width) + 50).to(**last)
    bias, shift = torch.randn(channels), torch.randn(2, channels)
    with torch.no_grad():
        exact = copy.deepcopy(norm).double()
        wanted = F.silu(exact((x.double() + bias[:, None, None] + shift[:, :, None, None]))).float()
        got, _ = kernels.normed(x, norm, silu=True, bias=bias, shift=shift)
        assert torch.allclose(got, wanted, atol=1e-3) and got.is_contiguous(**last), channels
        for table in (False, True):  # one kernel a group, and three for all
            plain, known = kernels.normed(x.contiguous(), norm, silu=False, table=table)
            assert torch.allclose(plain, exact(x.double()).float(), atol=1e-3) and (len(known) > 0) == table
            got, _ = kernels.normed(x, norm, silu=True, bias=bias, shift=shift, table=table)
            assert torch.allclose(got, wanted, atol=1e-3), channels
        if kernels.held(x, norm):
            taps, _ = kernels.normed(x, norm, silu=True, bias=bias, shift=shift, taps=True)
            unfolded = F.unfold(wanted, 3, padding=1).view(2, channels, 9, -1).permute(0, 3, 2, 1).flatten(2)
            assert torch.allclose(taps, unfolded, atol=1e-3)
    y = torch.randn_like(x)
    for other in (y, None):
        wanted = x + bias[:, None, None] + (0 if other is None else other)
        assert torch.allclose(kernels.add(x.clone(memory_format=torch.preserve_format), other, bias), wanted, atol=1e-4)
for tokens in (16, 50, 200):
    packed = torch.randn(2, tokens, 3 * 3 * 16)
    q, k, v = packed.view(2, tokens, 3, 3, 16).permute(2, 0, 3, 1, 4)
    wanted = F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2).flatten(2)
    assert torch.allclose(kernels.attention(packed, 3, 0.3), wanted, atol=1e-5), tokens
for size, rows, inner in ((64, 64, 96), (90, 15, 80)):  # whole tiles, and parts of them
    layer, vectors = torch.nn.Linear(size, 2 * inner), torch.randn(3, rows, size)
    wide = torch.zeros(3, rows, 120 + inner)
    with torch.no_grad():
        value, gate = layer(vectors).chunk(2, -1)
        kernels.gated(vectors, layer, wide[..., 120:])
    assert torch.allclose(wide[..., 120:], value * F.gelu(gate), atol=1e-5) and not wide[..., :120].any()
norm, x, y = torch.nn.LayerNorm(80), torch.randn(3, 15, 80), torch.randn(3, 15, 80)
torch.nn.init.normal_(norm.weight)
with torch.no_grad():
    for kept in (None, wide[..., :80]):
        total, normed = kernels.add_norm(x.clone(), y, norm, kept=kept)
        assert torch.allclose(total, x + y) and torch.allclose(normed, norm(x + y), atol=1e-5)
    total, normed = kernels.add_norm(x, None, norm)
    assert total is x and torch.allclose(normed, norm(x), atol=1e-5) and not wide[..., 80:120].any()
a, b, c = (torch.randn(2, 24, 3, 5).to(**last).requires_grad_() for _ in range(3))
bias = torch.randn(24, requires_grad=True)
joined = kernels.Join.apply(a, bias, 0.1, True, b, c)
wanted = a + bias[:, None, None] + b + c, F.leaky_relu(a + bias[:, None, None] + b + c, 0.1)
assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(joined, wanted, strict=True))
slopes = [torch.autograd.grad(x.square().sum() + y.pow(3).sum(), (a, bias)) for x, y in (joined, wanted)]
assert all(torch.allclose(*pair, atol=1e-3) for pair in zip(*slopes, strict=True))
"""
NETS = """
import torch
from audioldm.nets.fused import FusedBlock, FusedResnet, fuse
from audioldm.nets.hifigan import build_hifigan, vocode
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae

torch.manual_seed(0)
mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
inputs = {"class_labels": torch.randn(2, 16), "encoder_hidden_states": torch.randn(2, 5, 24)}
x, t = torch.randn(2, 8, 4, 4), torch.tensor([3, 500])
sizes = {"channels": (8, 16), "layers": 1, "head_channels": 8, "film_dim": 16, "context_dim": 24, "groups": 2}
unet = build_unet("both", **{**sizes, "head_channels": 16, "channels": (8, 32)}).eval()
fused = fuse(unet)
kinds = [type(part) for part in fused.modules()]
assert kinds.count(FusedResnet) == 8 and kinds.count(FusedBlock) == 4, kinds
assert all(a is b for a, b in zip(unet.parameters(), fused.parameters(), strict=True))
with torch.no_grad():
    wanted, got = (net(x, t, encoder_attention_mask=mask, **inputs).sample for net in (unet, fused))
assert torch.allclose(got, wanted, atol=1e-5), (got - wanted).abs().max()
for width in (8, 264):  # the wider has an attention of its own
    vae = build_vae(channels=(8, width), latent_channels=4, layers=1, groups=4).eval()
    assert [type(part) for part in fuse(vae).decoder.modules()].count(FusedResnet) == 6
    with torch.no_grad():
        latent = torch.randn(1, 4, 2, 2)
        assert torch.allclose(fuse(vae).decode(latent).sample, vae.decode(latent).sample, atol=1e-4)
sizes = {"upsample": (4, 2), "upsample_kernels": (8, 4), "kernels": (3, 7), "dilations": ((1, 3), (1, 3))}
vocoder = build_hifigan(channels=64, mel_mean=-4.0, mel_std=2.0, **sizes).eval()
with torch.no_grad():
    mel = torch.randn(2, 1, 10, 64)
    wanted = vocode(vocoder, mel)
    assert torch.allclose(vocode(fuse(vocoder), mel), wanted, atol=1e-5)
assert all(layer.weight[:, :, None].is_contiguous(**last) for layer in (vocoder.conv_pre, *vocoder.upsampler))
"""


def test_fused_is_diffusers_own_within_rounding():
    """In a process of its own, since Triton reads the variable when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    words = [sys.executable, "-c", KERNELS + NETS]
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
