"""The nets that steer a U-Net: ControlNet and T2I-Adapter read a map, an IP-Adapter a sound as a prompt.

All end in layers of zeros: before any training the U-Net's answer is unchanged, bit by bit.   B batch, C channels,
T latent frames, F bins, D width of CLAP; a picture is (B, 1, T * stride, F * stride), stride mel cells a latent cell.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.utils._pytree import tree_map

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import Component
from audioldm.nets.unet import LatentUNet, kind_of

Residuals = dict[str, Any]
"""Keywords of the U-Net: down_block_additional_residuals, mid_block_additional_residual, or the intrablock ones."""


def joined(one: Residuals, other: Residuals) -> Residuals:
    """Sums where both add to the same place."""
    both = one.keys() & other.keys()
    return {**other, **one, **{name: tree_map(torch.add, one[name], other[name]) for name in both}}


def zeroed(layer: Any) -> Any:
    """A layer that adds nothing yet.   Zhang et al. 2023 (ControlNet) sec. 3.1."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ControlNet(Component):
    """A copy of the U-Net's encoder that sees the map too; zero convolutions bring it back.   arXiv:2302.05543 sec. 3.

    diffusers' ControlNetModel knows neither FiLM nor a context width per level.   With ``depth`` only the first so many
    levels are copied, and not the middle: the map reaches the U-Net through its decoder's last skips.
    """

    def __init__(
        self, unet: dict[str, Any], map: str, stride: int = 4, base: str = "", depth: int | None = None
    ) -> None:
        super().__init__()
        self.encoder = net = UNet2DConditionModel.from_config(unet)
        widths = net.config.block_out_channels
        depth = len(widths) if depth is None else depth
        if not 1 <= depth <= len(widths):
            raise ValueError(f"depth {depth} of a U-Net of {len(widths)} levels")
        self.see = nn.Sequential(
            nn.PixelUnshuffle(stride), nn.Conv2d(stride**2, widths[0], 3, padding=1), nn.SiLU(),
            zeroed(nn.Conv2d(widths[0], widths[0], 3, padding=1)),
        )  # fmt: skip
        net.up_blocks, net.conv_norm_out, net.conv_out = nn.ModuleList(), None, nn.Identity()
        net.down_blocks = net.down_blocks[:depth]
        count = 1 + depth * (net.config.layers_per_block + 1) - (depth == len(widths))
        self.zero = nn.ModuleList(zeroed(nn.Conv2d(width, width, 1)) for width, _ in skips_of(net)[:count])
        if depth < len(widths):
            net.mid_block = None
        else:
            self.zero_mid = zeroed(nn.Conv2d(widths[-1], widths[-1], 1))

    @classmethod
    def of(
        cls, unet: LatentUNet, map: str, *, stride: int, base: str = "", depth: int | None = None
    ) -> "ControlNet":
        """A ControlNet that begins as a copy of ``unet``, or of its first ``depth`` levels."""
        net = cls(unet=dict(unet.config), map=map, stride=stride, base=base, depth=depth)
        names = net.encoder.state_dict().keys()
        net.encoder.load_state_dict({k: v for k, v in unet.state_dict().items() if k in names})
        return net

    def residuals(self, x: Tensor, t: Tensor, condition: Condition, picture: Tensor) -> Residuals:
        """What to add to every skip connection and to the middle."""
        net = self.encoder
        emb, context = self.conditioned(x, t, condition)
        h = net.conv_in(x) + self.see(picture)
        skips = [h]
        for block in net.down_blocks:
            h, outputs = block(hidden_states=h, temb=emb, **(context if attends(block) else {}))
            skips += outputs
        added = [zero(s) for zero, s in zip(self.zero, skips, strict=True)]
        if net.mid_block is not None:
            middle = self.zero_mid(net.mid_block(h, emb, **context))
        else:  # the U-Net takes all of its skips or none
            sides, skips = x.shape[2:], skips_of(net)
            shapes = [(width, *(-(-side // 2**times) for side in sides)) for width, times in skips]
            added += [x.new_zeros(len(x), *shape) for shape in shapes[len(added) :]]
            middle = torch.zeros_like(added[-1])
        return {"down_block_additional_residuals": added, "mid_block_additional_residual": middle}

    def conditioned(self, x: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, dict[str, Any]]:
        """The encoder's embedding of time and vector, and the keywords with tokens, as the U-Net makes them."""
        net, kind = self.encoder, kind_of(self.encoder)
        emb = net.time_embedding(net.get_time_embed(x, t))
        if kind != "cross":
            film = net.get_class_embed(x, condition.film)
            emb = torch.cat([emb, film], -1) if net.config.class_embeddings_concat else emb + film
        tokens, mask = (None, None) if kind == "film" else (condition.tokens, condition.mask)
        bias = None if mask is None else (1 - mask[:, None].to(x)) * -10000.0
        return emb, {"encoder_hidden_states": tokens, "encoder_attention_mask": bias}


def attends(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))


def skips_of(unet: LatentUNet) -> list[tuple[int, int]]:
    """Width of each skip connection of a whole U-Net, and how often the latent was halved before it."""
    widths, layers = unet.config.block_out_channels, unet.config.layers_per_block
    skips = [(widths[0], 0)]
    for level, width in enumerate(widths):
        skips += [(width, level)] * layers
        skips += [(width, level + 1)] if level < len(widths) - 1 else []
    return skips


class T2IAdapter(Component):
    """A small pyramid over the map alone, added to the encoder's features once a level.   arXiv:2302.08453 sec. 3.2.

    diffusers' makes its first level at full size; one without attention takes the addition after its downsampling.
    """

    def __init__(
        self, levels: Sequence[int], map: str, stride: int, width: int = 64, layers: int = 1, base: str = ""
    ) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.PixelUnshuffle(stride), nn.Conv2d(stride**2, width, 3, padding=1))
        self.blocks, self.out = nn.ModuleList(), nn.ModuleList()
        for i, level in enumerate(levels):
            blocks: list[nn.Module] = [nn.Conv2d(width, width, 3, stride=2, padding=1)] if i != 1 else []
            blocks += [ResnetBlock2D(in_channels=width, temb_channels=None, groups=8) for _ in range(layers)]
            self.blocks.append(nn.ModuleList(blocks))
            self.out.append(zeroed(nn.Conv2d(width, level, 1)))

    @classmethod
    def of(cls, unet: LatentUNet, map: str, *, stride: int, base: str = "", **sizes: int) -> "T2IAdapter":
        """One of the levels of ``unet``: two at half its grid, each next at half of that; ``sizes``: width, layers."""
        if [attends(block) for block in unet.down_blocks] != [False, *[True] * (len(unet.down_blocks) - 1)]:
            raise ValueError("the adapter knows U-Nets with attention on every level but the first")
        levels = tuple(unet.config.block_out_channels)
        return cls(levels=levels, map=map, stride=stride, base=base, **sizes)

    def residuals(self, x: Tensor, t: Tensor, condition: Condition, picture: Tensor) -> Residuals:
        """What to add within each level."""
        h, added = self.see(picture), []
        for blocks, out in zip(self.blocks, self.out, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, None) if isinstance(block, ResnetBlock2D) else block(h)
            added.append(out(h))
        return {"down_intrablock_additional_residuals": added}


def second_attentions(unet: LatentUNet) -> list[Attention]:
    """The attention of every transformer block that looks at the text, or in a FiLM model at the latent again."""
    return [part for name, part in unet.named_modules() if name.endswith("attn2") and part is not None]


def widths_of(unet: LatentUNet) -> list[int]:
    """Widths of the keys of those attentions."""
    return [part.to_k.out_features for part in second_attentions(unet)]


class IPAdapter(Component):
    """CLAP's embedding of a sound as M tokens, keys and values for each second attention.   arXiv:2308.06721 sec. 3.2.

    Its answer is added to that of the U-Net's own attention, on the text or on the latent.   Values begin at zero.
    """

    def __init__(
        self, dim: int, widths: Sequence[int], tokens: int = 4, width: int = 128, base: str = ""
    ) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(dim, tokens * width), nn.Unflatten(-1, (tokens, width)))
        self.norm = nn.LayerNorm(width)
        self.to_k = nn.ModuleList(nn.Linear(width, inner, bias=False) for inner in widths)
        self.to_v = nn.ModuleList(zeroed(nn.Linear(width, inner, bias=False)) for inner in widths)

    def hook(self, index: int, sound: Tensor, scale: Tensor) -> Callable[..., Tensor]:
        """Add the attention on the sound's tokens (B, M, width) to the answer of attention ``index``."""

        def add(attn: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor:
            hidden = args[0] if args else kwargs["hidden_states"]  # (B, L, W)

            def split(values: Tensor) -> Tensor:
                return values.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

            q, k, v = map(split, (attn.to_q(hidden), self.to_k[index](sound), self.to_v[index](sound)))
            answer = nnf.scaled_dot_product_attention(q, k, v)
            return out + scale * nnf.linear(answer.transpose(1, 2).flatten(2), attn.to_out[0].weight)

        return add


UNITS = {"start": 0.1, "seconds": 0.1, "rate": 100.0, "loudness": 0.1, "clipping": 0.0001}
"""Facts of a window with the step that their sinusoids resolve: the second of its clip at which it starts, the clip's
seconds, rate in Hz, LUFS (its sign is dropped), and the share of its samples that are cut off."""


class MicroConditioning(Component):
    """Facts (B, 5) to vectors (B, dim) for ``Condition.film``, at first 0; ``usual`` are the training's medians."""

    def __init__(
        self, dim: int = 256, waves: int = 32, hidden: int = 128, usual: Sequence[float] = (0.0,) * len(UNITS)
    ) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(len(UNITS) * waves, hidden), zeroed(nn.Linear(hidden, dim))

    def forward(self, facts: Tensor) -> Tensor:
        values = (facts / facts.new_tensor(list(UNITS.values()))).abs().flatten()
        how = {"flip_sin_to_cos": True, "downscale_freq_shift": 0}
        waves = get_timestep_embedding(values, self.config.waves, **how)
        return self.outside(nn.functional.silu(self.inside(waves.reshape(len(facts), -1))))


def with_facts(condition: Condition, net: MicroConditioning, facts: Tensor) -> Condition:
    """``condition`` with the vectors of ``facts`` (B, 5), or (1, 5) for all, added to its film.

    Add them after the dropping of captions and to the empty prompt as well: SDXL drops the text alone, so guidance
    pushes away from the absent prompt and not from the facts.
    """
    if condition.film is None:
        raise AudioLDMError("Facts are added to a vector, and this U-Net reads none.", "Use one with film.")
    return replace(condition, film=condition.film + net(facts).to(condition.film))
