"""The mel autoencoder: CompVis names and shapes, and diffusers' old ones, to diffusers' of today."""

import re
from dataclasses import dataclass

from audioldm.convert.rules import Rule, State, count, drop, need, rename

PART = "VAE"
PREFIX = "first_stage_model."

ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
INNER = r"(norm1|norm2|conv1|conv2)"


@dataclass(frozen=True)
class VaeShape:
    """What the weights say."""

    channels: tuple[int, ...]
    layers: int
    latent_channels: int
    in_channels: int


def read_shape(state: State) -> VaeShape:
    """The shape of an autoencoder in CompVis names."""
    levels = count(state, r"encoder\.down\.(\d+)\.")
    channels = tuple(
        need(state, f"encoder.down.{i}.block.0.conv1.weight", part=PART).shape[0] for i in range(levels)
    )
    return VaeShape(
        channels=channels,
        layers=count(state, r"encoder\.down\.0\.block\.(\d+)\."),
        latent_channels=need(state, "post_quant_conv.weight", part=PART).shape[1],
        in_channels=need(state, "encoder.conv_in.weight", part=PART).shape[1],
    )


def rules(shape: VaeShape) -> list[Rule]:
    """CompVis to diffusers for an autoencoder of this shape: the decoder's levels are counted from the other end."""
    ends = r"\.(weight|bias)"
    table = [
        Rule(rf"((?:post_)?quant_conv){ends}", r"\1.\2"),
        Rule(rf"(encoder|decoder)\.(conv_in|conv_out){ends}", r"\1.\2.\3"),
        Rule(rf"(encoder|decoder)\.norm_out{ends}", r"\1.conv_norm_out.\2"),
        Rule(rf"(encoder|decoder)\.mid\.block_1\.{INNER}{ends}", r"\1.mid_block.resnets.0.\2.\3"),
        Rule(rf"(encoder|decoder)\.mid\.block_2\.{INNER}{ends}", r"\1.mid_block.resnets.1.\2.\3"),
    ]
    table += [
        Rule(rf"(encoder|decoder)\.mid\.attn_1\.{theirs}{ends}", rf"\1.mid_block.attentions.0.{ours}.\2")
        for theirs, ours in ATTENTION.items()
    ]
    levels = len(shape.channels)
    for i in range(levels):
        for side, theirs, ours in (
            ("encoder", f"down.{i}", f"down_blocks.{i}"),
            ("decoder", f"up.{i}", f"up_blocks.{levels - 1 - i}"),
        ):
            start = rf"{side}\.{re.escape(theirs)}"
            table += [
                Rule(rf"{start}\.block\.(\d+)\.{INNER}{ends}", rf"{side}.{ours}.resnets.\1.\2.\3"),
                Rule(
                    rf"{start}\.block\.(\d+)\.nin_shortcut{ends}",
                    rf"{side}.{ours}.resnets.\1.conv_shortcut.\2",
                ),
                Rule(rf"{start}\.downsample\.conv{ends}", rf"{side}.{ours}.downsamplers.0.conv.\1"),
                Rule(rf"{start}\.upsample\.conv{ends}", rf"{side}.{ours}.upsamplers.0.conv.\1"),
            ]
    return [*table, drop(r"loss\..+", "LPIPS and the discriminator of the training")]


def convert(state: State, shape: VaeShape) -> State:
    """diffusers' names; the attention's 1x1 convolutions become linear layers."""
    return flatten_attention(rename(state, rules(shape), part=PART, prefix=PREFIX))


def modernise(state: State) -> State:
    """A diffusers autoencoder of any age in today's names: the attention once said query, key, value, proj_attn."""
    new: State = {}
    for key, value in state.items():
        match = re.fullmatch(
            r"(.+mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", key
        )
        new[f"{match[1]}.{OLD_ATTENTION[match[2]]}.{match[3]}" if match else key] = value
    return flatten_attention(new)


def flatten_attention(state: State) -> State:
    """(C, C, 1, 1) weights of the attention as (C, C)."""
    return {
        key: value[:, :, 0, 0] if ".attentions." in key and value.dim() == 4 else value
        for key, value in state.items()
    }
