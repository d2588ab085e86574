"""A whole checkpoint of the original code, or one part of it, sorted into its nets and translated.

Known: AudioLDM's six (s, m, l), AudioLDM 2's and its relatives' (48 kHz, T5), the training repository's latent
diffusion, VAE and HiFi-GAN files, LAION's CLAP.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from audioldm.convert import clap, hifigan, unet, vae
from audioldm.convert.conditioners import Conditioners, add_clap, add_conditioners, unexplained
from audioldm.convert.files import read_weights
from audioldm.convert.hifigan import HifiganShape
from audioldm.convert.rules import State, below
from audioldm.convert.unet import UNetShape
from audioldm.convert.vae import VaeShape
from audioldm.errors import AudioLDMError

Weights = Literal["ema", "raw"]

PARTS = (
    ("unet", r"model\.diffusion_model\."),
    ("ema", r"model_ema\."),
    ("vocoder", r"first_stage_model\.vocoder\."),
    ("vae", r"first_stage_model\."),
    ("condition", r"cond_stage_models?\.(?:\d+\.)?"),
    ("score", r"clap\."),
)
"""Where each net is in a whole checkpoint; the first that matches."""
SCHEDULE = re.compile(
    r"betas|logvar|lvlb_weights|(alphas_cumprod(_prev)?)|sqrt_\w*alphas_cumprod\w*|log_one_minus_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])"
)
"""Numbers of the noise schedule; all follow from ``betas``."""


@dataclass
class Checkpoint(Conditioners):
    """The nets of a file in today's names; what the file does not hold is None or empty."""

    unet: State = field(default_factory=dict)
    unet_shape: UNetShape | None = None
    vae: State = field(default_factory=dict)
    vae_shape: VaeShape | None = None
    vocoder: State = field(default_factory=dict)
    vocoder_shape: HifiganShape | None = None
    scale: float = 1.0
    betas: Tensor | None = None
    weights: Weights = "raw"
    """which weights the U-Net has"""


def read_checkpoint(path: Path, *, weights: Weights = "ema") -> Checkpoint:
    """Read and translate ``path``.   ``weights``: the moving average where there is one, or the raw ones.

    Raises AudioLDMError for a file that is damaged, of another kind, or has a key that no rule explains.
    """
    content = read_weights(path)
    state = tensors(content, path)
    if any(key.startswith(unet.PREFIX) for key in state):
        return read_whole(state, path, weights=weights)
    bare = {re.sub(r"^(_orig_mod\.|module\.)+", "", key): value for key, value in state.items()}
    found = Checkpoint()
    if any(key.startswith("conv_pre.") for key in bare):
        add_vocoder(found, bare, path)
    elif "encoder.conv_in.weight" in bare and "quant_conv.weight" in bare:
        add_vocoder(found, below(bare, "vocoder."), path)
        add_vae(found, {k: v for k, v in bare.items() if not k.startswith("vocoder.")})
    elif clap.is_clap(bare):
        add_clap(found, bare, "")
    else:
        raise AudioLDMError(
            f"{path} is no known checkpoint: its first key is {next(iter(state), 'none')!r}.",
            "Known: AudioLDM and its training repository (LDM, VAE, HiFi-GAN), LAION-CLAP.",
        )
    return found


def tensors(content: dict[str, Any], path: Path) -> State:
    """The weights of a file: below ``state_dict``, below ``generator`` (HiFi-GAN), or the table itself."""
    for name in ("state_dict", "generator", "model"):
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise AudioLDMError(f"{path} holds no tensors.", "Name a file of weights.")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def read_whole(state: State, path: Path, *, weights: Weights) -> Checkpoint:
    """A latent diffusion checkpoint with all its nets."""
    sorted_state = sort(state)
    found = Checkpoint()
    raw = sorted_state["unet"]
    average = unet.average(state)
    if average and weights == "ema":
        check_average(average, raw)
        raw = {**raw, **average}
        found.weights = "ema"
    found.unet_shape = unet.read_shape(raw)
    found.unet = unet.convert(raw, found.unet_shape)
    if sorted_state["vae"]:
        add_vae(found, sorted_state["vae"])
    if sorted_state["vocoder"]:
        add_vocoder(found, sorted_state["vocoder"], path)
    add_conditioners(found, state, sorted_state["score"])
    if "scale_factor" in state:
        found.scale = float(state["scale_factor"])
    found.betas = state.get("betas")
    return found


def sort(state: State) -> dict[str, State]:
    """The keys of a whole checkpoint by the net that they belong to, without its prefix."""
    found: dict[str, State] = {name: {} for name, _ in PARTS}
    for key, value in state.items():
        for name, prefix in PARTS:
            if match := re.match(prefix, key):
                found[name][key[match.end() :]] = value
                break
        else:
            if key != "scale_factor" and not SCHEDULE.fullmatch(key):
                raise unexplained(key)
    return found


def check_average(average: State, raw: State) -> None:
    """A moving average must cover the whole U-Net: half of one and half of the other is no model."""
    if missing := sorted(raw.keys() - average.keys()):
        raise AudioLDMError(
            f"The moving average lacks {missing[0]!r} ({len(missing)} of {len(raw)} keys).",
            "Use the raw weights (--weights raw).",
        )


def add_vae(found: Checkpoint, state: State) -> None:
    """Translate an autoencoder."""
    found.vae_shape = vae.read_shape(state)
    found.vae = vae.convert(state, found.vae_shape)


def add_vocoder(found: Checkpoint, state: State, path: Path) -> None:
    """Translate a vocoder, if there is one."""
    if not state:
        return
    state = hifigan.plain(state)
    found.vocoder_shape = hifigan.read_shape(state, hifigan.read_config(path))
    found.vocoder = hifigan.convert(state)
