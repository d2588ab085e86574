"""The original's first stage: the mel autoencoder and the HiFi-GAN vocoder, CompVis' names and shapes to ours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.convert.names import count, need, rename
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State, modern_attention, read_json

VAE, VOCODER = "VAE", "vocoder"
PREFIX = "first_stage_model."
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
INNER = ("norm1", "norm2", "conv1", "conv2")
TRAINING = (r"loss\..+",)
"""LPIPS and the discriminator of the autoencoder's training"""
VOCODER_NAMES = {
    "conv_pre": "conv_pre", "conv_post": "conv_post", "ups.*": "upsampler.*",
    "resblocks.*.convs1.*": "resblocks.*.convs1.*", "resblocks.*.convs2.*": "resblocks.*.convs2.*",
}  # fmt: skip
RATES = {
    (16, 16, 8, 4, 4): ((5, 4, 2, 2, 2), 16000),
    (12, 10, 8, 4, 4): ((6, 5, 4, 2, 2), 48000),
}
"""upsampling rates and sampling rate of the published vocoders, by their kernels"""


@dataclass(frozen=True)
class VaeShape:
    """The shape of an autoencoder, as its weights say it."""

    channels: tuple[int, ...]
    layers: int
    latent_channels: int


def vae_shape(state: State) -> VaeShape:
    """The shape of an autoencoder in CompVis names.   Raises AudioLDMError where a tensor of it is missing."""
    channels = tuple(
        need(state, f"encoder.down.{i}.block.0.conv1.weight", 4, part=VAE).shape[0]
        for i in range(max(1, count(state, "encoder.down.")))
    )
    latent = need(state, "post_quant_conv.weight", 4, part=VAE).shape[1]
    return VaeShape(channels, count(state, "encoder.down.0.block."), latent)


def vae_names(levels: int) -> dict[str, str]:
    """The table for an autoencoder: the decoder's levels are counted from the other end."""
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side, down, sampler in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        table |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        table[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        middle = f"{side}.mid_block"
        for name in INNER:
            table |= {f"{side}.mid.block_{i}.{name}": f"{middle}.resnets.{i - 1}.{name}" for i in (1, 2)}
        table |= {f"{side}.mid.attn_1.{a}": f"{middle}.attentions.0.{b}" for a, b in ATTENTION.items()}
        for i in range(levels):
            level = i if side == "encoder" else levels - 1 - i
            theirs, ours = f"{side}.{down}.{i}", f"{side}.{down}_blocks.{level}"
            table |= {f"{theirs}.block.*.{name}": f"{ours}.resnets.*.{name}" for name in INNER}
            table[f"{theirs}.block.*.nin_shortcut"] = f"{ours}.resnets.*.conv_shortcut"
            table[f"{theirs}.{sampler}.conv"] = f"{ours}.{sampler}rs.0.conv"
    return table


def convert_vae(state: State, shape: VaeShape) -> State:
    """diffusers' names; the attention's 1 x 1 convolutions become matrices."""
    table = vae_names(len(shape.channels))
    return modern_attention(rename(state, table, part=VAE, prefix=PREFIX, drop=TRAINING))


@dataclass(frozen=True)
class HifiganShape:
    """The shape of a vocoder, as its weights and the published configurations say it."""

    mels: int
    channels: int
    upsample: tuple[int, ...]
    upsample_kernels: tuple[int, ...]
    kernels: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    rate: int


def plain(state: Mapping[str, Tensor]) -> State:
    """A generator's weights without the wrappers of training: torch.compile, DistributedDataParallel, weight norm.

    Weight norm: w = g v / |v|, the norm over all axes but the first.   Salimans & Kingma 2016.
    """
    state = {re.sub(r"^(_orig_mod\.|module\.)+", "", key): value for key, value in state.items()}
    folded: State = {}
    for key, value in state.items():
        if match := re.fullmatch(r"(.+)\.(weight_v|parametrizations\.weight\.original1)", key):
            size = ("weight_g", "parametrizations.weight.original0")[match[2] != "weight_v"]
            g = need(state, f"{match[1]}.{size}", part=VOCODER)
            norm = torch.linalg.vector_norm(value, dim=tuple(range(1, value.dim())), keepdim=True)
            folded[f"{match[1]}.weight"] = g * value / norm
        elif not re.search(r"\.(weight_g|parametrizations\.weight\.original0)$", key):
            folded[key] = value
    return folded


def vocoder_shape(state: State, path: Path) -> HifiganShape:
    """The shape of plain weights; HiFi-GAN's own JSON beside ``path`` says it where the kernels are not published ones.

    Raises AudioLDMError where a tensor of it is missing, or the rates cannot be known.
    """
    before = need(state, "conv_pre.weight", 3, part=VOCODER)
    stages = count(state, "ups.")
    widths = tuple(need(state, f"ups.{i}.weight", 3, part=VOCODER).shape[-1] for i in range(stages))
    branches = count(state, "resblocks.") // max(stages, 1)
    kernels = tuple(
        need(state, f"resblocks.{i}.convs1.0.weight", 3, part=VOCODER).shape[-1] for i in range(branches)
    )
    config = read_config(path.with_suffix(".json"))
    if config is not None:
        rates, rate, dilations = config
    elif widths in RATES:
        rates, rate = RATES[widths]
        dilations = (tuple(range(1, 2 * count(state, "resblocks.0.convs1."), 2)),) * branches
    else:
        raise AudioLDMError(
            f"The vocoder's upsampling kernels {widths} are none of the published ones, and its rates are "
            "not in the weights.",
            "Put HiFi-GAN's JSON configuration beside the file, with the same name and .json.",
        )
    return HifiganShape(before.shape[1], before.shape[0], rates, widths, kernels, dilations, rate)


def read_config(path: Path) -> tuple[tuple[int, ...], int, tuple[tuple[int, ...], ...]] | None:
    """Upsampling rates, sampling rate and dilations of HiFi-GAN's own configuration; None if it is another file."""
    if not path.is_file():
        return None
    config = read_json(path)
    if "upsample_rates" not in config:
        return None
    needed = ("upsample_rates", "sampling_rate", "resblock_dilation_sizes")
    if missing := [key for key in needed if key not in config]:
        raise AudioLDMError(f"{path} lacks {', '.join(missing)}.", "Use HiFi-GAN's own configuration.")
    try:
        rates, rate = tuple(map(int, config["upsample_rates"])), int(config["sampling_rate"])
        return rates, rate, tuple(tuple(map(int, d)) for d in config["resblock_dilation_sizes"])
    except (TypeError, ValueError):
        raise AudioLDMError(
            f"{path} has values that are no numbers.", "Use HiFi-GAN's own configuration."
        ) from None


def convert_vocoder(state: State) -> State:
    """transformers' names for plain weights; its own input normalisation is the identity (mean 0, scale 1)."""
    renamed = rename(state, VOCODER_NAMES, part=VOCODER, prefix=f"{PREFIX}vocoder.")
    mels = need(renamed, "conv_pre.weight", 3, part=VOCODER).shape[1]
    return {**renamed, "mean": torch.zeros(mels), "scale": torch.ones(mels)}


def is_vocoder(state: Mapping[str, Any]) -> bool:
    """Whether these keys are a HiFi-GAN generator's."""
    return any(key.startswith("conv_pre.") for key in state)
