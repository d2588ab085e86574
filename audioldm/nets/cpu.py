"""Blocks of diffusers' nets as plain products and less work, for a CPU and where no flash kernel is good.

B batch, C channels, H rows, W columns, N tokens, D numbers of a head.
"""

import copy
from typing import Any, TypeVar

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as nnf

Net = TypeVar("Net", bound=nn.Module)
WIDEST, LONGEST = 256, 8192
"""numbers of a head that flash kernels take; tokens up to which all shares of wider ones are kept"""
SCORES = 2**24  # of an attention at a time, on a CPU
NARROW = 4  # columns up to which a CPU's convolution in bfloat16 is up to five times slower than a product
TAPS = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""which of three taps over doubled numbers add up to each of the four of a transposed convolution"""


def hasten(net: Net) -> Net:
    """A copy of ``net`` on the same weights whose blocks run so, for inference on a CPU; near it, not equal."""
    twin = copy.deepcopy(net, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())})
    for part in list(twin.modules()):
        if isinstance(part, Attention) and type(part.processor) is AttnProcessor2_0:
            part.set_processor(OneProduct())
        elif (
            type(part) is Upsample2D
            and part.interpolate
            and part.norm is None
            and type(part.conv) is nn.Conv2d
        ):
            part.weight, part.__class__ = transposed(part.conv.weight), TransposedUpsample
        elif type(part) is nn.Conv2d and (part.kernel_size, part.stride, part.padding) == (
            (3, 3),
            (1, 1),
            (1, 1),
        ):
            part.__class__ = NarrowConv
    return twin


class TransposedUpsample(Upsample2D):
    """Nearest neighbours and a convolution 3 x 3 as one transposed convolution 4 x 4: 4 products a number, not 9."""

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *_: Any, **__: Any) -> Tensor:
        if output_size is not None or hidden_states.shape[-1] <= NARROW:
            return super().forward(hidden_states, output_size)
        return nnf.conv_transpose2d(hidden_states, self.weight, self.conv.bias, stride=2, padding=1)


def transposed(weight: Tensor) -> Tensor:
    """The weight of a transposed convolution 4 x 4 for that (O, I, 3, 3) of one over doubled numbers."""
    taps = torch.tensor(TAPS, device=weight.device)
    new = torch.einsum("ah,bw,oihw->ioab", taps, taps, weight.detach().float())
    return new.to(weight).contiguous(memory_format=torch.channels_last)


class NarrowConv(nn.Conv2d):
    """A convolution 3 x 3, in bfloat16 over few columns as a product."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > NARROW or x.dtype != torch.bfloat16:
            return super().forward(x)
        taps = nnf.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return nnf.linear(taps.permute(0, 1, 2, 4, 5, 3).flatten(3), weight, self.bias).permute(0, 3, 1, 2)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v of (B, heads, N, D); by products for wide heads, and in bfloat16 on a CPU, by parts."""
    on_cpu = q.device.type == "cpu"
    if not (on_cpu and q.dtype == torch.bfloat16) and (q.shape[-1] <= WIDEST or q.shape[2] > LONGEST):
        return nnf.scaled_dot_product_attention(q, k, v)
    rows = max(1, SCORES // k.shape[:3].numel()) if on_cpu else q.shape[2]
    with torch.autocast(q.device.type, enabled=False):
        parts = [(part @ k.mT).softmax(-1) @ v for part in (q * scale).split(rows, -2)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


class OneProduct(AttnProcessor2_0):
    """Self-attention whose projections are one product, by ``attention``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        *_: Any,
    ) -> Tensor:
        parts, x = (attn.to_q, attn.to_k, attn.to_v), hidden_states
        # an adapter in a projection's place is called as it is
        plain = {*map(type, parts)} == {nn.Linear}
        if not (plain and encoder_hidden_states is attention_mask is None):
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
