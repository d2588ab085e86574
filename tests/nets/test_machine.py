"""Layers in three bfloat16 products: the rewriting is exact; the kernel is tried where the processor has the units."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError
from audioldm.nets.hifigan import build_hifigan, vocode
from audioldm.nets.machine import Split, kernel, reason_against, split
from audioldm.nets.machine.split import SelfAttention, SummedBlock, pack, pays, phases
from audioldm.nets.unet import build_unet, net_call
from audioldm.nets.vae import build_vae, decode

needs_units = pytest.mark.skipif(reason_against() is not None, reason=f"split: {reason_against()}")
ROUNDING = 2e-5  # 2^-16 for the product that is left out; measured 5e-6 on sums of hundreds


def gap(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


@settings(max_examples=60, deadline=None)
@given(
    stride=st.integers(1, 6), extra=st.integers(0, 12), padding=st.integers(0, 7), length=st.integers(1, 12)
)
def test_a_transposed_convolution_is_a_plain_one_that_gives_all_phases(stride, extra, padding, length):
    size = stride + extra
    whole = (length - 1) * stride - 2 * padding + size
    if whole < 1 or padding >= size:
        return
    rng = torch.Generator().manual_seed(size)
    x = torch.randn(2, 3, length, generator=rng, dtype=torch.float64)
    weight = torch.randn(3, 4, size, generator=rng, dtype=torch.float64)
    plain, left, right = phases(weight, stride, padding)
    places = -(-whole // stride)
    padded = nnf.pad(x, (left, right + max(0, places - length)))
    y = nnf.conv1d(padded, plain)[:, :, :places]  # (B, S N, places)
    y = y.view(2, stride, 4, places).permute(0, 2, 3, 1).reshape(2, 4, -1)[:, :, :whole]
    assert torch.allclose(y, nnf.conv_transpose1d(x, weight, stride=stride, padding=padding), atol=1e-12)


def test_packing_lays_pairs_of_channels_of_a_block_of_outputs_side_by_side():
    weight = torch.arange(96 * 4 * 3).view(96, 4, 1, 3).bfloat16()
    packed = pack(weight)
    assert packed.shape == (3, 1, 3, 2, 32, 2)
    assert packed[2, 0, 1, 1, 5, 0] == weight[2 * 32 + 5, 2, 0, 1]


@pytest.mark.parametrize(
    ("layer", "yes"),
    [
        (nn.Conv2d(32, 16, 3, padding=1), True),
        (nn.Conv2d(32, 1, 3, padding=1), False),
        (nn.Conv2d(8, 32, 3, padding=1), False),
        (nn.Conv2d(32, 32, 3, padding=1, groups=2), False),
        (nn.Conv2d(32, 32, 3, padding="same"), False),
        (nn.Conv1d(32, 32, 3, dilation=3, padding=3), False),
        (nn.Conv1d(64, 64, 3, dilation=3, padding=3), True),
        (nn.ConvTranspose1d(32, 16, 4, 2, 1), True),
        (nn.ConvTranspose1d(32, 16, 4, 2, 1, output_padding=1), False),
        (nn.Linear(32, 48), True),
        (nn.GroupNorm(4, 32), False),
    ],
)
def test_which_layers_the_units_take(layer: nn.Module, yes: bool):
    assert pays(layer) is yes


def test_where_it_cannot_run_it_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "reason_against", lambda: "this is a toaster")
    kernel.load.cache_clear()
    with pytest.raises(AudioLDMError, match="split cannot run here: this is a toaster"):
        kernel.load()
    kernel.load.cache_clear()


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'fatal: out of cheese' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(AudioLDMError, match="out of cheese"):
        kernel.build(tmp_path / "kernel.so")


@needs_units
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(32, 48, 3, padding=1), (2, 32, 40, 20)),
        (nn.Conv2d(32, 48, 3, padding=1), (2, 32, 9, 3)),
        (nn.Conv2d(64, 32, 3, stride=2, padding=1), (2, 64, 16, 16)),
        (nn.Conv2d(64, 16, 1, bias=False), (3, 64, 5, 5)),
        (nn.Conv1d(64, 64, 11, dilation=5, padding=25), (2, 64, 300)),
        (nn.Conv1d(32, 64, 7, padding=3), (1, 32, 1000)),
        (nn.ConvTranspose1d(64, 32, 16, 5, padding=5), (2, 64, 100)),
        (nn.ConvTranspose1d(32, 32, 16, 4, padding=6), (2, 32, 37)),
        (nn.Linear(64, 48), (2, 30, 64)),
        (nn.Linear(64, 48), (2, 64)),
    ],
)
@torch.no_grad()
def test_a_split_layer_is_the_layer_within_rounding(layer: nn.Module, shape: tuple[int, ...]):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    wanted = layer.double()(x.double())
    twin = split(nn.Sequential(layer.float()))
    assert isinstance(twin[0], Split)
    assert twin[0].weight.data_ptr() == layer.weight.data_ptr()  # no second copy of the weights
    assert gap(twin(x), wanted) < ROUNDING


@needs_units
@torch.no_grad()
def test_whole_nets_are_themselves_within_rounding():
    torch.manual_seed(0)
    unet = build_unet(channels=(32, 64), layers=1, head_channels=16, film_dim=16, groups=8).eval()
    vae = build_vae(channels=(32, 64), layers=1, groups=8).eval()
    vocoder = build_hifigan(channels=256).eval()
    x, t, film = torch.randn(2, 8, 32, 16), torch.tensor([3, 700]), Condition(film=torch.randn(2, 16))
    twin = split(unet)
    assert any(isinstance(m, SummedBlock) for m in twin.modules())
    assert any(isinstance(m, SelfAttention) for m in twin.attn_processors.values())
    assert gap(net_call(twin)(x, t, film), net_call(unet)(x, t, film)) < 1e-4
    assert gap(decode(split(vae), x), decode(vae, x)) < 1e-4
    mel = torch.randn(2, 1, 40, 64) * 2 - 5
    assert gap(vocode(split(vocoder), mel), vocode(vocoder, mel)) < 1e-4


@needs_units
def test_under_gradients_a_split_layer_is_the_layer():
    layer = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.randn(1, 32, 8, 8, requires_grad=True)
    y = split(nn.Sequential(layer))(x)
    assert torch.equal(y, layer(x))
    y.sum().backward()
    assert x.grad is not None
