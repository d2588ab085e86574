"""The original's first stage: the mel autoencoder and the HiFi-GAN vocoder, CompVis' names and shapes to ours."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from audioldm.convert.names import Net, Shapes, rename
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State, modern_attention, read_json
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.vae import build_vae

PREFIX = "first_stage_model."
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
INNER = ("norm1", "norm2", "conv1", "conv2")
TRAINING = (r"loss\..+",)  # LPIPS and the discriminator of the autoencoder's training
VOCODER_NAMES = {
    "conv_pre": "conv_pre", "conv_post": "conv_post", "ups.*": "upsampler.*",
    "resblocks.*.convs1.*": "resblocks.*.convs1.*", "resblocks.*.convs2.*": "resblocks.*.convs2.*",
}  # fmt: skip
RATES = {(16, 16, 8, 4, 4): ((5, 4, 2, 2, 2), 16000), (12, 10, 8, 4, 4): ((6, 5, 4, 2, 2), 48000)}
"""upsampling rates and sampling rate of the published vocoders, by their kernels"""
CONFIG = ("upsample_rates", "sampling_rate", "resblock_dilation_sizes")
"""what HiFi-GAN's own JSON says that its weights do not"""


def vae_net(state: State) -> Net:
    """An autoencoder in CompVis names.   Raises AudioLDMError where a tensor of it is missing."""
    shapes = Shapes(state, "VAE")
    levels = range(max(1, shapes.count("encoder.down.")))
    channels = tuple(shapes.size(f"encoder.down.{i}.block.0.conv1.weight", 4) for i in levels)
    config = {
        "channels": channels,
        "latent_channels": shapes.size("post_quant_conv.weight", 4, axis=1),
        "layers": shapes.count("encoder.down.0.block."),
        "groups": min(32, channels[0]),
    }
    ours = rename(state, vae_names(len(channels)), part="VAE", prefix=PREFIX, drop=TRAINING)
    return Net(modern_attention(ours), build_vae, config)


def vae_names(levels: int) -> dict[str, str]:
    """The table for an autoencoder: the decoder's levels are counted from the other end."""
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    ascending = range(levels)
    sides = ("encoder", "down", "downsample", ascending), ("decoder", "up", "upsample", ascending[::-1])
    for side, down, sampler, order in sides:
        table |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        table[f"{side}.norm_out"] = f"{side}.conv_norm_out"
        middle = f"{side}.mid_block"
        for name in INNER:
            table |= {f"{side}.mid.block_{i}.{name}": f"{middle}.resnets.{i - 1}.{name}" for i in (1, 2)}
        table |= {f"{side}.mid.attn_1.{a}": f"{middle}.attentions.0.{b}" for a, b in ATTENTION.items()}
        for i, level in enumerate(order):
            theirs, ours = f"{side}.{down}.{i}", f"{side}.{down}_blocks.{level}"
            table |= {f"{theirs}.block.*.{name}": f"{ours}.resnets.*.{name}" for name in INNER}
            table[f"{theirs}.block.*.nin_shortcut"] = f"{ours}.resnets.*.conv_shortcut"
            table[f"{theirs}.{sampler}.conv"] = f"{ours}.{sampler}rs.0.conv"
    return table


def unwrapped(state: Mapping[str, Tensor]) -> State:
    """Weights without the names that torch.compile and DistributedDataParallel put before theirs."""
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", key): value for key, value in state.items()}


def without_weight_norm(state: Mapping[str, Tensor]) -> State:
    """A generator's weights, folded: w = g v / |v|, the norm over all axes but the first.   Salimans & Kingma 2016."""
    shapes, folded = Shapes(state, "vocoder"), State()
    for key, value in state.items():
        if match := re.fullmatch(r"(.+)\.(weight_v|parametrizations\.weight\.original1)", key):
            size = ("weight_g", "parametrizations.weight.original0")[match[2] != "weight_v"]
            norm = torch.linalg.vector_norm(value, dim=tuple(range(1, value.dim())), keepdim=True)
            folded[f"{match[1]}.weight"] = shapes.tensor(f"{match[1]}.{size}") * value / norm
        elif not re.search(r"\.(weight_g|parametrizations\.weight\.original0)$", key):
            folded[key] = value
    return folded


def vocoder_net(state: State, path: Path) -> Net:
    """A HiFi-GAN; its own JSON beside ``path`` says the rates where the kernels are not published ones.

    Raises AudioLDMError where a tensor of it is missing, or the rates cannot be known.
    """
    state = without_weight_norm(unwrapped(state))
    shapes = Shapes(state, "vocoder")
    before, stages = shapes.tensor("conv_pre.weight", 3), shapes.count("ups.")
    widths = tuple(shapes.size(f"ups.{i}.weight", 3, axis=-1) for i in range(stages))
    branches = shapes.count("resblocks.") // max(stages, 1)
    config = read_config(path.with_suffix(".json"))
    if config is None and widths in RATES:
        dilations = (tuple(range(1, 2 * shapes.count("resblocks.0.convs1."), 2)),) * branches
        config = (*RATES[widths], dilations)
    if config is None:
        kernels_of = f"The vocoder's upsampling kernels {widths} are none of the published ones"
        hint = "Put HiFi-GAN's JSON configuration beside the file, with the same name and .json."
        raise AudioLDMError(f"{kernels_of}, and its rates are not in the weights.", hint)
    kernels = tuple(shapes.size(f"resblocks.{i}.convs1.0.weight", 3, axis=-1) for i in range(branches))
    mels, (rates, rate, dilations) = before.shape[1], config
    ours = rename(state, VOCODER_NAMES, part="vocoder", prefix=f"{PREFIX}vocoder.")
    sizes = {"mels": mels, "channels": before.shape[0], "rate": rate, "dilations": dilations}
    sizes |= {"upsample": rates, "upsample_kernels": widths, "kernels": kernels}
    return Net({**ours, "mean": torch.zeros(mels), "scale": torch.ones(mels)}, build_hifigan, sizes)


def read_config(path: Path) -> tuple[tuple[int, ...], int, tuple[tuple[int, ...], ...]] | None:
    """Upsampling rates, sampling rate and dilations of HiFi-GAN's own configuration; None if it is another file."""
    config = read_json(path) if path.is_file() else {}
    if CONFIG[0] not in config:
        return None
    try:
        rates, rate, dilations = (config[key] for key in CONFIG)
        return tuple(map(int, rates)), int(rate), tuple(tuple(map(int, d)) for d in dilations)
    except (KeyError, TypeError, ValueError) as error:
        hint = "Use HiFi-GAN's own configuration."
        raise AudioLDMError(f"{path} has no usable {', '.join(CONFIG)} ({error}).", hint) from None
