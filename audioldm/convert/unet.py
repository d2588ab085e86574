"""The U-Net of AudioLDM, AudioLDM 2 and Stable Diffusion's family: CompVis names and shapes to diffusers'.

An input or output block holds a residual block, then ``T`` transformers where there is attention.   AudioLDM: T = 1
without context.   AudioLDM 2: one self-attention transformer and one for each context.
"""

import re
from dataclasses import dataclass

from audioldm.convert.names import below, count, need, rename, unexplained
from audioldm.nets.folder import State

PART = "U-Net"
PREFIX = "model.diffusion_model."

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
TRANSFORMER = (
    "norm", "proj_in", "proj_out",
    *(f"transformer_blocks.*.{name}" for name in (
        "norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2",
        *(f"attn{n}.to_{end}" for n in (1, 2) for end in ("q", "k", "v", "out.0")),
    )),
)  # fmt: skip
"""the same names in both"""
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "film_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class UNetShape:
    """What can be read from the weights: all but the number of heads."""

    channels: tuple[int, ...]
    in_channels: int
    layers: int
    attention: tuple[bool, ...]
    contexts: tuple[int | None, ...]
    """one a transformer of a block: the width that its second attention looks at, None for the latent itself"""
    depth: int
    film_dim: int | None
    linear: bool = False
    """whether transformers go in and out through linear layers, not 1x1 convolutions"""


def read_shape(state: State) -> UNetShape:
    """The shape of a U-Net in CompVis names (without ``PREFIX``)."""
    first = need(state, "input_blocks.0.0.weight", 4, part=PART, prefix=PREFIX)
    blocks = count(state, "input_blocks.")
    downs = sorted(
        int(k.split(".")[1]) for k in state if re.fullmatch(r"input_blocks\.\d+\.0\.op\.weight", k)
    )
    levels = len(downs) + 1
    layers = (blocks - levels) // levels
    ends = [level * (layers + 1) + layers for level in range(levels)]
    channels = tuple(
        need(state, f"input_blocks.{n}.0.out_layers.3.weight", 4, part=PART, prefix=PREFIX).shape[0]
        for n in ends
    )
    attention = tuple(f"input_blocks.{n}.1.proj_in.weight" in state for n in ends)
    transformers = count(state, "middle_block.") - 2
    contexts = []
    for j in range(1, transformers + 1):
        key = f"middle_block.{j}.transformer_blocks.0.attn2.to_k.weight"
        width = need(state, key, 2, part=PART, prefix=PREFIX).shape[1]
        contexts.append(None if width == channels[-1] else width)
    film = need(state, "film_emb.weight", 2, part=PART, prefix=PREFIX) if "film_emb.weight" in state else None
    return UNetShape(
        channels=channels,
        in_channels=first.shape[1],
        layers=layers,
        attention=attention,
        contexts=tuple(contexts),
        depth=count(state, "middle_block.1.transformer_blocks."),
        film_dim=None if film is None else film.shape[1],
    )


def block_names(shape: UNetShape) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """CompVis prefix to diffusers prefix: of residual blocks, of transformers, and of all else."""
    resnets, transformers, others = {}, {}, dict(ENDS)
    levels, layers, many = len(shape.channels), shape.layers, len(shape.contexts)

    def attend(theirs: str, ours: str, layer: int, level: int) -> int:
        """Name the transformers after one residual block; returns how many there are."""
        here = many if shape.attention[level] else 0
        for j in range(here):
            transformers[f"{theirs}.{1 + j}"] = f"{ours}.attentions.{layer * many + j}"
        return here

    n = 0
    for level in range(levels):
        for layer in range(layers):
            n += 1
            resnets[f"input_blocks.{n}.0"] = f"down_blocks.{level}.resnets.{layer}"
            attend(f"input_blocks.{n}", f"down_blocks.{level}", layer, level)
        if level < levels - 1:
            n += 1
            others[f"input_blocks.{n}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
    resnets["middle_block.0"] = "mid_block.resnets.0"
    resnets[f"middle_block.{1 + many}"] = "mid_block.resnets.1"
    for j in range(many):
        transformers[f"middle_block.{1 + j}"] = f"mid_block.attentions.{j}"
    for n in range(levels * (layers + 1)):
        up, layer = divmod(n, layers + 1)
        resnets[f"output_blocks.{n}.0"] = f"up_blocks.{up}.resnets.{layer}"
        here = attend(f"output_blocks.{n}", f"up_blocks.{up}", layer, levels - 1 - up)
        if layer == layers and up < levels - 1:
            others[f"output_blocks.{n}.{1 + here}.conv"] = f"up_blocks.{up}.upsamplers.0.conv"
    return resnets, transformers, others


def names(shape: UNetShape) -> dict[str, str]:
    """The table for a U-Net of this shape."""
    resnets, transformers, others = block_names(shape)
    table = {f"{t}.{inner}": f"{o}.{name}" for t, o in resnets.items() for inner, name in RESNET.items()}
    table |= {f"{t}.{inner}": f"{o}.{inner}" for t, o in transformers.items() for inner in TRANSFORMER}
    return table | others


def convert(state: State, shape: UNetShape) -> State:
    """diffusers' names for a U-Net in CompVis names (without ``PREFIX``)."""
    return rename(state, names(shape), part=PART, prefix=PREFIX)


def average(state: State) -> State:
    """The moving average of the U-Net in a whole checkpoint, in CompVis names; empty where there is none.

    Its keys are the raw ones with every dot removed after ``model_ema.``, so they are found through the raw ones.
    """
    flat = {("diffusion_model." + key).replace(".", ""): key for key in below(state, PREFIX)}
    shadow = {k: v for k, v in below(state, "model_ema.").items() if k not in ("decay", "num_updates")}
    if strange := sorted(shadow.keys() - flat.keys()):
        raise unexplained(f"model_ema.{strange[0]}")
    return {flat[key]: value for key, value in shadow.items()}


def heads(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Attention heads a level of the published AudioLDMs: heads are 32 channels wide, 64 where the first level has 256.

    >>> heads((128, 256, 384, 640)), heads((192, 384, 576, 960)), heads((256, 512, 768, 1280))
    ((4, 8, 12, 20), (6, 12, 18, 30), (4, 8, 12, 20))
    """
    width = 64 if channels[0] >= 256 else 32
    return tuple(max(1, channel // width) for channel in channels)


def read_diffusers_shape(state: State) -> UNetShape:
    """The shape of a U-Net of Stable Diffusion's family in diffusers' names, as Tango has it."""

    def size(key: str, dims: int, axis: int) -> int:
        return int(need(state, key, dims, part=PART, prefix="unet.").shape[axis])

    levels = max(1, count(state, "down_blocks."))
    middle = "mid_block.attentions.0"
    return UNetShape(
        channels=tuple(size(f"down_blocks.{i}.resnets.0.conv1.weight", 4, 0) for i in range(levels)),
        in_channels=size("conv_in.weight", 4, 1),
        layers=count(state, "down_blocks.0.resnets."),
        attention=tuple(count(state, f"down_blocks.{i}.attentions.") > 0 for i in range(levels)),
        contexts=(size(f"{middle}.transformer_blocks.0.attn2.to_k.weight", 2, 1),),
        depth=count(state, f"{middle}.transformer_blocks."),
        film_dim=None,
        linear=need(state, f"{middle}.proj_in.weight", part=PART, prefix="unet.").dim() == 2,
    )
