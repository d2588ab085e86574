"""Group norm, with SiLU behind it, on channels-last memory: kernels for a GPU.   B batch, C channels, H x W positions.

torch's own kernel reads contiguous memory alone, so that in a channels-last net every norm copies to and fro, and under
autocast it computes and returns float32.   Here a norm reads its input twice and writes it once, in the input's type;
moments are float32.   ``swap`` puts it into a net of diffusers whose weights keep their names.
"""

from types import MethodType
from typing import Any

import torch
import triton
import triton.language as tl
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as nnf

ROWS, COLUMNS, CHUNKS = 64, 64, 64
"""positions and channels of one program's tile; tiles that are joined at once"""


@triton.jit
def _tile(rows, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of program (sample and chunk, channels): the sample, the tile's offsets and mask, its columns and their mask."""
    chunks = tl.cdiv(rows, ROWS)
    sample = tl.program_id(0) // chunks
    row = (tl.program_id(0) % chunks) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < channels)[None, :]
    offset = (sample.to(tl.int64) * rows + row)[:, None] * channels + column[None, :]
    return sample, offset, inside, column, column < channels


@triton.jit
def _moments(x, means, squares, rows, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Mean and summed squared deviation of each channel of each chunk."""
    _, offset, inside, column, real = _tile(rows, channels, ROWS, COLUMNS)
    value = tl.load(x + offset, inside, 0.0).to(tl.float32)
    first = (tl.program_id(0) % tl.cdiv(rows, ROWS)) * ROWS
    mean = tl.sum(value, 0) / tl.minimum(ROWS, rows - first)
    away = tl.where(inside, value - mean[None, :], 0.0)
    place = tl.program_id(0).to(tl.int64) * channels + column
    tl.store(means + place, mean, real)
    tl.store(squares + place, tl.sum(away * away, 0), real)


@triton.jit
def _join(  # type: ignore[no-untyped-def]
    means, squares, shift, mean_out, scale_out, channel_out, rows, channels, width, eps,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of program (sample, group): the chunks' moments joined (Chan et al. 1983); the mean of each channel beside."""
    chunks = tl.cdiv(rows, ROWS)
    sample, group = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, WIDTH)
    real = column < width
    channel = group * width + column
    add = tl.load(shift + sample * channels + channel, real, 0.0).to(tl.float32)
    total = tl.zeros((WIDTH,), tl.float32)
    for step in range(STEPS):
        chunk = step * CHUNKS + tl.arange(0, CHUNKS)
        count = tl.minimum(ROWS, rows - chunk * ROWS).to(tl.float32)
        inside = (chunk < chunks)[:, None] & real[None, :]
        place = (sample.to(tl.int64) * chunks + chunk)[:, None] * channels + channel[None, :]
        total += tl.sum(tl.load(means + place, inside, 0.0) * count[:, None], 0)
    each = total / rows + add
    mean = tl.sum(tl.where(real, each, 0.0), 0) / width
    spread = tl.zeros((WIDTH,), tl.float32)
    for step in range(STEPS):
        chunk = step * CHUNKS + tl.arange(0, CHUNKS)
        count = tl.minimum(ROWS, rows - chunk * ROWS).to(tl.float32)
        inside = (chunk < chunks)[:, None] & real[None, :]
        place = (sample.to(tl.int64) * chunks + chunk)[:, None] * channels + channel[None, :]
        away = tl.load(means + place, inside, 0.0) + add[None, :] - mean
        within = tl.load(squares + place, inside, 0.0)
        spread += tl.sum(tl.where(inside, within + away * away * count[:, None], 0.0), 0)
    variance = tl.sum(spread, 0) / (rows * width)
    tl.store(mean_out + sample * channels + channel, mean + tl.zeros_like(each), real)
    tl.store(scale_out + sample * channels + channel, tl.rsqrt(variance + eps) + tl.zeros_like(each), real)
    tl.store(channel_out + sample * channels + channel, each, real)


@triton.jit
def _apply(  # type: ignore[no-untyped-def]
    x, shift, mean, scale, weight, bias, y, rows, channels,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample, offset, inside, column, real = _tile(rows, channels, ROWS, COLUMNS)
    place = sample * channels + column
    gain = tl.load(scale + place, real, 0.0)
    away = tl.load(shift + place, real, 0.0).to(tl.float32) - tl.load(mean + place, real, 0.0)
    gamma, beta = tl.load(weight + column, real, 0.0).to(tl.float32), tl.load(bias + column, real, 0.0)
    z = (tl.load(x + offset, inside, 0.0).to(tl.float32) + away[None, :]) * (gain * gamma)[None, :]
    z += beta.to(tl.float32)[None, :]
    if SILU:
        z = z * tl.sigmoid(z)
    tl.store(y + offset, z.to(y.dtype.element_ty), inside)


@triton.jit
def _slope(  # type: ignore[no-untyped-def]
    x, gradient, shift, mean, scale, weight, bias, place, offset, inside, column, real, SILU: tl.constexpr
):
    """The normalised input, and the gradient of what came before SiLU, of one tile."""
    gain = tl.load(scale + place, real, 0.0)
    away = tl.load(shift + place, real, 0.0).to(tl.float32) - tl.load(mean + place, real, 0.0)
    normal = (tl.load(x + offset, inside, 0.0).to(tl.float32) + away[None, :]) * gain[None, :]
    slope = tl.load(gradient + offset, inside, 0.0).to(tl.float32)
    if SILU:
        gamma, beta = tl.load(weight + column, real, 0.0), tl.load(bias + column, real, 0.0)
        z = normal * gamma.to(tl.float32)[None, :] + beta.to(tl.float32)[None, :]
        sigmoid = tl.sigmoid(z)
        slope *= sigmoid * (1 + z * (1 - sigmoid))
    return tl.where(inside, normal, 0.0), slope


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    x, gradient, shift, mean, scale, weight, bias, partial, stride, rows, channels,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each channel of each chunk: the summed slope, and that times the normalised input."""
    sample, offset, inside, column, real = _tile(rows, channels, ROWS, COLUMNS)
    place = sample * channels + column
    normal, slope = _slope(
        x, gradient, shift, mean, scale, weight, bias, place, offset, inside, column, real, SILU
    )
    at = partial + tl.program_id(0).to(tl.int64) * channels + column
    tl.store(at, tl.sum(slope, 0), real)
    tl.store(at + stride, tl.sum(slope * normal, 0), real)


@triton.jit
def _join_back(  # type: ignore[no-untyped-def]
    partial, stride, weight, mean, scale, each, sums, inner, shift_gradient, size, rows, channels, width,
    ROWS: tl.constexpr, CHUNKS: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of program (sample, group): the sums of its channels, the two means of the group, the gradient of the shift."""
    chunks = tl.cdiv(rows, ROWS)
    sample, group = tl.program_id(0), tl.program_id(1)
    column = tl.arange(0, WIDTH)
    real = column < width
    channel = group * width + column
    plain, product = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    for step in range(STEPS):
        chunk = step * CHUNKS + tl.arange(0, CHUNKS)
        inside = (chunk < chunks)[:, None] & real[None, :]
        place = (sample.to(tl.int64) * chunks + chunk)[:, None] * channels + channel[None, :]
        plain += tl.sum(tl.load(partial + place, inside, 0.0), 0)
        product += tl.sum(tl.load(partial + stride + place, inside, 0.0), 0)
    gamma = tl.load(weight + channel, real, 0.0).to(tl.float32)
    first_mean = tl.sum(gamma * plain, 0) / (rows * width)
    second_mean = tl.sum(gamma * product, 0) / (rows * width)
    place = sample * channels + channel
    gain = tl.load(scale + place, real, 0.0)
    normal = (tl.load(each + place, real, 0.0) - tl.load(mean + place, real, 0.0)) * gain
    tl.store(sums + place, plain, real)
    tl.store(sums + size + place, product, real)
    tl.store(inner + place, first_mean + tl.zeros_like(plain), real)
    tl.store(inner + size + place, second_mean + tl.zeros_like(plain), real)
    tl.store(
        shift_gradient + place, gain * (gamma * plain - rows * (first_mean + normal * second_mean)), real
    )


@triton.jit
def _apply_back(  # type: ignore[no-untyped-def]
    x, gradient, shift, mean, scale, weight, bias, inner, size, dx, rows, channels,
    SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    sample, offset, inside, column, real = _tile(rows, channels, ROWS, COLUMNS)
    place = sample * channels + column
    normal, slope = _slope(
        x, gradient, shift, mean, scale, weight, bias, place, offset, inside, column, real, SILU
    )
    gamma, gain = tl.load(weight + column, real, 0.0).to(tl.float32), tl.load(scale + place, real, 0.0)
    first, second = tl.load(inner + place, real, 0.0), tl.load(inner + size + place, real, 0.0)
    value = (slope * gamma[None, :] - first[None, :] - normal * second[None, :]) * gain[None, :]
    tl.store(dx + offset, value.to(dx.dtype.element_ty), inside)


def _grid(x: Tensor) -> tuple[int, int, int, tuple[int, int]]:
    """Rows, channels, chunks, and the programs of a kernel of tiles."""
    rows, channels = x.shape[2] * x.shape[3], x.shape[1]
    chunks = triton.cdiv(rows, ROWS)
    return rows, channels, chunks, (len(x) * chunks, triton.cdiv(channels, COLUMNS))


@torch.library.custom_op("audioldm::group_norm", mutates_args=())
def _forward(
    x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = x.contiguous(memory_format=torch.channels_last)
    rows, channels, chunks, grid = _grid(x)
    means, squares = x.new_empty(2, len(x), chunks, channels, dtype=torch.float32)
    mean, scale, each = (x.new_empty(len(x), channels, dtype=torch.float32) for _ in range(3))
    _moments[grid](x, means, squares, rows, channels, ROWS, COLUMNS)
    width = channels // groups
    _join[(len(x), groups)](
        means, squares, shift, mean, scale, each, rows, channels, width, eps,
        ROWS, CHUNKS, triton.cdiv(chunks, CHUNKS), _power(width),
    )  # fmt: skip
    y = torch.empty_like(x)
    _apply[grid](x, shift, mean, scale, weight, bias, y, rows, channels, silu, ROWS, COLUMNS)
    return y, mean, scale, each


@torch.library.custom_op("audioldm::group_norm_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    x: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    scale: Tensor,
    each: Tensor,
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    x, gradient = (part.contiguous(memory_format=torch.channels_last) for part in (x, gradient))
    rows, channels, chunks, grid = _grid(x)
    partial = x.new_empty(2, len(x), chunks, channels, dtype=torch.float32)
    sums, inner = x.new_empty(2, 2, len(x), channels, dtype=torch.float32)
    back = torch.empty_like(mean)
    stride, size, width = len(x) * chunks * channels, mean.numel(), channels // groups
    shared = (x, gradient, shift, mean, scale, weight, bias)
    _sums[grid](*shared, partial, stride, rows, channels, silu, ROWS, COLUMNS)
    _join_back[(len(x), groups)](
        partial, stride, weight, mean, scale, each, sums, inner, back, size, rows, channels, width,
        ROWS, CHUNKS, triton.cdiv(chunks, CHUNKS), _power(width),
    )  # fmt: skip
    dx = torch.empty_like(x)
    _apply_back[grid](*shared, inner, size, dx, rows, channels, silu, ROWS, COLUMNS)
    return dx, back, sums.sum(1)


def _power(width: int) -> int:
    return max(2, int(triton.next_power_of_2(width)))


@_forward.register_fake
def _(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Any:
    rows = [x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(3)]
    return torch.empty_like(x, memory_format=torch.channels_last), *rows


@_backward.register_fake
def _(gradient: Tensor, x: Tensor, shift: Tensor, *rest: Any) -> Any:
    back, sums = (x.new_empty(*more, *x.shape[1:2], dtype=torch.float32) for more in ((len(x),), (2,)))
    return torch.empty_like(x, memory_format=torch.channels_last), back, sums


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.groups, _, ctx.silu = inputs
    ctx.save_for_backward(*tensors, *output[1:])


def _gradients(ctx: Any, gradient: Tensor, *unused: Any) -> tuple[Any, ...]:
    x, shift, weight, bias, *moments = ctx.saved_tensors
    dx, back, sums = _backward(gradient, x, shift, weight, bias, *moments, ctx.groups, ctx.silu)
    return dx, back.to(shift.dtype), sums[1].to(weight.dtype), sums[0].to(bias.dtype), None, None, None


_forward.register_autograd(_gradients, setup_context=_keep)


def group_norm(norm: nn.GroupNorm, x: Tensor, shift: Tensor | None = None, *, silu: bool = False) -> Tensor:
    """``norm`` of x (B, C, H, W) + shift (B, C), then SiLU if asked for; channels-last, in the type of ``x``.

    Elsewhere than on a GPU it is torch's own.
    """
    if not (x.is_cuda or INTERPRETED) or x.dim() != 4:
        x = x if shift is None else x + shift[:, :, None, None]
        y = nnf.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return nnf.silu(y) if silu else y
    shift = x.new_zeros(x.shape[:2]) if shift is None else shift.contiguous()
    return _forward(x, shift, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)[0]


INTERPRETED = bool(triton.knobs.runtime.interpret)
"""whether kernels run on a CPU, step by step, as a test asks for"""


class GroupNorm(nn.GroupNorm):
    """torch's, by ``group_norm``."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return group_norm(self, input)


def resnet(block: ResnetBlock2D, x: Tensor, temb: Tensor | None = None) -> Tensor:
    """diffusers' residual block without up- or downsampling, its norms, activations and time's shift in one."""
    y = block.conv1(group_norm(block.norm1, x, silu=True))
    shift = None
    if temb is not None and block.time_emb_proj is not None:
        shift = block.time_emb_proj(temb if block.skip_time_act else nnf.silu(temb))
    y = block.conv2(block.dropout(group_norm(block.norm2, y, shift, silu=True)))
    x = x if block.conv_shortcut is None else block.conv_shortcut(x)
    return x + y if block.output_scale_factor == 1 else (x + y) / block.output_scale_factor


def swap(net: nn.Module) -> None:
    """Give the norms and residual blocks of a diffusers net these functions; names and values of weights stay."""
    for part in net.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = GroupNorm
        if isinstance(part, ResnetBlock2D) and plain(part):
            part.forward = MethodType(resnet, part)  # type: ignore[method-assign]


def plain(block: ResnetBlock2D) -> bool:
    """Whether it is a block that ``resnet`` computes."""
    sized = block.upsample is None and block.downsample is None
    return sized and block.time_embedding_norm == "default" and isinstance(block.nonlinearity, nn.SiLU)
