"""Triton kernels for what lies between the products of a U-Net: norms, sums and gates, in float32 and few passes.

All memory is channels-last.   B batch, C channels, H rows, W columns, N vectors.
"""

# Triton's language has no types that mypy could check
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

TILE = 2048  # numbers that one program holds
WIDE = 64  # channels that one program holds
PROGRAMS = 1024  # programs that keep a large card busy
MOST_SPLITS = 64
LOG2_E = 1.4426950408889634
MOST_HELD = 32768  # numbers of a group that one program may hold
FEW = 256  # groups of a batch up to which one program for each is faster than three kernels for all
KEYS = 64  # queries that an attention's program has, and keys that it takes at a time
TABLE = tl.constexpr(5)
"""rows of what a group norm knows of each channel of a sample: scale, offset, 1 / deviation, centre, own mean"""
EARLY = tl.constexpr(torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0))
"""whether a kernel may be launched before the one before it has ended"""
LAUNCH = {"launch_pdl": True} if EARLY.value else {}


@triton.jit
def hand_over():
    """Wait for what earlier kernels wrote, and let the next one be launched meanwhile."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def moments_kernel(x, part, pixels, channels, splits, P: tl.constexpr, C: tl.constexpr):
    """Of a split of the pixels: sums (2, C) of x and x^2 about each channel's first value, which keeps digits."""
    hand_over()
    b, s = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * C + tl.arange(0, C)
    inside = c < channels
    x += b.to(tl.int64) * pixels * channels
    pivot = tl.load(x + c, mask=inside, other=0.0).to(tl.float32)
    span = tl.cdiv(pixels, splits)
    end = tl.minimum(s * span + span, pixels)
    total, square = tl.zeros((P, C), tl.float32), tl.zeros((P, C), tl.float32)
    begin = s * span
    # "while", since Triton's interpreter cannot count to a number that it was given
    while begin < end:
        p = begin + tl.arange(0, P)
        mask = (p < end)[:, None] & inside[None, :]
        value = tl.load(x + p[:, None] * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - pivot[None, :], 0.0)
        total += value
        square += value * value
        begin += P
    at = part + (b * splits + s) * 2 * channels + c
    tl.store(at, tl.sum(total, 0), mask=inside)
    tl.store(at + channels, tl.sum(square, 0), mask=inside)


@triton.jit
def scales_kernel(
    x, part, bias, shift, weight, offset, out, pixels, channels, splits, size, step, eps,
    S: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Of one group: what each of its channels is multiplied by, what is added then, and what ``norms`` asks for."""
    hand_over()
    b, j = tl.program_id(0), tl.arange(0, C)
    c = tl.program_id(1) * size + j
    inside = j < size
    total = tl.zeros((S, C), tl.float32)
    square = tl.zeros((S, C), tl.float32)
    begin = 0
    while begin < splits:
        s = begin + tl.arange(0, S)
        at = part + (b * splits + s)[:, None] * 2 * channels + c[None, :]
        mask = (s < splits)[:, None] & inside[None, :]
        total += tl.load(at, mask=mask, other=0.0)
        square += tl.load(at + channels, mask=mask, other=0.0)
        begin += S
    mean = tl.sum(total, 0) / pixels
    spread = tl.sum(square, 0) - mean * mean * pixels
    mean += tl.load(x + b.to(tl.int64) * pixels * channels + c, mask=inside, other=0.0).to(tl.float32)
    plus = tl.zeros((C,), tl.float32)
    if bias is not None:
        plus += tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    if shift is not None:
        plus += tl.load(shift + b * step + c, mask=inside, other=0.0).to(tl.float32)
    mean = tl.where(inside, mean + plus, 0.0)
    centre = tl.sum(mean, 0) / size
    gap = tl.where(inside, mean - centre, 0.0)
    variance = tl.sum(tl.where(inside, spread, 0.0) + pixels * gap * gap, 0) / (pixels * size)
    steep = 1 / tl.sqrt(variance + eps)
    scale = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32) * steep
    added = tl.load(offset + c, mask=inside, other=0.0).to(tl.float32) + (plus - centre) * scale
    at = out + b * TABLE * channels + c
    tl.store(at, scale, mask=inside)
    tl.store(at + channels, added, mask=inside)
    tl.store(at + 2 * channels, steep + 0 * plus, mask=inside)
    tl.store(at + 3 * channels, centre - plus, mask=inside)
    tl.store(at + 4 * channels, mean, mask=inside)


@triton.jit
def scale_kernel(x, scales, y, pixels, channels, SILU: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """x times its channel's scale, plus its offset, and SiLU of that."""
    hand_over()
    b = tl.program_id(0)
    p = tl.program_id(1) * P + tl.arange(0, P)
    c = tl.program_id(2) * C + tl.arange(0, C)
    inside = c < channels
    at = scales + b * TABLE * channels + c
    scale = tl.load(at, mask=inside, other=0.0)
    offset = tl.load(at + channels, mask=inside, other=0.0)
    place = b.to(tl.int64) * pixels * channels + p[:, None] * channels + c[None, :]
    mask = (p < pixels)[:, None] & inside[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32) * scale[None, :] + offset[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def group_kernel(
    x, bias, shift, weight, offset, y, pixels, channels, step, eps,
    SIZE: tl.constexpr, FULL: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, C: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """A whole norm of one group, which the program holds; with W columns, what each pixel of 3 x 3 taps sees of it."""
    hand_over()
    b, p, j = tl.program_id(1), tl.arange(0, P), tl.arange(0, C)
    # a size that is known lets neighbours be loaded together
    c, inside = tl.program_id(0) * SIZE + j, (j < SIZE) | (SIZE == C)
    mask = ((p < pixels) | FULL)[:, None] & inside[None, :]
    place = b.to(tl.int64) * pixels * channels + p[:, None] * channels + c[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    if shift is not None:
        value += tl.load(shift + b * step + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    count = pixels * SIZE
    value = tl.where(mask, value, 0.0)
    value = tl.where(mask, value - tl.sum(value) / count, 0.0)
    scale = tl.load(weight + c, mask=inside, other=0.0) / tl.sqrt(tl.sum(value * value) / count + eps)
    value = value * scale[None, :] + tl.load(offset + c, mask=inside, other=0.0).to(tl.float32)[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    value = value.to(y.dtype.element_ty)
    if W == 0:
        tl.store(y + place, value, mask=mask)
    else:
        row, column, height = p // W, p % W, pixels // W
        y += b.to(tl.int64) * pixels * 9 * channels + c[None, :]
        for tap in tl.static_range(9):
            down, right = tap // 3 - 1, tap % 3 - 1
            above, left = row - down, column - right
            seen = (above >= 0) & (above < height) & (left >= 0) & (left < W)
            at = (above * W + left)[:, None] * 9 * channels + tap * channels
            tl.store(y + at, value, mask=mask & seen[:, None])
            below, beside = row + down, column + right
            edge = (below < 0) | (below >= height) | (beside < 0) | (beside >= W)
            tl.store(y + (p[:, None] * 9 + tap) * channels, tl.zeros_like(value), mask=mask & edge[:, None])


@triton.jit
def gated_kernel(
    x, weight, bias, out, rows, inner, step,
    SIZE: tl.constexpr, FULL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """The first half of a product, with its bias, times GELU of the second; FULL: all tiles are."""
    hand_over()
    n, m = tl.program_id(0) * N + tl.arange(0, N), tl.program_id(1) * M + tl.arange(0, M)
    high, wide = ((m < rows) | FULL)[:, None], ((n < inner) | FULL)[None, :]
    value, gate = tl.zeros((M, N), tl.float32), tl.zeros((M, N), tl.float32)
    x, weight = x + m.to(tl.int64)[:, None] * SIZE, weight + n[None, :] * SIZE
    for begin in range(0, SIZE, K):
        k = begin + tl.arange(0, K)
        inside = (k < SIZE) | FULL
        part, mask = tl.load(x + k[None, :], mask=high & inside[None, :], other=0.0), wide & inside[:, None]
        value = tl.dot(part, tl.load(weight + k[:, None], mask=mask, other=0.0), value, "ieee")
        gate = tl.dot(part, tl.load(weight + inner * SIZE + k[:, None], mask=mask, other=0.0), gate, "ieee")
    value += tl.load(bias + n, mask=n < inner, other=0.0).to(tl.float32)[None, :]
    gate += tl.load(bias + inner + n, mask=n < inner, other=0.0).to(tl.float32)[None, :]
    value *= 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    at = out + m.to(tl.int64)[:, None] * step + n[None, :]
    tl.store(at, value.to(out.dtype.element_ty), mask=high & wide)


@triton.jit
def add_norm_kernel(
    x, y, weight, offset, kept, out, rows, channels, step, eps, P: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """The layer norm of x + y, and that sum."""
    hand_over()
    p, c = tl.program_id(0) * P + tl.arange(0, P), tl.arange(0, C)
    inside = c < channels
    place = p.to(tl.int64)[:, None] * channels + c[None, :]
    mask = (p < rows)[:, None] & inside[None, :]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if y is not None:
        value += tl.load(y + place, mask=mask, other=0.0).to(tl.float32)
        at = kept + p.to(tl.int64)[:, None] * step + c[None, :]
        tl.store(at, value.to(x.dtype.element_ty), mask=mask)
    mean = tl.sum(value, 1) / channels
    value = tl.where(mask, value - mean[:, None], 0.0)
    value *= (1 / tl.sqrt(tl.sum(value * value, 1) / channels + eps))[:, None]
    scale = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    plus = tl.load(offset + c, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, (value * scale[None, :] + plus[None, :]).to(out.dtype.element_ty), mask=mask)


@triton.jit
def attend_kernel(
    packed, out, heads, scale, T: tl.constexpr, Q: tl.constexpr, K: tl.constexpr, D: tl.constexpr
):  # fmt: skip
    """Of one head and Q of T tokens: softmax attention, K keys at a time (FlashAttention, arXiv:2205.14135)."""
    hand_over()
    b, h = tl.program_id(0).to(tl.int64), tl.program_id(1)
    q, k, d = tl.program_id(2) * Q + tl.arange(0, Q), tl.arange(0, K), tl.arange(0, D)
    step = 3 * heads * D
    packed += b * T * step + h * D
    query = tl.load(packed + q[:, None] * step + d[None, :], mask=(q < T)[:, None], other=0.0)
    most = tl.full((Q,), -float("inf"), tl.float32)
    total = tl.zeros((Q,), tl.float32)
    answer = tl.zeros((Q, D), tl.float32)
    for start in range(0, T, K):
        inside, place = (start + k < T) | (T % K == 0), packed + heads * D + (start + k) * step
        key = tl.load(place[None, :] + d[:, None], mask=inside[None, :], other=0.0)
        value = tl.load(place[:, None] + heads * D + d[None, :], mask=inside[:, None], other=0.0)
        score = tl.where(inside[None, :], tl.dot(query, key), -float("inf"))
        high = tl.maximum(most, tl.max(score, 1) * scale)
        share, fade = tl.exp2(score * scale - high[:, None]), tl.exp2(most - high)
        total = total * fade + tl.sum(share, 1)
        answer = answer * fade[:, None] + tl.dot(share.to(value.dtype), value)
        most = high
    at = out + (b * T + q)[:, None] * heads * D + h * D + d[None, :]
    tl.store(at, (answer * (1 / total)[:, None]).to(out.dtype.element_ty), mask=(q < T)[:, None])


@triton.jit
def join_kernel(
    y, bias, first, second, total, active, rows, channels, slope, P: tl.constexpr, C: tl.constexpr
):
    """y + bias + first + second, and its leaky ReLU; what is None is left out."""
    hand_over()
    p = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    c = tl.program_id(1) * C + tl.arange(0, C)
    place = p[:, None] * channels + c[None, :]
    mask = (p < rows)[:, None] & (c < channels)[None, :]
    value = tl.load(y + place, mask, 0.0).to(tl.float32)
    value += tl.load(bias + c, c < channels, 0.0).to(tl.float32)[None, :]
    if first is not None:
        value += tl.load(first + place, mask, 0.0).to(tl.float32)
    if second is not None:
        value += tl.load(second + place, mask, 0.0).to(tl.float32)
    if total is not None:
        tl.store(total + place, value.to(total.dtype.element_ty), mask)
    if active is not None:
        value = tl.where(value > 0, value, value * slope)
        tl.store(active + place, value.to(active.dtype.element_ty), mask)


@triton.jit
def part_kernel(
    total, slopes, active, out, part, rows, channels, slope, span, P: tl.constexpr, C: tl.constexpr
):
    """Of the gradients of ``join_kernel``'s two: that of its inputs, where they differ, and of a span of its bias."""
    c = tl.program_id(1) * C + tl.arange(0, C)
    begin = tl.program_id(0).to(tl.int64) * span
    end = tl.minimum(begin + span, rows)
    sums = tl.zeros((C,), tl.float32)
    while begin < end:
        p = begin + tl.arange(0, P)
        place = p[:, None] * channels + c[None, :]
        mask = (p < end)[:, None] & (c < channels)[None, :]
        value = tl.zeros((P, C), tl.float32)
        if active is not None:
            value += tl.load(slopes + place, mask, 0.0).to(tl.float32)
            value = tl.where(tl.load(active + place, mask, 0.0) > 0, value, value * slope)
        if total is not None:
            value += tl.load(total + place, mask, 0.0).to(tl.float32)
        if active is not None:
            tl.store(out + place, value.to(out.dtype.element_ty), mask)
        sums += tl.sum(value, 0)
        begin += P
    tl.store(part + tl.program_id(0) * channels + c, sums, c < channels)


def normed(
    x: Tensor, norm: torch.nn.GroupNorm, *, silu: bool, bias: Tensor | None = None, shift: Tensor | None = None,
    table: bool = False, taps: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``norm`` of x (B, C, H, W) + bias (C,) + shift (B, C), then SiLU, channels-last; its ``TABLE`` (B, 5, C).

    With ``taps``, which a norm must be ``held`` for, what a convolution 3 x 3 multiplies of it: (B, H W, 9 C).
    """
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, *sides = x.shape
    pixels, columns = sides[0] * sides[1], triton.cdiv(channels, WIDE)
    size, step, long = channels // norm.num_groups, 0 if shift is None else shift.stride(0), TILE // WIDE
    y = x.new_empty(batch, pixels, 9 * channels) if taps else torch.empty_like(x)
    parts = bias, shift, norm.weight, norm.bias
    high, wide = triton.next_power_of_2(pixels), triton.next_power_of_2(size)
    if not table and held(x, norm):
        group_kernel[norm.num_groups, batch](
            x, *parts, y, pixels, channels, step, norm.eps, size, pixels == high, silu, high, wide, sides[1] * taps,
            num_warps=4 if high * wide <= TILE else 8, **LAUNCH,
        )  # fmt: skip
        return y, y[:0]
    splits = max(1, min(triton.cdiv(PROGRAMS, batch * columns), MOST_SPLITS, pixels // 16))
    part = x.new_empty(batch, splits, 2, channels, dtype=torch.float32)
    scales = x.new_empty(batch, int(TABLE), channels, dtype=torch.float32)
    moments_kernel[batch, splits, columns](x, part, pixels, channels, splits, long, WIDE, **LAUNCH)
    scales_kernel[batch, norm.num_groups](
        x, part, *parts, scales, pixels, channels, splits, size, step, norm.eps, 16, max(16, wide), **LAUNCH,
    )  # fmt: skip
    grid = batch, triton.cdiv(pixels, long), columns
    scale_kernel[grid](x, scales, y, pixels, channels, silu, long, WIDE, **LAUNCH)
    return y, scales


def held(x: Tensor, norm: torch.nn.GroupNorm) -> bool:
    """Whether a program for each group of x (B, C, H, W) is the faster way."""
    batch, channels, height, width = x.shape
    size = triton.next_power_of_2(height * width) * triton.next_power_of_2(channels // norm.num_groups)
    return batch * norm.num_groups <= FEW and size <= MOST_HELD


def add(x: Tensor, y: Tensor | None, bias: Tensor) -> Tensor:
    """x + y + bias (C,) for pictures (B, C, H, W), channels-last; x may be overwritten."""
    x, *rest = (part.contiguous(memory_format=torch.channels_last) for part in (x, y) if part is not None)
    rows, channels, wide, high = tiles(x)
    grid = triton.cdiv(rows, high), triton.cdiv(channels, wide)
    join_kernel[grid](x, bias, *[*rest, None][:1], None, x, None, rows, channels, 1.0, high, wide, **LAUNCH)
    return x


def gated(x: Tensor, layer: torch.nn.Linear, out: Tensor) -> None:
    """GEGLU of vectors (..., C) by its ``layer``, into ``out``, which may be columns of wider rows."""
    size, inner, rows = layer.in_features, layer.out_features // 2, x.numel() // layer.in_features
    high, wide, warps, stages = (128, 64, 8, 3) if rows > 1024 else (64, 32, 4, 4)
    gated_kernel[triton.cdiv(inner, wide), triton.cdiv(rows, high)](
        x, layer.weight, layer.bias, out, rows, inner, out.stride(-2), size,
        rows % high == inner % wide == size % WIDE == 0, high, wide, WIDE, num_warps=warps,
        num_stages=stages if x.element_size() < 4 else 1, **LAUNCH,
    )  # fmt: skip


def attention(packed: Tensor, heads: int, scale: float) -> Tensor:
    """Self-attention (B, T, C) of queries, keys and values packed as (B, T, 3 C), T above 15; for small batches."""
    batch, tokens, width = packed.shape
    out, tile = packed.new_empty(batch, tokens, width // 3), min(KEYS, triton.next_power_of_2(tokens))
    grid = batch, heads, triton.cdiv(tokens, tile)
    attend_kernel[grid](
        packed, out, heads, scale * LOG2_E, tokens, tile, tile, width // 3 // heads, num_warps=4, **LAUNCH
    )
    return out


def add_norm(
    x: Tensor, y: Tensor | None, norm: torch.nn.LayerNorm, *, kept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x + y for vectors (..., C), written over x or into ``kept``, columns of wider rows; the sum's layer norm."""
    x, channels = x.contiguous(), x.shape[-1]
    kept, out, wide = x if kept is None else kept, torch.empty_like(x), triton.next_power_of_2(channels)
    rows, high = x.numel() // channels, max(1, TILE // wide)
    add_norm_kernel[(triton.cdiv(rows, high),)](
        x, y if y is None else y.contiguous(), norm.weight, norm.bias, kept, out, rows, channels, kept.stride(-2),
        norm.eps, high, wide, **LAUNCH,
    )  # fmt: skip
    return kept, out


class Join(torch.autograd.Function):
    """y + bias + at most two more (B, C, H, W) where ``keep``, and the leaky ReLU of that sum where it has a slope."""

    @staticmethod
    def forward(ctx, y, bias, slope, keep, *more):
        y, *rest = (part.contiguous(memory_format=torch.channels_last) for part in (y, *more))
        total, active = (torch.empty_like(y) if wanted else None for wanted in (keep, slope != 1))
        rows, channels, wide, high = tiles(y)
        grid = triton.cdiv(rows, high), triton.cdiv(channels, wide)
        parts = [*rest, None, None][:2]
        join_kernel[grid](y, bias, *parts, total, active, rows, channels, slope, high, wide, **LAUNCH)
        ctx.save_for_backward(active)
        ctx.slope, ctx.more, ctx.kind = slope, len(more), bias.dtype
        ctx.set_materialize_grads(False)
        return total, active

    @staticmethod
    def backward(ctx, *gradients):
        last = torch.channels_last
        total, slopes = (g if g is None else g.contiguous(memory_format=last) for g in gradients)
        active = None if slopes is None else ctx.saved_tensors[0]
        out: Any = total if slopes is None else torch.empty_like(slopes)
        rows, channels, wide, high = tiles(out)
        span = high * triton.cdiv(rows, high * PROGRAMS)
        part = out.new_empty(triton.cdiv(rows, span), channels, dtype=torch.float32)
        grid = len(part), triton.cdiv(channels, wide)
        part_kernel[grid](total, slopes, active, out, part, rows, channels, ctx.slope, span, high, wide)
        return out, part.sum(0).to(ctx.kind), None, None, *[out] * ctx.more


def tiles(x: Tensor) -> tuple[int, int, int, int]:
    """Rows and channels of a channels-last picture, and the channels and rows that one program holds."""
    (rows, channels), few = (x.numel() // x.shape[1], x.shape[1]), x.numel() < 2 * TILE * PROGRAMS
    wide = min(WIDE if few else 2 * WIDE, triton.next_power_of_2(channels))
    return rows, channels, wide, (TILE // 2 if few else 2 * TILE) // wide
