"""Float32 nets on matrix units that multiply bfloat16 (Intel AMX): every product as three.   arXiv:1904.06376.

A float32 number is cut into two bfloat16 numbers, x = hi + lo, and x w = hi hi + hi lo + lo hi, summed in float32:
some 5e-6 of the greatest value from the true sum, and two to three times as fast as float32 on such units.
B batch, C channels, H rows, W columns (one row for sound: time is W), N output channels, T tokens.
"""

import copy
from typing import Any, TypeVar

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.nets.machine.heap import release_weight_pages
from audioldm.nets.machine.kernel import load

Net = TypeVar("Net", bound=nn.Module)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)
FEWEST_ROWS = 16
"""a linear layer on fewer vectors waits for its weights, not for products"""
HELD = 64 * 2**20
"""bytes of a file's weights that may stay in memory after they were cut"""


class Split(nn.Module):
    """A layer with its weights cut in two; shares the layer's own weights, and runs it where the cut does not pay."""

    layer: Any
    read = 0
    """bytes of weights that were cut, and may be in memory twice"""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        load()
        self.layer = layer
        self.packed: dict[float, tuple[Tensor, Tensor, Tensor | None]] = {}
        self.turned = isinstance(layer, nn.ConvTranspose1d)
        self.stride = 1 if self.turned or isinstance(layer, nn.Linear) else layer.stride[-1]
        self.dilation = 1 if self.turned or isinstance(layer, nn.Linear) else layer.dilation[-1]
        self.pad: tuple[int, ...] = (0, 0, 0)  # above and below, left, right
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            sides: Any = layer.padding
            self.pad = (sides[0] if isinstance(layer, nn.Conv2d) else 0, sides[-1], sides[-1])

    @property
    def weight(self) -> Tensor:
        """The layer's."""
        return self.layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's."""
        return self.layer.bias

    def halves(self, factor: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """The cut weights, ``factor`` times as large, and the bias."""
        if factor not in self.packed:
            weight, bias = self.layer.weight.detach() * factor, self.layer.bias
            if isinstance(self.layer, nn.Linear):
                weight = weight[:, :, None, None]
            elif self.turned:
                weight, *sides = phases(weight, self.layer.stride[0], self.layer.padding[0])
                weight, self.pad = weight[:, :, None], (0, *sides)
                bias = None if bias is None else bias.repeat(self.layer.stride[0])
            elif isinstance(self.layer, nn.Conv1d):
                weight = weight[:, :, None]
            high = weight.bfloat16()
            self.packed = {factor: (pack(high), pack((weight - high.float()).bfloat16()), bias)}
            Split.read += self.layer.weight.nbytes
            if Split.read > HELD:
                release_weight_pages(self.layer)
                Split.read = 0
        return self.packed[factor]

    def picture(
        self, x: Tensor, factor: float = 1.0, slope: float = 1.0, plus: Tensor | None = None
    ) -> Tensor:
        """The layer on (B, C, H, W) after a leaky ReLU of ``slope``, weights times ``factor``, with ``plus`` added."""
        high, low, bias = self.halves(factor)
        above, before, after = self.pad
        if self.turned:
            (stride,), (padding,) = self.layer.stride, self.layer.padding
            length = (x.shape[-1] - 1) * stride - 2 * padding + self.layer.kernel_size[0]
            after += -(-length // stride) - x.shape[-1]
        y = torch.ops.audioldm_split.conv(
            x, high, low, bias, plus, self.stride, above, before, after, 1, self.dilation, slope
        )
        if not self.turned:
            return y
        batch, channels, _, columns = y.shape
        rows = y.permute(0, 2, 3, 1).reshape(batch, 1, columns * stride, channels // stride)
        return rows[:, :, :length].permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives, within float32 rounding."""
        if x.dtype != torch.float32 or torch.is_grad_enabled():
            return self.layer(x)
        if isinstance(self.layer, nn.Linear):
            if x.shape[:-1].numel() < FEWEST_ROWS:
                return nnf.linear(x, self.layer.weight, self.layer.bias)
            return of_rows(x, *self.halves(1.0))
        return self.picture(x) if x.dim() == 4 else self.picture(x[:, :, None])[:, :, 0]


def phases(weight: Tensor, stride: int, padding: int) -> tuple[Tensor, int, int]:
    """A transposed convolution's weight (C, N, K) as a plain one's, with the places it needs to the left and right.

    The plain one (S N, C, T) gives all S outputs of a place at once: output q S + r is the sum over t of
    x[q + t] w[r + p - t S], for stride S and padding p.

    >>> phases(torch.ones(1, 1, 4), 2, 1)[0][:, 0].tolist()
    [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]
    """
    size = weight.shape[-1]
    first, last = -((size - 1 - padding) // stride), (stride - 1 + padding) // stride
    out = weight.new_zeros(stride, weight.shape[1], weight.shape[0], last - first + 1)
    for r in range(stride):
        for t in range(first, last + 1):
            if 0 <= (k := r + padding - t * stride) < size:
                out[r, :, :, t - first] = weight[:, :, k].T
    return out.flatten(0, 1), -first, last


def of_rows(x: Tensor, high: Tensor, low: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer on vectors (..., C), whose weights were cut and packed."""
    rows = x.reshape(-1, x.shape[-1]).T[None, :, None]  # (1, C, 1, rows), channels innermost as they lie
    y = torch.ops.audioldm_split.conv(rows, high, low, bias, None, 1, 0, 0, 0, 1, 1, 1.0)
    return y[0, :, 0].T.reshape(*x.shape[:-1], -1)


def pack(weight: Tensor) -> Tensor:
    """(N, C, kh, kw) in bfloat16 to (blocks, kh, kw, C/2, block, 2): pairs of channels side by side."""
    n, c, high, wide = weight.shape
    block = next(size for size in (64, 32, 16) if n % size == 0)
    return weight.view(n // block, block, c // 2, 2, high, wide).permute(0, 4, 5, 2, 1, 3).contiguous()


def pays(layer: nn.Module) -> bool:
    """Whether the units can take this layer, and gain by it."""
    if isinstance(layer, nn.Linear):
        return fit(*layer.weight.shape)
    if not isinstance(layer, CONVOLUTIONS) or layer.groups != 1:
        return False
    n, c = layer.weight.shape[:2]
    if isinstance(layer, nn.ConvTranspose1d):
        return fit(c, n) and layer.dilation == (1,) and layer.output_padding == (0,)
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    even = len(set(layer.stride)) == 1 and (isinstance(layer, nn.Conv1d) or set(layer.dilation) == {1})
    return plain and even and fit(n, c) and (c >= 64 or layer.dilation[-1] == 1)


def fit(outputs: int, inputs: int) -> bool:
    """Whether the tiles of the units divide a weight of this size."""
    return outputs % 16 == 0 and inputs % 32 == 0


def split(net: Net) -> Net:
    """A copy of ``net`` with the same weights in the same memory, whose layers multiply in three products.

    The cut weights come on top, as many bytes as the layers' own; they are made at a layer's first use.
    """
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    twin = copy.deepcopy(net, shared)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if pays(child):
                setattr(module, name, Split(child))
    for module in twin.modules():
        if isinstance(module, Attention) and isinstance(module.to_q, Split) and alone(module):
            module.set_processor(SelfAttention())
        if type(module) is GEGLU and isinstance(module.proj, Split):
            module.__class__ = GatedInPlace
        if type(module) is ResnetBlock2D and isinstance(module.conv2, Split) and plain(module):
            module.__class__ = SummedBlock
    return twin


def alone(attention: Attention) -> bool:
    """Whether an attention is projections and a softmax, and nothing else."""
    same = attention.to_q.weight.shape == attention.to_k.weight.shape == attention.to_v.weight.shape
    bare = attention.group_norm is None and attention.norm_q is None and attention.spatial_norm is None
    return same and bare and not attention.residual_connection and attention.rescale_output_factor == 1


class SelfAttention:
    """diffusers' attention of a sequence to itself, its three projections in one; of another, as diffusers does it."""

    def __init__(self) -> None:
        self.plain = AttnProcessor2_0()
        self.packed: tuple[Tensor, Tensor, Tensor | None] | None = None

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Vectors (B, T, C) to vectors."""
        busy = any(value is not None for value in (*args, *kwargs.values()))
        few = hidden_states.shape[:-1].numel() < 16
        if busy or few or torch.is_grad_enabled() or hidden_states.dtype != torch.float32:
            return self.plain(attn, hidden_states, *args, **kwargs)
        if self.packed is None:
            parts = [layer.halves(1.0) for layer in (attn.to_q, attn.to_k, attn.to_v)]
            bias = None if parts[0][2] is None else torch.cat([part[2] for part in parts])
            self.packed = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), bias
            for layer in (attn.to_q, attn.to_k, attn.to_v):
                layer.packed.clear()
        batch, tokens, _ = hidden_states.shape
        q, k, v = (
            of_rows(hidden_states, *self.packed).view(batch, tokens, 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
        )
        attended = nnf.scaled_dot_product_attention(q, k, v, scale=attn.scale)
        return attn.to_out[0](attended.transpose(1, 2).flatten(2))


def plain(block: ResnetBlock2D) -> bool:
    """Whether a residual block only adds its time embedding and neither changes its size nor scales its output."""
    still = block.upsample is None and block.downsample is None and block.output_scale_factor == 1
    return still and block.time_embedding_norm == "default" and not block.skip_time_act


class SummedBlock(ResnetBlock2D):
    """diffusers' residual block, with the two sums taken where the terms are made."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:
        """The parent's result, within rounding."""
        inside = self.conv1(nnf.silu(self.norm1(input_tensor), inplace=not torch.is_grad_enabled()))
        if temb is not None and self.time_emb_proj is not None:
            inside = inside.add_(self.time_emb_proj(self.nonlinearity(temb))[:, :, None, None])
        inside = nnf.silu(self.norm2(inside), inplace=not torch.is_grad_enabled())
        beside = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        if torch.is_grad_enabled() or inside.dtype != torch.float32:
            return beside + self.conv2(inside)
        return self.conv2.picture(inside, plus=beside)


class GatedInPlace(GEGLU):
    """diffusers' gated layer, its product written over the gate, which saves an allocation."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The parent's result."""
        if torch.is_grad_enabled():
            return super().forward(hidden_states, *args, **kwargs)
        hidden, gate = self.proj(hidden_states).chunk(2, dim=-1)
        return self.gelu(gate).mul_(hidden)
