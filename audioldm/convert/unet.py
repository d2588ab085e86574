"""The U-Net of AudioLDM, AudioLDM 2 and Stable Diffusion's family: CompVis names and shapes to diffusers'."""

from collections.abc import Sequence
from dataclasses import replace

from audioldm.convert.names import Shapes, below, prefixes, rename, unexplained
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State
from audioldm.nets.unet import Kind, LatentUNet, UNetSizes, build_unet

PREFIX = "model.diffusion_model."
RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
TRANSFORMER = (  # the same names in both
    "norm", "proj_in", "proj_out",
    *(f"transformer_blocks.*.{name}" for name in (
        "norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2",
        *(f"attn{n}.to_{end}" for n in (1, 2) for end in ("q", "k", "v", "out.0")),
    )),
)  # fmt: skip
ENDS = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "film_emb": "class_embedding", "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip


def convert(state: State) -> tuple[State, UNetSizes]:
    """A U-Net in CompVis names (without ``PREFIX``) in diffusers', and its sizes, all but the number of heads."""
    shapes = Shapes(state, "U-Net", PREFIX)
    levels = len(prefixes(state, r"input_blocks\.\d+\.0\.op\.weight")) + 1
    layers = (shapes.count("input_blocks.") - levels) // levels
    ends = [level * (layers + 1) + layers for level in range(levels)]
    attention = tuple(f"input_blocks.{n}.1.proj_in.weight" in state for n in ends)
    contexts = (None,) * (shapes.count("middle_block.") - 2)
    layout = UNetSizes(channels=(0,) * levels, layers=layers, attention=attention, contexts=contexts)
    ours = rename(state, names(layout), part="U-Net", prefix=PREFIX)
    return ours, read_shape(ours)


def names(shape: UNetSizes) -> dict[str, str]:
    """The table for a U-Net of this shape: of residual blocks, of transformers, and of all else."""
    resnets, transformers, table = {}, {}, dict(ENDS)
    levels, layers, many = len(shape.channels), shape.layers, len(shape.contexts or ())
    attention = tuple(shape.attention or ())

    def block(theirs: str, ours: str, layer: int, here: int) -> None:
        """A residual block and the ``here`` transformers after it."""
        resnets[f"{theirs}.0"] = f"{ours}.resnets.{layer}"
        for j in range(here):
            transformers[f"{theirs}.{1 + j}"] = f"{ours}.attentions.{layer * many + j}"

    for n in range(levels * (layers + 1)):
        level, layer = divmod(n - 1, layers + 1)
        if n and layer < layers:
            block(f"input_blocks.{n}", f"down_blocks.{level}", layer, many * attention[level])
        elif n:
            table[f"input_blocks.{n}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        up, layer = divmod(n, layers + 1)
        here = many * attention[levels - 1 - up]
        block(f"output_blocks.{n}", f"up_blocks.{up}", layer, here)
        if layer == layers and up < levels - 1:
            table[f"output_blocks.{n}.{1 + here}.conv"] = f"up_blocks.{up}.upsamplers.0.conv"
    block("middle_block", "mid_block", 0, many)
    resnets[f"middle_block.{1 + many}"] = "mid_block.resnets.1"
    table |= {f"{t}.{inner}": f"{o}.{name}" for t, o in resnets.items() for inner, name in RESNET.items()}
    return table | {f"{t}.{inner}": f"{o}.{inner}" for t, o in transformers.items() for inner in TRANSFORMER}


def average(state: State) -> State:
    """The U-Net's moving average in CompVis names, found by the raw keys without their dots; empty if there is none."""
    flat = {("diffusion_model." + key).replace(".", ""): key for key in below(state, PREFIX)}
    shadow = {k: v for k, v in below(state, "model_ema.").items() if k not in ("decay", "num_updates")}
    if strange := sorted(shadow.keys() - flat.keys()):
        raise unexplained(f"model_ema.{strange[0]}")
    return {flat[key]: value for key, value in shadow.items()}


def heads(channels: Sequence[int]) -> tuple[int, ...]:
    """Attention heads a level of the published AudioLDMs: heads are 32 channels wide, 64 where the first level has 256.

    >>> heads((128, 256, 384, 640)), heads((192, 384, 576, 960)), heads((256, 512, 768, 1280))
    ((4, 8, 12, 20), (6, 12, 18, 30), (4, 8, 12, 20))
    """
    return tuple(max(1, channel // (64 if channels[0] >= 256 else 32)) for channel in channels)


def read_shape(state: State, prefix: str = "") -> UNetSizes:
    """The sizes of a U-Net in diffusers' names; ``contexts`` has an entry for each transformer of a block."""
    shapes, middle = Shapes(state, "U-Net", prefix), "mid_block.attentions"
    levels = range(max(1, shapes.count("down_blocks.")))
    channels = tuple(shapes.size(f"down_blocks.{i}.resnets.0.conv1.weight", 4) for i in levels)
    several = range(max(1, shapes.count(f"{middle}.")))
    keys = (f"{middle}.{j}.transformer_blocks.0.attn2.to_k.weight" for j in several)
    widths = (shapes.size(key, axis=1) for key in keys)
    return UNetSizes(
        channels=channels, latent_channels=shapes.size("conv_in.weight", 4, axis=1),
        layers=shapes.count("down_blocks.0.resnets."), depth=shapes.count(f"{middle}.0.transformer_blocks."),
        attention=tuple(shapes.count(f"down_blocks.{i}.attentions.") > 0 for i in levels),
        contexts=tuple(None if width == channels[-1] else width for width in widths),
        film_dim=shapes.size("class_embedding.weight", axis=1) if "class_embedding.weight" in state else None,
        linear=shapes.tensor(f"{middle}.0.proj_in.weight").dim() == 2,
    )  # fmt: skip


def build(shape: UNetSizes, heads: Sequence[int] | int) -> LatentUNet:
    """A U-Net of a checkpoint's shape with these heads a level.   Raises AudioLDMError for the shape of no model."""
    above = [True] * (len(shape.channels) - 1)
    if shape.attention not in ((False, *above), (*above, False)):
        what = f"The U-Net has attention at levels {shape.attention}."
        raise AudioLDMError(what, "Known: at all but the first, or but the last.")
    contexts = tuple(shape.contexts or ())
    width = next(filter(None, contexts), 0)
    if shape.film_dim is None and not width:
        raise AudioLDMError("The U-Net has no condition at all.", "Name a text-to-audio checkpoint.")
    kind: Kind = "film" if not width else "cross" if shape.film_dim is None else "both"
    several = contexts if len(contexts) > 1 else None
    return build_unet(kind, **vars(replace(shape, heads=heads, contexts=several, context_dim=width)))
