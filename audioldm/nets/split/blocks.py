"""A net whose layers are split, and the sums and projections around them joined.   B batch, T tokens, C width."""

import copy
from typing import Any, TypeVar

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.nets.split.layers import Split, of_rows, pays

Net = TypeVar("Net", bound=nn.Module)


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

    def __call__(self, attn: Attention, hidden_states: Tensor, *given: Any, **named: Any) -> Tensor:
        """Vectors (B, T, C) to vectors."""
        busy = any(value is not None for value in (*given, *named.values()))
        few = hidden_states.shape[:-1].numel() < 16
        if busy or few or torch.is_grad_enabled() or hidden_states.dtype != torch.float32:
            return self.plain(attn, hidden_states, *given, **named)
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
        seen = nnf.scaled_dot_product_attention(q, k, v, scale=attn.scale)
        return attn.to_out[0](seen.transpose(1, 2).flatten(2))


def plain(block: ResnetBlock2D) -> bool:
    """Whether a residual block only adds its time embedding and neither changes its size nor scales its output."""
    still = block.upsample is None and block.downsample is None and block.output_scale_factor == 1
    return still and block.time_embedding_norm == "default" and not block.skip_time_act


class SummedBlock(ResnetBlock2D):
    """diffusers' residual block, with the two sums taken where the terms are made."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:
        """As the parent's, within rounding."""
        inside = self.conv1(nnf.silu(self.norm1(input_tensor), inplace=not torch.is_grad_enabled()))
        if temb is not None and self.time_emb_proj is not None:
            inside = inside.add_(self.time_emb_proj(self.nonlinearity(temb))[:, :, None, None])
        inside = nnf.silu(self.norm2(inside), inplace=not torch.is_grad_enabled())
        beside = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        if torch.is_grad_enabled() or inside.dtype != torch.float32:
            return beside + self.conv2(inside)
        return self.conv2.picture(inside, plus=beside)


class GatedInPlace(GEGLU):
    """diffusers' gated layer, its product written over the gate: the same numbers, a fresh picture less."""

    def forward(self, hidden_states: Tensor, *given: Any, **named: Any) -> Tensor:
        """As the parent's."""
        if torch.is_grad_enabled():
            return super().forward(hidden_states, *given, **named)
        hidden, gate = self.proj(hidden_states).chunk(2, dim=-1)
        return self.gelu(gate).mul_(hidden)
