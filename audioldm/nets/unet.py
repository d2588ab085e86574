"""The latent U-Net: one builder for FiLM, cross-attention, and both.   B batch, C channels, T frames, F bins.

AudioLDM's "FiLM" is additive: the CLAP vector goes through one linear layer, is concatenated to the time embedding, and
every residual block adds a projection of the two (arXiv:2301.12503 sec. 3; diffusers: class_embed_type
"simple_projection", class_embeddings_concat).   Where there is no token context, the second attention of each
transformer block attends to the latent itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from diffusers import AudioLDM2UNet2DConditionModel, UNet2DConditionModel
from torch import Tensor

from audioldm.batch import Condition

Kind = Literal["film", "cross", "both"]
NetCall = Callable[..., Tensor]
LatentUNet: TypeAlias = UNet2DConditionModel | AudioLDM2UNet2DConditionModel


def build_unet(
    kind: Kind = "film",
    *,
    channels: Sequence[int] = (128, 256, 384, 640),
    latent_channels: int = 8,
    layers: int = 2,
    head_channels: int = 32,
    heads: Sequence[int] | int | None = None,
    film_dim: int | None = 512,
    context_dim: int = 1024,
    contexts: Sequence[int | None] | None = None,
    depth: int = 1,
    groups: int = 32,
    sample_size: int = 128,
    attention: Sequence[bool] | None = None,
    linear: bool = False,
) -> LatentUNet:
    """Attention on every level but the first, and in the middle. Defaults with "film": AudioLDM-S, 185.04 M parameters.

    ``head_channels`` is the width of one head; diffusers' argument ``attention_head_dim`` is, against its name, the
    number of heads, so it is derived per level, unless ``heads`` gives it.   ``depth``: blocks a transformer.
    ``attention`` says at which levels (Stable Diffusion's family: all but the last); ``linear`` lets transformers go in
    and out through linear layers.

    ``contexts`` gives AudioLDM 2's U-Net: after each residual block one transformer for each, in order; a context is
    the width of the tokens that it attends to, or None for the latent itself.   (None, 768, 1024) is AudioLDM 2,
    (None, 1024) its text-only relative, both of kind "cross"; (None, None) of kind "film" the 48 kHz AudioLDM.
    Raises ValueError for an unknown kind, or more than two widths.
    """
    if kind not in ("film", "cross", "both"):
        raise ValueError(f"kind={kind!r}: choose film, cross or both")
    if sum(width is not None for width in contexts or ()) > 2:
        raise ValueError(f"contexts={tuple(contexts or ())}: at most two may have a width")
    attends = [i > 0 for i in range(len(channels))] if attention is None else list(attention)
    down = ["CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attends]
    settings: dict[str, Any] = {
        "sample_size": sample_size,
        "in_channels": latent_channels,
        "out_channels": latent_channels,
        "down_block_types": tuple(down),
        "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(down)),
        "block_out_channels": tuple(channels),
        "layers_per_block": layers,
        "attention_head_dim": heads or tuple(max(1, width // head_channels) for width in channels),
        "transformer_layers_per_block": depth,
        "norm_num_groups": groups,
        "use_linear_projection": linear,
    }
    if kind != "cross":
        settings |= {
            "class_embed_type": "simple_projection",
            "class_embeddings_concat": True,
            "projection_class_embeddings_input_dim": film_dim,
        }
    if contexts is not None:
        widths = [tuple(contexts)] * len(channels)
        return AudioLDM2UNet2DConditionModel(cross_attention_dim=widths, **settings)
    width = tuple(channels) if kind == "film" else context_dim
    return UNet2DConditionModel(cross_attention_dim=width, **settings)


def kind_of(unet: LatentUNet) -> Kind:
    """How a loaded U-Net is conditioned."""
    film = unet.config.class_embed_type == "simple_projection"
    if isinstance(unet, AudioLDM2UNet2DConditionModel):
        context = bool(widths_of(unet))
        return "both" if film and context else "film" if film else "cross"
    width = unet.config.cross_attention_dim
    context = isinstance(width, int) or tuple(width) != tuple(unet.config.block_out_channels)
    return "both" if film and context else "film" if film else "cross"


def widths_of(unet: AudioLDM2UNet2DConditionModel) -> tuple[int, ...]:
    """Width of each token sequence that AudioLDM 2's U-Net is given."""
    contexts = unet.config.cross_attention_dim[0]
    return tuple(width for width in contexts if width is not None)


def multiple_of(unet: LatentUNet) -> int:
    """Latent lengths must be multiples of this, because every level but the first halves them."""
    return 2 ** (len(unet.config.block_out_channels) - 1)


def net_call(unet: LatentUNet) -> NetCall:
    """The U-Net as a function (x (B, C, T, F), t (B,), condition, **residuals) -> (B, C, T, F)."""
    kind = kind_of(unet)
    two = isinstance(unet, AudioLDM2UNet2DConditionModel) and len(widths_of(unet)) == 2

    def call(x: Tensor, t: Tensor, condition: Condition, **residuals: Tensor) -> Tensor:
        if kind != "cross" and condition.film is None:
            raise ValueError("this U-Net is conditioned on a vector (film), but the condition has none")
        if kind != "film" and condition.tokens is None:
            raise ValueError("this U-Net is conditioned on tokens, but the condition has none")
        if two and condition.tokens2 is None:
            raise ValueError("this U-Net is conditioned on two token sequences, but the condition has one")
        second = {"encoder_hidden_states_1": condition.tokens2, "encoder_attention_mask_1": condition.mask2}
        return unet(
            x,
            t,
            encoder_hidden_states=None if kind == "film" else condition.tokens,
            encoder_attention_mask=None if kind == "film" else condition.mask,
            class_labels=None if kind == "cross" else condition.film,
            **(second if two else {}),
            **residuals,
        ).sample

    return call
