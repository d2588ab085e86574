"""diffusers' blocks and HiFi-GAN for a GPU: channels-last throughout, with few passes between products.

A convolution's bias goes into the norm or sum after it, a norm and its activation are one pass, three projections one
product.   Needs Triton.   B batch, C channels, H rows, W columns, T = H W tokens.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import SpeechT5HifiGan

from audioldm.nets import kernels
from audioldm.nets.pictures import transposed

Net = TypeVar("Net", bound=nn.Module)
FEW_ROWS = 8  # rows of a batch that leave a card half idle, and are run in other ways
FEW_TOKENS = 1024
FEW_PIXELS = 128
"""up to which attentions and convolutions are faster as kernels of our own and plain products"""
stream = cache(torch.cuda.Stream)


def fuse(net: Net) -> Net:
    """A copy of ``net`` on the same weights with fused blocks, for inference; those of another make stay."""
    twin = copy.deepcopy(net, {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())})
    for part in list(twin.modules()):
        if type(part) in BLOCKS and fusible(part):
            part.__class__ = BLOCKS[type(part)]
        if type(getattr(part, "conv_norm_out", None)) is nn.GroupNorm and type(part.conv_act) is nn.SiLU:
            part.conv_norm_out.__class__, part.conv_act = NormedSiLU, nn.Identity()
        if isinstance(part, Attention) and has(part, WIDE) and part.group_norm and part.inner_dim > 256:
            part.set_processor(WideAttention())
        if isinstance(net, SpeechT5HifiGan) and isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            part.weight.data = part.weight.mT.contiguous().mT  # channels last, for pictures of one row
    Shifts([part for part in twin.modules() if type(part) is FusedResnet and part.time_emb_proj])
    return twin


class Shifts:
    """What each residual block adds of the time's embedding, of all blocks by one product."""

    def __init__(self, blocks: Sequence[Any]) -> None:
        layers = [block.time_emb_proj for block in blocks]
        self.seen, self.sizes = torch.empty(0), [layer.out_features for layer in layers]
        if layers:
            self.weight = torch.cat([layer.weight for layer in layers])
            self.bias = torch.cat([layer.bias for layer in layers])
        for place, block in enumerate(blocks):
            block.shift = partial(self, place)

    def __call__(self, place: int, temb: Tensor) -> Tensor:
        if temb is not self.seen:  # once a call of the net
            self.seen = temb
            self.shifts = nnf.linear(nnf.silu(temb), self.weight, self.bias).split(self.sizes, dim=-1)
        return self.shifts[place]


class WideAttention:
    """Self-attention of a picture by one head that is too wide for flash kernels: products, softmax in float32."""

    def __call__(self, attention: Attention, x: Tensor, *_: Any, temb: Any = None, **__: Any) -> Tensor:
        batch, channels, height, width = x.shape
        inside = kernels.normed(x, attention.group_norm, silu=False)[0].permute(0, 2, 3, 1).flatten(1, 2)
        q, k, v = (layer(inside) for layer in (attention.to_q, attention.to_k, attention.to_v))
        q, out = q * attention.scale, attention.to_out[0]
        scores = torch.bmm(q, k.mT, out_dtype=torch.float32) if q.is_cuda else q @ k.mT
        y = nnf.linear(scores.softmax(-1).to(v.dtype) @ v, out.weight)
        return kernels.add(y.view(batch, height, width, channels).permute(0, 3, 1, 2), x, out.bias)


class NormedSiLU(nn.GroupNorm):
    """A group norm and the SiLU that follows it."""

    def forward(self, x: Tensor) -> Tensor:
        return kernels.normed(x, self, silu=True)[0]


class FusedResnet(ResnetBlock2D):
    """A residual block: three passes a norm, one for both biases and the sum."""

    shift: Callable[[Tensor], Tensor]

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        shift = None if temb is None or self.time_emb_proj is None else self.shift(temb)
        beside, bias, last = input_tensor, self.conv2.bias, self.conv_shortcut
        with aside(input_tensor) as join:
            if last is not None:
                beside = nnf.conv2d(beside, last.weight)
                bias = once(self, lambda: self.conv2.bias.float() + last.bias)
        x = convolved(input_tensor, self.norm1, self.conv1)
        x = convolved(x, self.norm2, self.conv2, bias=self.conv1.bias, shift=shift)
        join(beside)
        return kernels.add(x, beside, bias)


def convolved(x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d, **added: Any) -> Tensor:
    """A convolution without its bias of a norm's SiLU; of few pixels as a plain product, which splits up better."""
    batch, _, height, width = x.shape
    small = batch * height * width <= FEW_PIXELS and conv.kernel_size == (3, 3) and kernels.held(x, norm)
    inside = kernels.normed(x, norm, silu=True, taps=small, **added)[0]
    if not small:
        return nnf.conv2d(inside, conv.weight, padding=conv.padding)
    y = nnf.linear(inside, conv.weight.permute(0, 2, 3, 1).flatten(1))
    return y.view(batch, height, width, -1).permute(0, 3, 1, 2)


@contextmanager
def aside(x: Tensor) -> Iterator[Callable[[Tensor], None]]:
    """Run what is within beside what follows, for few rows x, until ``join`` is called with its answer."""
    if not x.is_cuda or len(x) > FEW_ROWS:
        yield lambda answer: None
        return
    side, main = stream(x.device), torch.cuda.current_stream()

    def join(answer: Tensor) -> None:
        main.wait_stream(side)
        answer.record_stream(main)

    side.wait_stream(main)
    with torch.cuda.stream(side):
        yield join


class FusedUpsample(Upsample2D):
    """Nearest neighbours and a convolution, without diffusers' way through another layout for large batches."""

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *_: Any, **__: Any) -> Tensor:
        if output_size is not None:
            return super().forward(hidden_states, output_size)
        x = hidden_states.permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        x = x[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        return self.conv(x.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2))


class TransposedUpsample(Upsample2D):
    """Nearest neighbours and a convolution 3 x 3 as one transposed convolution 4 x 4: 4 products a number, not 9."""

    def forward(self, hidden_states: Tensor, output_size: int | None = None, *_: Any, **__: Any) -> Tensor:
        if output_size is not None:
            return super().forward(hidden_states, output_size)
        weight = once(self, lambda: transposed(self.conv.weight))
        x = nnf.conv_transpose2d(hidden_states, weight, stride=2, padding=1)
        return kernels.add(x, None, self.conv.bias)


class FusedTransformer(Transformer2DModel):
    """Norm, projection in, blocks, projection out and the sum, on (B, T, C) views of channels-last pictures."""

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None, **_: Any,
    ) -> tuple[Tensor]:  # fmt: skip
        (batch, channels, height, width), y = hidden_states.shape, None
        x = kernels.normed(hidden_states, self.norm, silu=False)[0].permute(0, 2, 3, 1).flatten(1, 2)
        x = nnf.linear(x, self.proj_in.weight.flatten(1), self.proj_in.bias)
        *blocks, last = self.transformer_blocks
        for block in blocks:
            both = block(x, y, encoder_hidden_states, encoder_attention_mask)
            x, y = both[..., : x.shape[-1]], block.ff.net[2](both[..., x.shape[-1] :])
        weight, bias = once(self, self.merged)
        x = nnf.linear(last(x, y, encoder_hidden_states, encoder_attention_mask), weight)
        x = x.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return (kernels.add(x, hidden_states, bias),)

    def merged(self) -> tuple[Tensor, Tensor]:
        """The projection out, of a sum and of what the last gated layer adds to it, as one product."""
        out, last = self.proj_out.weight.flatten(1).float(), self.transformer_blocks[-1].ff.net[2]
        weight = torch.cat([out, out @ last.weight.float()], 1).to(last.weight)
        return weight, out @ last.bias.float() + self.proj_out.bias


class FusedBlock(BasicTransformerBlock):
    """Self-attention, attention and a gated layer's first product; each sum in one pass with the norm after it."""

    def forward(self, x: Tensor, y: Tensor | None, context: Tensor | None, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        """Of x + y (B, T, C): its sum with what the attentions add, and beside that the gated numbers."""
        gated, channels = self.ff.net[0].proj, x.shape[-1]
        x, normed = kernels.add_norm(x, y, self.norm1)
        x, normed = kernels.add_norm(x, attend(self.attn1, normed), self.norm2)
        both = x.new_empty(*x.shape[:-1], channels + gated.out_features // 2)
        y = attend(self.attn2, normed, context, mask)
        _, normed = kernels.add_norm(x, y, self.norm3, kept=both[..., :channels])
        kernels.gated(normed, gated, both[..., channels:])
        return both


class FusedTime(Timesteps):
    """The sines and cosines of a time, which are sines a quarter turn on, from a table of their rates."""

    def forward(self, timesteps: Tensor) -> Tensor:
        turns, rates = once(self, lambda: self.table(timesteps[:1].float()))
        return torch.addcmul(turns, timesteps[:, None].float(), rates).sin_()

    def table(self, t: Tensor) -> tuple[Tensor, Tensor]:
        zero, one = (super(FusedTime, self).forward(torch.full_like(t, at)).asin() for at in (0, 1))
        return zero, one[zero == 0].repeat(2)


def stackable(attention: Attention) -> bool:
    """Whether an attention is three projections of one shape without biases, and a softmax, and nothing else."""
    parts = attention.to_q, attention.to_k, attention.to_v
    linear = all(type(part) is nn.Linear and part.bias is None for part in parts)
    return linear and len({part.weight.shape for part in parts}) == 1 and has(attention, ALONE)


def attend(layer: Attention, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """An attention of x (B, T, C) to itself, its three projections one product; to a context as diffusers' own."""
    if context is not None or not stackable(layer):
        return layer(x, encoder_hidden_states=context, attention_mask=mask)
    (batch, tokens, _), parts = x.shape, (layer.to_q, layer.to_k, layer.to_v)
    packed = nnf.linear(x, once(layer, lambda: torch.cat([part.weight for part in parts])))
    width = packed.shape[-1] // 3 // layer.heads
    if batch <= FEW_ROWS and 16 <= tokens <= FEW_TOKENS and width in (16, 32, 64):
        return layer.to_out[0](kernels.attention(packed, layer.heads, layer.scale))
    q, k, v = packed.view(batch, tokens, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
    y = nnf.scaled_dot_product_attention(q, k, v, scale=layer.scale).transpose(1, 2).flatten(2)
    return layer.to_out[0](y)


def once(module: nn.Module, make: Callable[[], Any]) -> Any:
    """What ``make`` gives of a module's weights, made at its first call."""
    if "made" not in module.__dict__:
        module.__dict__["made"] = make()
    return module.__dict__["made"]


PLAIN: dict[type[nn.Module], dict[str, Any]] = {  # what the fused blocks take for granted of diffusers' own
    ResnetBlock2D: {"upsample": None, "downsample": None, "output_scale_factor": 1, "skip_time_act": False},
    Upsample2D: dict(use_conv=True, use_conv_transpose=False, norm=None, interpolate=True, name="conv"),
    Transformer2DModel: {"is_input_continuous": True}, Timesteps: {"scale": 1},
    BasicTransformerBlock: {"norm_type": "layer_norm", "pos_embed": None, "only_cross_attention": False},
}  # fmt: skip
ALONE = {
    "group_norm": None, "norm_q": None, "spatial_norm": None, "residual_connection": False, "rescale_output_factor": 1,
}  # fmt: skip
WIDE = {"heads": 1, "rescale_output_factor": 1, "residual_connection": True, "spatial_norm": None}
"""of the attention of the autoencoder's middle"""


def has(module: nn.Module, facts: dict[str, Any]) -> bool:
    return all(getattr(module, name) == value for name, value in facts.items())


def fusible(module: Any) -> bool:
    """Whether a block of diffusers is of the make that is fused."""
    kind = type(module)
    if not has(module, PLAIN[kind]):
        return False
    if kind is ResnetBlock2D:
        return usual_resnet(module)
    if kind is BasicTransformerBlock:  # two attentions and a GEGLU layer, each behind a layer norm
        first = module.ff.net[0]
        return module.attn2 is not None and type(first) is GEGLU and first.proj.bias is not None
    if kind is Transformer2DModel:
        square = module.proj_out.weight.shape[0] == module.config.in_channels
        return square and all(map(fusible, module.transformer_blocks))
    return True


def usual_resnet(block: Any) -> bool:
    """Whether a residual block is norms, SiLU and convolutions, at most with a vector added between."""
    layers, time = (block.conv1, block.conv2, block.conv_shortcut), block.time_emb_proj
    added = time is None or (type(time) is nn.Linear and block.time_embedding_norm == "default")
    biases = all(layer is None or layer.bias is not None for layer in layers)
    return added and biases and isinstance(block.nonlinearity, nn.SiLU)


BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    ResnetBlock2D: FusedResnet, Upsample2D: TransposedUpsample, Transformer2DModel: FusedTransformer,
    BasicTransformerBlock: FusedBlock, Timesteps: FusedTime,
}  # fmt: skip
