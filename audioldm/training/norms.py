# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Group norm that learns, with SiLU behind it, on channels-last memory: the kernels' forward, and its backward.

torch's own norm reads contiguous memory alone, so that a channels-last net copies to and fro at each, and under
autocast it computes and returns float32.   Here the forward reads its input twice and writes it once, in the input's
type, and so the backward; sums are float32.   ``swap`` puts it into a net of diffusers, whose weights keep their names.
B batch, C channels, H x W pixels.
"""

from types import MethodType
from typing import Any

import torch
import triton
import triton.language as tl
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.nets import kernels
from audioldm.nets.fused import PLAIN, FusedUpsample, fusible, has
from audioldm.nets.pictures import OneProduct, convolve, product

PIXELS, WIDE, CHUNKS = tl.constexpr(64), tl.constexpr(64), tl.constexpr(64)
"""pixels and channels that one program holds; chunks of pixels that are summed at once"""
TABLE = tl.constexpr(10)
"""rows of what the backward knows of each channel of a sample: the forward's five, two means of the group, two sums,
and the gradient of the shift"""
INTERPRETED = bool(triton.knobs.runtime.interpret)  # kernels run on a CPU, step by step, as a test asks for


@triton.jit
def slope_of(x, gradient, table, pixels, channels, SILU: tl.constexpr):
    """Of a program's tile: the normalised input, the gradient before SiLU, their place and mask, and the table's."""
    chunks = tl.cdiv(pixels, PIXELS)
    sample = tl.program_id(0) // chunks
    p = (tl.program_id(0) % chunks) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    mask = (p < pixels)[:, None] & (c < channels)[None, :]
    place = (sample.to(tl.int64) * pixels + p)[:, None] * channels + c[None, :]
    at, real = table + sample * TABLE * channels + c, c < channels
    value = tl.load(x + place, mask, 0.0).to(tl.float32)
    slope = tl.load(gradient + place, mask, 0.0).to(tl.float32)
    if SILU:
        z = value * tl.load(at, real, 0.0)[None, :] + tl.load(at + channels, real, 0.0)[None, :]
        sigmoid = tl.sigmoid(z)
        slope *= sigmoid * (1 + z * (1 - sigmoid))
    steep, centre = tl.load(at + 2 * channels, real, 0.0), tl.load(at + 3 * channels, real, 0.0)
    normal = tl.where(mask, (value - centre[None, :]) * steep[None, :], 0.0)
    return normal, slope, place, mask, at, real


@triton.jit
def sums_kernel(x, gradient, table, part, pixels, channels, SILU: tl.constexpr):
    """Of each channel of a chunk of pixels: the slope's sum, and that of its product with the normalised input."""
    normal, slope, _, _, _, real = slope_of(x, gradient, table, pixels, channels, SILU)
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    at = part + tl.program_id(0).to(tl.int64) * 2 * channels + c
    tl.store(at, tl.sum(slope, 0), real)
    tl.store(at + channels, tl.sum(slope * normal, 0), real)


@triton.jit
def means_kernel(part, table, pixels, channels, size, STEPS: tl.constexpr, C: tl.constexpr):
    """Of one group of a sample: rows 5 to 9 of the table."""
    chunks = tl.cdiv(pixels, PIXELS)
    sample, j = tl.program_id(0), tl.arange(0, C)
    c, real = tl.program_id(1) * size + j, j < size
    plain, product = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    for step in range(STEPS):
        chunk = step * CHUNKS + tl.arange(0, CHUNKS)
        mask = (chunk < chunks)[:, None] & real[None, :]
        at = part + (sample.to(tl.int64) * chunks + chunk)[:, None] * 2 * channels + c[None, :]
        plain += tl.sum(tl.load(at, mask, 0.0), 0)
        product += tl.sum(tl.load(at + channels, mask, 0.0), 0)
    at = table + sample * TABLE * channels + c
    scale, steep = tl.load(at, real, 0.0), tl.load(at + 2 * channels, real, 1.0)
    first = tl.sum(scale / steep * plain, 0) / (pixels * size)
    second = tl.sum(scale / steep * product, 0) / (pixels * size)
    mean, centre = tl.load(at + 4 * channels, real, 0.0), tl.load(at + 3 * channels, real, 0.0)
    tl.store(at + 5 * channels, first * steep, real)
    tl.store(at + 6 * channels, second * steep, real)
    tl.store(at + 7 * channels, plain, real)
    tl.store(at + 8 * channels, product, real)
    # row 4 is the channel's mean with the shift, and centre is without it
    inside = (mean - tl.load(at + 9 * channels, real, 0.0) - centre) * steep
    tl.store(at + 9 * channels, scale * plain - pixels * steep * (first + inside * second), real)


@triton.jit
def gradient_kernel(x, gradient, table, out, pixels, channels, SILU: tl.constexpr):
    """The gradient of the input."""
    normal, slope, place, mask, at, real = slope_of(x, gradient, table, pixels, channels, SILU)
    scale = tl.load(at, real, 0.0)
    first, second = tl.load(at + 5 * channels, real, 0.0), tl.load(at + 6 * channels, real, 0.0)
    value = slope * scale[None, :] - first[None, :] - normal * second[None, :]
    tl.store(out + place, value.to(out.dtype.element_ty), mask)


@torch.library.custom_op("audioldm::group_norm", mutates_args=())
def forward(
    x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    """The normalised input, and the kernels' table."""
    norm = nn.GroupNorm(groups, len(weight), eps, device="meta")
    norm.weight, norm.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
    return kernels.normed(x, norm, silu=silu, shift=shift, table=True)


@torch.library.custom_op("audioldm::group_norm_backward", mutates_args=())
def backward(
    gradient: Tensor, x: Tensor, shift: Tensor, known: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of x, and the table."""
    x, gradient = (part.contiguous(memory_format=torch.channels_last) for part in (x, gradient))
    batch, channels, *sides = x.shape
    pixels, size = sides[0] * sides[1], channels // groups
    chunks = triton.cdiv(pixels, int(PIXELS))
    table = torch.cat([known, known.new_zeros(batch, 4, channels), shift[:, None].float()], 1)
    part = known.new_empty(batch, chunks, 2, channels)
    tiles = batch * chunks, triton.cdiv(channels, int(WIDE))
    sums_kernel[tiles](x, gradient, table, part, pixels, channels, silu)
    steps, wide = triton.cdiv(chunks, int(CHUNKS)), max(2, triton.next_power_of_2(size))
    means_kernel[batch, groups](part, table, pixels, channels, size, steps, wide)
    out = torch.empty_like(x)
    gradient_kernel[tiles](x, gradient, table, out, pixels, channels, silu)
    return out, table


@forward.register_fake
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    table = x.new_empty(len(x), int(kernels.TABLE), x.shape[1], dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), table


@backward.register_fake
def _(gradient: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    table = x.new_empty(len(x), int(TABLE), x.shape[1], dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.channels_last), table


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, shift, _, _, ctx.groups, _, ctx.silu = inputs
    ctx.save_for_backward(x, shift, output[1])
    ctx.types = [part.dtype for part in inputs[1:4]]


def gradients(ctx: Any, gradient: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    """Of x, shift, weight and bias."""
    out, table = backward(gradient, *ctx.saved_tensors, ctx.groups, ctx.silu)
    bias, weight = table[:, 7:9].sum(0)
    rest = [part.to(kind) for part, kind in zip((table[:, 9], weight, bias), ctx.types, strict=True)]
    return out, *rest, None, None, None


forward.register_autograd(gradients, setup_context=keep)


def group_norm(norm: nn.GroupNorm, x: Tensor, shift: Tensor | None = None, *, silu: bool = False) -> Tensor:
    """``norm`` of x (B, C, H, W) + shift (B, C), then SiLU if asked for; channels-last, in the type of ``x``.

    Elsewhere than on a GPU it is torch's own.
    """
    if not (x.is_cuda or INTERPRETED) or x.dim() != 4:
        x = x if shift is None else x + shift[:, :, None, None]
        y = nnf.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return nnf.silu(y) if silu else y
    shift = x.new_zeros(x.shape[:2]) if shift is None else shift.contiguous()
    return forward(x, shift, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)[0]


class GroupNorm(nn.GroupNorm):
    """torch's, by ``group_norm``."""

    def forward(self, input: Tensor) -> Tensor:
        return group_norm(self, input)


def resnet(block: ResnetBlock2D, x: Tensor, temb: Tensor | None = None) -> Tensor:
    """diffusers' residual block; its convolutions' biases go into the norm, with the time's shift, and into the sum."""
    y, conv = group_norm(block.norm1, x, silu=True), block.conv1
    # an adapter in a convolution's place is called as it is
    bias = conv.bias if type(conv) is nn.Conv2d else None
    y = conv(y) if bias is None else product(conv, y, 1, None)
    shift = None if bias is None else bias.expand(len(x), -1)
    if temb is not None:
        moved = block.time_emb_proj(nnf.silu(temb))
        shift = moved if shift is None else shift + moved
    y = block.dropout(group_norm(block.norm2, y, shift, silu=True))
    x = x if block.conv_shortcut is None else block.conv_shortcut(x)
    return convolve(block.conv2, y, x)[0] if type(block.conv2) is nn.Conv2d else x + block.conv2(y)


def swap(net: nn.Module) -> None:
    """Give the norms and blocks of a diffusers net these functions; names and values of weights stay."""
    for part in net.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = GroupNorm
        if type(part) is Upsample2D and fusible(part):
            part.__class__ = FusedUpsample
        if isinstance(part, Attention) and type(part.processor) is AttnProcessor2_0:
            part.set_processor(OneProduct())
        block = isinstance(part, ResnetBlock2D) and isinstance(part.nonlinearity, nn.SiLU)
        if block and has(part, PLAIN[ResnetBlock2D] | {"time_embedding_norm": "default"}):
            part.forward = MethodType(resnet, part)  # type: ignore[method-assign]
