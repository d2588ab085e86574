"""The original's first stage: the mel autoencoder and the HiFi-GAN vocoder, CompVis' names and shapes to ours."""

import re
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

from audioldm.convert.names import Net, Shapes, rename
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State, modern_attention, read_json
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.vae import build_vae

PREFIX = "first_stage_model."
ENDS = {"conv_in": "conv_in", "conv_out": "conv_out", "norm_out": "conv_norm_out"}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
INNER = {name: name for name in ("norm1", "norm2", "conv1", "conv2")} | {"nin_shortcut": "conv_shortcut"}
TRAINING = r"loss\..+"  # LPIPS and the discriminator of the autoencoder's training
VOCODER_NAMES = {
    "conv_pre": "conv_pre", "conv_post": "conv_post", "ups.*": "upsampler.*",
    "resblocks.*.convs1.*": "resblocks.*.convs1.*", "resblocks.*.convs2.*": "resblocks.*.convs2.*",
}  # fmt: skip
NORM = "parametrizations.weight.original"
WEIGHT_NORM = {f"{NORM}0": "weight_g", f"{NORM}1": "weight_v"}
"""today's and older names of a weight's length and direction"""
RATES: dict[tuple[int, ...], tuple[tuple[int, ...], int]]
RATES = {(16, 16, 8, 4, 4): ((5, 4, 2, 2, 2), 16000), (12, 10, 8, 4, 4): ((6, 5, 4, 2, 2), 48000)}
"""upsampling rates and sampling rate of the published vocoders, by their kernels"""


def vae_net(state: State) -> Net:
    """An autoencoder in CompVis names.   Raises AudioLDMError where a tensor of it is missing."""
    shapes = Shapes(state, "VAE")
    levels = range(max(1, shapes.count("encoder.down.")))
    channels = tuple(shapes.size(f"encoder.down.{i}.block.0.conv1.weight", 4) for i in levels)
    latent, layers = shapes.size("post_quant_conv.weight", 4, axis=1), shapes.count("encoder.down.0.block.")
    ours = rename(state, vae_names(len(channels)), part="VAE", prefix=PREFIX, drop=TRAINING)
    sizes = {"latent_channels": latent, "layers": layers, "groups": min(32, channels[0])}
    return Net(modern_attention(ours), build_vae, {"channels": channels, **sizes})


def vae_names(levels: int) -> dict[str, str]:
    """The table for an autoencoder: the decoder's levels are counted from the other end."""
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for side, down, sampler, step in ("encoder", "down", "downsample", 1), ("decoder", "up", "upsample", -1):
        middle = f"{side}.mid_block"
        table |= {f"{side}.{a}": f"{side}.{b}" for a, b in ENDS.items()}
        table |= {f"{side}.mid.attn_1.{a}": f"{middle}.attentions.0.{b}" for a, b in ATTENTION.items()}
        blocks = {f"{side}.mid.block_{i}": f"{middle}.resnets.{i - 1}" for i in (1, 2)}
        for i, level in enumerate(range(levels)[::step]):
            ours = f"{side}.{down}_blocks.{level}"
            blocks[f"{side}.{down}.{i}.block.*"] = f"{ours}.resnets.*"
            table[f"{side}.{down}.{i}.{sampler}.conv"] = f"{ours}.{sampler}rs.0.conv"
        table |= {f"{a}.{name}": f"{b}.{new}" for a, b in blocks.items() for name, new in INNER.items()}
    return table


def without_norm(state: State) -> State:
    """A vocoder's weights w = g v / |v| (Salimans & Kingma 2016), the norm over all axes but the first."""
    for new, old in WEIGHT_NORM.items():
        state = {key.replace(new, old): value for key, value in unwrapped(state).items()}
    for key in [key for key in state if key.endswith("weight_v")]:
        length, value = Shapes(state, "vocoder").tensor(f"{key[:-1]}g"), state.pop(key)
        norm = torch.linalg.vector_norm(value, dim=tuple(range(1, value.dim())), keepdim=True)
        state[key[:-2]] = length * value / norm
        del state[f"{key[:-1]}g"]
    return state


def vocoder_net(state: State, path: Path) -> Net:
    """A HiFi-GAN, weight norm folded; its JSON beside ``path`` says rates that are not published, or AudioLDMError."""
    state = without_norm(state)
    shapes = Shapes(state, "vocoder")
    channels, mels, _ = shapes.tensor("conv_pre.weight", 3).shape
    stages = shapes.count("ups.")
    widths = tuple(shapes.size(f"ups.{i}.weight", 3, axis=-1) for i in range(stages))
    branches = range(shapes.count("resblocks.") // max(stages, 1))
    beside, names = path.with_suffix(".json"), ("upsample_rates", "sampling_rate", "resblock_dilation_sizes")
    config = read_json(beside) if beside.is_file() else {}
    if names[0] not in config:
        if widths not in RATES:
            what = f"The vocoder's kernels {widths} are none of the published ones; its rates are not in the weights."
            raise AudioLDMError(what, f"Put HiFi-GAN's JSON configuration beside the file: {path.stem}.json.")
        usual = (tuple(range(1, 2 * shapes.count("resblocks.0.convs1."), 2)),) * len(branches)
        config = dict(zip(names, (*RATES[widths], usual), strict=True))
    try:
        rates, rate, dilations = itemgetter(*names)(config)
        sizes = {"upsample": tuple(map(int, rates)), "rate": int(rate)}
        sizes["dilations"] = tuple(tuple(map(int, dilation)) for dilation in dilations)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{beside} has no usable {', '.join(names)} ({error})."
        raise AudioLDMError(what, "Use HiFi-GAN's own configuration.") from None
    sizes |= {"mels": mels, "channels": channels, "upsample_kernels": widths}
    sizes["kernels"] = tuple(shapes.size(f"resblocks.{i}.convs1.0.weight", 3, axis=-1) for i in branches)
    ours = rename(state, VOCODER_NAMES, part="vocoder", prefix=f"{PREFIX}vocoder.")
    return Net({**ours, "mean": torch.zeros(mels), "scale": torch.ones(mels)}, build_hifigan, sizes)


def unwrapped(state: Mapping[str, Tensor]) -> State:
    """Weights without the names that torch.compile and DistributedDataParallel put before theirs."""
    return {re.sub(r"^(_orig_mod\.|module\.)+", "", key): value for key, value in state.items()}
