"""HiFi-GAN generators: names, weight normalisation, and the rates that the weights do not tell."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from audioldm.convert.rules import Rule, State, count, need, rename
from audioldm.errors import AudioLDMError

PART = "vocoder"
PREFIX = "first_stage_model.vocoder."

RULES = [
    Rule(r"(conv_pre|conv_post)\.(weight|bias)", r"\1.\2"),
    Rule(r"ups\.(\d+)\.(weight|bias)", r"upsampler.\1.\2"),
    Rule(r"(resblocks\.\d+\.convs[12]\.\d+)\.(weight|bias)", r"\1.\2"),
]
RATES = {
    (16, 16, 8, 4, 4): ((5, 4, 2, 2, 2), 16000),
    (12, 10, 8, 4, 4): ((6, 5, 4, 2, 2), 48000),
}
"""Upsampling rates and sampling rate of the published vocoders, by their kernels."""


@dataclass(frozen=True)
class HifiganShape:
    """What the weights and the published configurations say."""

    mels: int
    channels: int
    upsample: tuple[int, ...]
    upsample_kernels: tuple[int, ...]
    kernels: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    rate: int


def plain(state: State) -> State:
    """The generator's weights without the wrappers of training: torch.compile, DistributedDataParallel, weight norm.

    Weight norm: w = g v / |v|, the norm over all axes but the first.   Salimans & Kingma 2016.
    """
    state = {re.sub(r"^(_orig_mod\.|module\.)+", "", key): value for key, value in state.items()}
    folded: State = {}
    for key, value in state.items():
        if match := re.fullmatch(r"(.+)\.(weight_v|parametrizations\.weight\.original1)", key):
            size = ("weight_g", "parametrizations.weight.original0")[match[2] != "weight_v"]
            g = need(state, f"{match[1]}.{size}", part=PART)
            norm = torch.linalg.vector_norm(value, dim=tuple(range(1, value.dim())), keepdim=True)
            folded[f"{match[1]}.weight"] = g * value / norm
        elif not re.search(r"\.(weight_g|parametrizations\.weight\.original0)$", key):
            folded[key] = value
    return folded


def read_shape(state: State, config: dict[str, Any] | None = None) -> HifiganShape:
    """The shape of plain weights; ``config`` is HiFi-GAN's own JSON where the kernels are not a published set's."""
    pre = need(state, "conv_pre.weight", part=PART)
    ups = count(state, r"ups\.(\d+)\.")
    upsample_kernels = tuple(need(state, f"ups.{i}.weight", part=PART).shape[-1] for i in range(ups))
    many = count(state, r"resblocks\.(\d+)\.") // max(ups, 1)
    kernels = tuple(need(state, f"resblocks.{i}.convs1.0.weight", part=PART).shape[-1] for i in range(many))
    dilated = count(state, r"resblocks\.0\.convs1\.(\d+)\.")
    if config is not None:
        rates, rate = tuple(config["upsample_rates"]), int(config["sampling_rate"])
        dilations = tuple(tuple(d) for d in config["resblock_dilation_sizes"])
    elif upsample_kernels in RATES:
        rates, rate = RATES[upsample_kernels]
        dilations = (tuple(range(1, 2 * dilated, 2)),) * many
    else:
        raise AudioLDMError(
            f"The vocoder's upsampling kernels {upsample_kernels} are none of the published ones, and its rates are "
            "not in the weights.",
            "Put HiFi-GAN's JSON configuration beside the file, with the same name and .json.",
        )
    return HifiganShape(pre.shape[1], pre.shape[0], rates, upsample_kernels, kernels, dilations, rate)


def read_config(path: Path) -> dict[str, Any] | None:
    """HiFi-GAN's own configuration beside ``path``, if there is one."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        config = json.loads(beside.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AudioLDMError(f"{beside} is not valid JSON ({error}).", "Copy it again.") from None
    if not isinstance(config, dict) or "upsample_rates" not in config:
        return None  # some other file of that name
    needed = ("upsample_rates", "sampling_rate", "resblock_dilation_sizes")
    if missing := [key for key in needed if key not in config]:
        raise AudioLDMError(f"{beside} lacks {', '.join(missing)}.", "Use HiFi-GAN's own configuration.")
    return config


def convert(state: State) -> State:
    """transformers' names for plain weights; its own input normalisation is the identity (mean 0, scale 1)."""
    renamed = rename(state, RULES, part=PART, prefix=PREFIX)
    mels = need(renamed, "conv_pre.weight", part=PART).shape[1]
    return {**renamed, "mean": torch.zeros(mels), "scale": torch.ones(mels)}
