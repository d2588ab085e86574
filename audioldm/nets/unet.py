"""The latent U-Net: one builder for FiLM, cross-attention, and both.   B batch, C channels, T frames, F bins.

AudioLDM's "FiLM" is additive: the CLAP vector goes through one linear layer, is concatenated to the time embedding, and
every residual block adds a projection of the two (arXiv:2301.12503 sec. 3; diffusers: class_embed_type
"simple_projection", class_embeddings_concat).   Where there is no token context, the second attention of each
transformer block attends to the latent itself.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from diffusers import UNet2DConditionModel
from torch import Tensor

from audioldm.batch import Condition

Kind = Literal["film", "cross", "both"]
NetCall = Callable[..., Tensor]


def build_unet(
    kind: Kind = "film",
    *,
    channels: Sequence[int] = (128, 256, 384, 640),
    latent_channels: int = 8,
    layers: int = 2,
    head_channels: int = 32,
    heads: Sequence[int] | int | None = None,
    film_dim: int = 512,
    context_dim: int = 1024,
    depth: int = 1,
    groups: int = 32,
    sample_size: int = 128,
) -> UNet2DConditionModel:
    """Attention on every level but the first, and in the middle. Defaults with "film": AudioLDM-S, 185.04 M parameters.

    ``head_channels`` is the width of one head; diffusers' argument ``attention_head_dim`` is, against its name, the
    number of heads, so it is derived per level, unless ``heads`` gives it.   ``depth``: blocks a transformer.
    Raises ValueError for an unknown kind.
    """
    if kind not in ("film", "cross", "both"):
        raise ValueError(f"kind={kind!r}: choose film, cross or both")
    n = len(channels) - 1
    film = {
        "class_embed_type": "simple_projection",
        "class_embeddings_concat": True,
        "projection_class_embeddings_input_dim": film_dim,
    }
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * n,
        up_block_types=("CrossAttnUpBlock2D",) * n + ("UpBlock2D",),
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        attention_head_dim=heads or tuple(max(1, width // head_channels) for width in channels),
        cross_attention_dim=tuple(channels) if kind == "film" else context_dim,
        transformer_layers_per_block=depth,
        norm_num_groups=groups,
        **({} if kind == "cross" else film),
    )


def kind_of(unet: UNet2DConditionModel) -> Kind:
    """How a loaded U-Net is conditioned."""
    film = unet.config.class_embed_type == "simple_projection"
    width = unet.config.cross_attention_dim
    context = isinstance(width, int) or tuple(width) != tuple(unet.config.block_out_channels)
    return "both" if film and context else "film" if film else "cross"


def multiple_of(unet: UNet2DConditionModel) -> int:
    """Latent lengths must be multiples of this, because every level but the first halves them."""
    return 2 ** (len(unet.config.block_out_channels) - 1)


def net_call(unet: UNet2DConditionModel) -> NetCall:
    """The U-Net as a function (x (B, C, T, F), t (B,), condition, **residuals) -> (B, C, T, F)."""
    kind = kind_of(unet)

    def call(x: Tensor, t: Tensor, condition: Condition, **residuals: Tensor) -> Tensor:
        if kind != "cross" and condition.film is None:
            raise ValueError("this U-Net is conditioned on a vector (film), but the condition has none")
        if kind != "film" and condition.tokens is None:
            raise ValueError("this U-Net is conditioned on tokens, but the condition has none")
        return unet(
            x,
            t,
            encoder_hidden_states=None if kind == "film" else condition.tokens,
            encoder_attention_mask=None if kind == "film" else condition.mask,
            class_labels=None if kind == "cross" else condition.film,
            **residuals,
        ).sample

    return call
