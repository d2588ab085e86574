"""Convolutions and attention on channels-last pictures, 1-d ones on pictures of one row, and what lies between.

On a GPU bias, sums and leaky ReLU are one pass, and so are their gradients (``nets.kernels``, where Triton is).
B batch, C channels, H rows, W columns, N tokens, D numbers of a head.
"""

import copy
from importlib.util import find_spec
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as nnf

Conv = nn.Conv1d | nn.ConvTranspose1d | nn.Conv2d
FEWEST = 8  # channels that a GPU's matrix units ask for
NARROW = 2  # columns up to which a CPU's convolution takes up to five times as long as a product
SCORES = 2**24  # of an attention at a time, on a CPU
WIDEST, LONGEST = 256, 8192  # numbers of a head for flash kernels; tokens up to which wider ones are products
TAPS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""which of three taps over doubled numbers add up to each of the four of a transposed convolution"""


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


def hasten(net: Any) -> Any:
    """A copy of diffusers' ``net`` on the same weights for a CPU: narrow convolutions, and attention, as products."""
    twin = copy.deepcopy(net, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())})
    # with AMX flash attention is the faster one
    products = net.dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()
    for part in list(twin.modules()):
        if products and isinstance(part, Attention) and type(part.processor) is AttnProcessor2_0:
            part.set_processor(OneProduct())
        elif type(part) is Upsample2D and part.interpolate and type(part.conv) is nn.Conv2d:
            part.weight, part.__class__ = transposed(part.conv.weight), TransposedUpsample
        elif type(part) is nn.Conv2d and part.kernel_size == (3, 3) and part.stride == part.padding == (1, 1):
            part.__class__ = NarrowConv
    return twin


class TransposedUpsample(Upsample2D):
    """Nearest neighbours and a convolution 3 x 3 as one transposed convolution 4 x 4: 4 products a number, not 9."""

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *_: Any, **__: Any) -> Tensor:
        if output_size is not None or hidden_states.shape[-1] <= 2 * NARROW:
            return super().forward(hidden_states, output_size)
        return nnf.conv_transpose2d(hidden_states, self.weight, self.conv.bias, stride=2, padding=1)


def transposed(weight: Tensor) -> Tensor:
    """The weight of a transposed convolution 4 x 4 for that (O, I, 3, 3) of one over doubled numbers."""
    taps = torch.tensor(TAPS, device=weight.device)
    new = torch.einsum("ah,bw,oihw->ioab", taps, taps, weight.detach().float())
    return new.to(weight).contiguous(memory_format=torch.channels_last)


class NarrowConv(nn.Conv2d):
    """A convolution 3 x 3, over few columns as a product."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > NARROW:
            return super().forward(x)
        taps = nnf.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return nnf.linear(taps.permute(0, 1, 2, 4, 5, 3).flatten(3), weight, self.bias).permute(0, 3, 1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v of (B, heads, N, D): by plain products on a CPU, by parts, and of wide heads."""
    on_cpu = q.device.type == "cpu"
    if not on_cpu and (q.shape[-1] <= WIDEST or q.shape[2] > LONGEST):
        return nnf.scaled_dot_product_attention(q, k, v)
    rows = max(1, SCORES // k.shape[:3].numel()) if on_cpu else q.shape[2]
    with torch.autocast(q.device.type, enabled=False):
        parts = [(part @ k.mT).softmax(-1) @ v for part in (q * scale).split(rows, -2)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


class OneProduct(AttnProcessor2_0):
    """Self-attention whose projections are one product, by ``attention``."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, attention_mask: Any = None,
        temb: Any = None,
    ) -> Tensor:  # fmt: skip
        parts, x = (attn.to_q, attn.to_k, attn.to_v), hidden_states
        # an adapter in a projection's place is called as it is
        if not ({*map(type, parts)} == {nn.Linear} and encoder_hidden_states is attention_mask is None):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask)
        if attn.residual_connection:
            x = attn.group_norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        bias = None if attn.to_q.bias is None else torch.cat([part.bias for part in parts])
        joined = nnf.linear(x, torch.cat([part.weight for part in parts]), bias)
        q, k, v = joined.view(*x.shape[:2], 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
        y = attn.to_out[0](attention(q, k, v, attn.scale).transpose(1, 2).flatten(2))
        if attn.residual_connection:
            y = y.view(len(y), *hidden_states.shape[2:], -1).permute(0, 3, 1, 2) + hidden_states
        return y
