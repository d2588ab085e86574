"""The latent U-Net: one builder for FiLM, cross-attention, and both.   B batch, C channels, T frames, F bins.

AudioLDM's "FiLM" is additive: a projection of the CLAP vector beside the time embedding (arXiv:2301.12503 sec. 3).
Without token context the second attention of each transformer block attends to the latent itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from diffusers import AudioLDM2UNet2DConditionModel, UNet2DConditionModel
from torch import Tensor, nn

from audioldm.batch import Condition

Kind = Literal["film", "cross", "both"]
NetCall = Callable[..., Tensor]
NAMES = {"film": "a vector (film)", "tokens": "tokens", "tokens2": "two token sequences"}
LatentUNet: TypeAlias = UNet2DConditionModel | AudioLDM2UNet2DConditionModel


@dataclass(frozen=True)
class UNetSizes:
    """The sizes of a latent U-Net; as it stands, AudioLDM-S's.   Raises ValueError for contexts that no net can have.

    ``head_channels`` is the width of one head, ``heads`` their number; ``depth`` blocks a transformer; ``attention`` at
    which levels (None: all but the first); ``linear`` layers around transformers.   ``contexts`` is AudioLDM 2's:
    one transformer each, the width of the tokens that it attends to, or None for the latent itself.
    """

    channels: Sequence[int] = (128, 256, 384, 640)
    latent_channels: int = 8
    layers: int = 2
    head_channels: int = 32
    heads: Sequence[int] | int | None = None
    film_dim: int | None = 512
    context_dim: int = 1024
    contexts: Sequence[int | None] | None = None
    depth: int = 1
    groups: int = 32
    sample_size: int = 128
    attention: Sequence[bool] | None = None
    linear: bool = False

    def __post_init__(self) -> None:
        if self.contexts and sum(width is not None for width in self.contexts) > 2:
            raise ValueError(f"contexts={tuple(self.contexts)}: at most two may have a width")


def build_unet(kind: Kind = "film", **sizes: Any) -> LatentUNet:
    """A U-Net of ``UNetSizes``, attending in the middle, too.   Defaults: AudioLDM-S, 185.04 M.   Raises ValueError."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r}: choose film, cross or both")
    shape = UNetSizes(**sizes)
    attends = shape.attention or [level > 0 for level in range(len(shape.channels))]
    down = ["CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attends]
    settings: dict[str, Any] = {
        "sample_size": shape.sample_size, "in_channels": shape.latent_channels, "out_channels": shape.latent_channels,
        "down_block_types": tuple(down), "up_block_types": tuple(name.replace("Down", "Up") for name in down[::-1]),
        "block_out_channels": tuple(shape.channels), "layers_per_block": shape.layers, "norm_num_groups": shape.groups,
        "attention_head_dim": shape.heads or tuple(max(1, n // shape.head_channels) for n in shape.channels),
        "transformer_layers_per_block": shape.depth, "use_linear_projection": shape.linear,
    }  # fmt: skip
    if kind != "cross":
        settings |= {"class_embed_type": "simple_projection", "class_embeddings_concat": True}
        settings["projection_class_embeddings_input_dim"] = shape.film_dim
    if shape.contexts is not None:
        widths = [tuple(shape.contexts)] * len(shape.channels)
        return AudioLDM2UNet2DConditionModel(cross_attention_dim=widths, **settings)
    width = tuple(shape.channels) if kind == "film" else shape.context_dim
    return UNet2DConditionModel(cross_attention_dim=width, **settings)


def with_variance(unet: LatentUNet) -> LatentUNet:
    """``unet``, in place, with shares of its log variance as further channels, first 0.   arXiv:2102.09672 sec. 3.1."""
    if not learns_variance(unet):
        old: Any = unet.conv_out
        wide = nn.Conv2d(old.in_channels, 2 * old.out_channels, old.kernel_size, padding=old.padding)
        wide.to(old.weight)
        for name, value in wide.named_parameters():
            value.data.zero_()[: old.out_channels] = getattr(old, name).data
        unet.conv_out = wide
        unet.register_to_config(out_channels=wide.out_channels)
    return unet


def learns_variance(unet: LatentUNet) -> bool:
    """Whether a U-Net says its variance beside its prediction."""
    return bool(unet.config.out_channels == 2 * unet.config.in_channels)


def kind_of(unet: LatentUNet) -> Kind:
    """How a loaded U-Net is conditioned."""
    width, film = unet.config.cross_attention_dim, unet.config.class_embed_type == "simple_projection"
    if isinstance(unet, AudioLDM2UNet2DConditionModel):
        context = any(width[0])
    else:
        context = isinstance(width, int) or tuple(width) != tuple(unet.config.block_out_channels)
    return "both" if film and context else "film" if film else "cross"


def multiple_of(unet: LatentUNet) -> int:
    """Latent lengths must be multiples of this, because every level but the first halves them."""
    return 2 ** (len(unet.config.block_out_channels) - 1)


def net_call(unet: LatentUNet, *, variance: bool = False) -> NetCall:
    """As a function (x (B, C, T, F), t (B,), condition, **residuals) -> x's shape; ``variance``: all channels."""
    kind, width = kind_of(unet), unet.config.cross_attention_dim
    two = isinstance(unet, AudioLDM2UNet2DConditionModel) and sum(map(bool, width[0])) == 2
    channels = None if variance else unet.config.in_channels
    needed = {"film": kind != "cross", "tokens": kind != "film", "tokens2": two}

    def call(x: Tensor, t: Tensor, condition: Condition, **residuals: Tensor) -> Tensor:
        for name, needs in needed.items():
            if needs and getattr(condition, name) is None:
                raise ValueError(f"this U-Net is conditioned on {NAMES[name]}, but the condition has none")
        inputs = {"encoder_hidden_states": None, "class_labels": condition.film if needed["film"] else None}
        if needed["tokens"]:
            inputs |= {"encoder_hidden_states": condition.tokens, "encoder_attention_mask": condition.mask}
        if two:
            inputs["encoder_hidden_states_1"] = condition.tokens2
            inputs["encoder_attention_mask_1"] = condition.mask2
        return unet(x, t, **inputs, **residuals).sample[:, :channels]

    return call
