"""diffusers' residual and transformer blocks for a GPU: channels-last throughout, with few passes between products.

A convolution's bias goes into the norm or sum after it, a norm and its activation are one pass, three projections one
product.   Needs Triton.   B batch, C channels, H rows, W columns, T = H W tokens.
"""

import copy
from typing import Any, TypeVar

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.nets import kernels

Net = TypeVar("Net", bound=nn.Module)


def fuse(net: Net) -> Net:
    """A copy of ``net`` on the same weights with fused blocks, for inference; those of another make stay."""
    twin = copy.deepcopy(net, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())})
    for module in list(twin.modules()):
        for kind, fits, block in BLOCKS:
            if type(module) is kind and fits(module):
                module.__class__ = block
        if type(getattr(module, "conv_norm_out", None)) is nn.GroupNorm and type(module.conv_act) is nn.SiLU:
            module.conv_norm_out.__class__, module.conv_act = NormedSiLU, nn.Identity()
    return twin


class NormedSiLU(nn.GroupNorm):
    """A group norm and the SiLU that follows it."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.normed(x, self, silu=True)[0]


class FusedResnet(ResnetBlock2D):
    """A residual block: three passes a norm, one for both biases and the sum."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        shift = None
        if temb is not None and self.time_emb_proj is not None:
            shift = self.time_emb_proj(nnf.silu(temb))
        x = kernels.normed(input_tensor, self.norm1, silu=True)[0]
        x = nnf.conv2d(x, self.conv1.weight, padding=self.conv1.padding)
        x = kernels.normed(x, self.norm2, silu=True, bias=self.conv1.bias, shift=shift)[0]
        x = nnf.conv2d(x, self.conv2.weight, padding=self.conv2.padding)
        if self.conv_shortcut is None:
            return kernels.add(x, input_tensor, self.conv2.bias)
        beside = nnf.conv2d(input_tensor, self.conv_shortcut.weight)
        return kernels.add(x, beside, self.conv2.bias, self.conv_shortcut.bias)


class FusedUpsample(Upsample2D):
    """Nearest neighbours and a convolution, without diffusers' way through another layout for large batches."""

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *_: Any, **__: Any) -> Tensor:
        if output_size is not None:
            return super().forward(hidden_states, output_size)
        x = hidden_states.permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = x[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        return self.conv(x.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2))


class FusedTransformer(Transformer2DModel):
    """Norm, projection in, blocks, projection out and the sum, on (B, T, C) views of channels-last pictures."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor]:
        batch, channels, height, width = hidden_states.shape
        x = kernels.normed(hidden_states, self.norm, silu=False)[0].permute(0, 2, 3, 1).flatten(1, 2)
        x = nnf.linear(x, self.proj_in.weight.flatten(1), self.proj_in.bias)
        for block in self.transformer_blocks:
            x = block(x, encoder_hidden_states, encoder_attention_mask)
        x = nnf.linear(x, self.proj_out.weight.flatten(1))
        x = x.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return (kernels.add(x, hidden_states, self.proj_out.bias),)


class FusedBlock(BasicTransformerBlock):
    """Self-attention, attention and a gated layer; each sum in one pass with the norm after it."""

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        x, normed = kernels.add_norm(x, attend(self.attn1, self.norm1(x)), self.norm2)
        x, normed = kernels.add_norm(x, attend(self.attn2, normed, context, mask), self.norm3)
        inside = kernels.gate(self.ff.net[0].proj(normed))
        last = self.ff.net[2]
        return kernels.add(nnf.linear(inside, last.weight), x, last.bias)


def attend(
    attention: Attention, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """An attention of x (B, T, C) to itself, its three projections one product; to a context as diffusers' own."""
    if context is not None or not alone(attention):
        return attention(x, encoder_hidden_states=context, attention_mask=mask)
    packed = attention.__dict__.get("packed")
    if packed is None:
        packed = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
        attention.__dict__["packed"] = packed
    batch, tokens, _ = x.shape
    q, k, v = nnf.linear(x, packed).view(batch, tokens, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    y = nnf.scaled_dot_product_attention(q, k, v, scale=attention.scale).transpose(1, 2).flatten(2)
    return attention.to_out[0](y)


def alone(attention: Attention) -> bool:
    """Whether an attention is projections without biases and a softmax, and nothing else."""
    parts = attention.to_q, attention.to_k, attention.to_v
    linear = all(type(part) is nn.Linear and part.bias is None for part in parts)
    more = (attention.group_norm, attention.norm_q, attention.spatial_norm)
    plain = not attention.residual_connection and attention.rescale_output_factor == 1
    return linear and plain and more == (None, None, None) and len({part.weight.shape for part in parts}) == 1


def plain_resnet(block: ResnetBlock2D) -> bool:
    """Whether a residual block is norms, SiLU and convolutions, at most with a vector added between."""
    biases = all(
        layer is None or layer.bias is not None for layer in (block.conv1, block.conv2, block.conv_shortcut)
    )
    same_size = (block.upsample, block.downsample, block.output_scale_factor) == (None, None, 1)
    added = block.time_embedding_norm == "default" and not block.skip_time_act
    return same_size and added and biases and isinstance(block.nonlinearity, nn.SiLU)


def plain_upsample(layer: Upsample2D) -> bool:
    bare = layer.use_conv and not layer.use_conv_transpose and layer.norm is None
    return bare and layer.interpolate and layer.name == "conv"


def plain_transformer(net: Transformer2DModel) -> bool:
    """Whether all blocks of a transformer on pictures are fused, and its projections square."""
    square = net.proj_out.weight.shape[0] == net.config.in_channels
    return bool(net.is_input_continuous) and square and all(map(plain_block, net.transformer_blocks))


def plain_block(block: BasicTransformerBlock) -> bool:
    """Whether a transformer block is two attentions and a GEGLU layer, each behind a layer norm."""
    usual = block.norm_type == "layer_norm" and block.pos_embed is None and not block.only_cross_attention
    return usual and block.attn2 is not None and type(block.ff.net[0]) is GEGLU


BLOCKS = (
    (ResnetBlock2D, plain_resnet, FusedResnet),
    (Upsample2D, plain_upsample, FusedUpsample),
    (Transformer2DModel, plain_transformer, FusedTransformer),
    (BasicTransformerBlock, plain_block, FusedBlock),
)
