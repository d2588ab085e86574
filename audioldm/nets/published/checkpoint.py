"""A whole checkpoint of the original code, or one part of it, sorted into its nets and translated.

Known: AudioLDM's six (s, m, l), the training repository's latent diffusion, VAE and HiFi-GAN files, LAION's CLAP.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.nets.published import clap, hifigan, t5, unet, vae
from audioldm.nets.published.files import read_weights
from audioldm.nets.published.hifigan import HifiganShape
from audioldm.nets.published.rules import State, below
from audioldm.nets.published.unet import UNetShape
from audioldm.nets.published.vae import VaeShape

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
class Checkpoint:
    """The nets of a file in today's names; what the file does not hold is None or empty."""

    unet: State = field(default_factory=dict)
    unet_shape: UNetShape | None = None
    vae: State = field(default_factory=dict)
    vae_shape: VaeShape | None = None
    vocoder: State = field(default_factory=dict)
    vocoder_shape: HifiganShape | None = None
    clap: State = field(default_factory=dict)
    clap_config: dict[str, Any] | None = None
    words: State = field(default_factory=dict)
    words_config: dict[str, Any] | None = None
    """T5's encoder"""
    unread: list[str] = field(default_factory=list)
    """the first key of every conditioner that is neither CLAP nor T5"""
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
        found.clap, found.clap_config = clap.convert(bare), clap.clap_config(bare)
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


FRONT_END = re.compile(r"mel_transform\..+|unconditional_token|empty_text_embed")
"""Buffers of the CLAP wrapper: its mel filters, and its embedding of the empty prompt, which is computed anew."""


def add_conditioners(found: Checkpoint, state: State, score: State) -> None:
    """CLAP from wherever it is (as conditioner, or kept for scoring), T5, and the names of what else there is."""
    for prefix in conditioners(state):
        part = {k: v for k, v in below(state, prefix).items() if not FRONT_END.fullmatch(k)}
        inner = below(part, "model.")
        if clap.is_clap(inner):
            if strange := sorted(k for k in part if not k.startswith("model.")):
                raise unexplained(prefix + strange[0])
            found.clap = clap.convert(inner, prefix=prefix + "model.")
            found.clap_config = clap.clap_config(inner)
        elif t5.is_t5(inner):
            found.words, found.words_config = t5.convert(inner, prefix=prefix + "model."), t5.t5_config(inner)
        elif part:
            found.unread.append(prefix + min(part))
    spare = below(score, "model.")
    if strange := sorted(k for k in score if not k.startswith("model.") and not FRONT_END.fullmatch(k)):
        raise unexplained("clap." + strange[0])
    if not found.clap and clap.is_clap(spare):
        found.clap, found.clap_config = clap.convert(spare, prefix="clap.model."), clap.clap_config(spare)


def conditioners(state: State) -> list[str]:
    """The prefix of every conditioner: one without a number in AudioLDM, a list in its successors."""
    matches = (re.match(r"cond_stage_model(?:\.|s\.\d+\.)", key) for key in state)
    return sorted({match[0] for match in matches if match})


def unexplained(key: str) -> AudioLDMError:
    """The error for a key that is none of the known ones."""
    return AudioLDMError(
        f"The checkpoint has a key that no rule explains: {key!r}.",
        "This is not one of the known checkpoints; please report the key.",
    )
