"""Convolutions on channels-last pictures, 1-d ones on pictures of one row, and what lies between two of them.

On a GPU bias, sums and leaky ReLU are one pass, and so are their gradients (``nets.kernels``, where Triton is).
B batch, C channels, H rows, W columns.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

Conv = nn.Conv1d | nn.ConvTranspose1d | nn.Conv2d
FEWEST = 8  # channels that a GPU's matrix units ask for


def convolve(
    layer: Conv, x: Tensor, *plus: Tensor, factor: float = 1.0, slope: float = 1.0, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """``layer`` of ``factor`` times x, plus ``plus`` (at most two), and the leaky ReLU of that sum, (B, C, H, W) each.

    A slope of 1 is none.   Without ``keep`` the sum itself is not wanted, and what stands for it is the second.
    """
    if x.is_cuda and find_spec("triton"):
        from audioldm.nets import kernels

        y = product(layer, x, factor, None)
        total, active = kernels.Join.apply(y, layer.bias, slope, keep or slope == 1, *plus)
        return (active if total is None else total), (total if active is None else active)
    y = product(layer, x, factor, layer.bias)
    for part in plus:
        y = y.add_(part)
    return y, (y if slope == 1 else nnf.leaky_relu(y, slope))


def widened(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both with further channels of zeros, up to ``FEWEST`` on either side."""
    ins, outs = (max(0, FEWEST - n) for n in weight.shape[1::-1])
    if ins + outs:
        return nnf.pad(x, (0, 0, 0, 0, 0, ins)), nnf.pad(weight, (0, 0, 0, 0, 0, ins, 0, outs))
    return x, weight


def product(layer: Conv, x: Tensor, factor: float, bias: Tensor | None) -> Tensor:
    """``layer`` of ``factor`` times x with ``bias`` in place of its own; without one its few channels are padded."""
    weight = layer.weight if factor == 1 else layer.weight * factor
    rest: tuple[Any, ...] = layer.stride, layer.padding, layer.dilation
    stride, padding, dilation = rest
    if weight.dim() == 3:
        weight, stride, padding, dilation = weight[:, :, None], (1, *stride), (0, *padding), (1, *dilation)
    if isinstance(layer, nn.ConvTranspose1d):
        weight = weight.contiguous(memory_format=torch.channels_last)
        return nnf.conv_transpose2d(x, weight, bias, stride, padding, dilation=dilation)
    if bias is None:
        x, weight = widened(x, weight)
    if bias is None or layer.weight.dim() == 3:
        x, weight = (part.contiguous(memory_format=torch.channels_last) for part in (x, weight))
    return nnf.conv2d(x, weight, bias, stride, padding, dilation)[:, : len(layer.weight)]
