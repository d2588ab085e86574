"""Files of the original code and of its relatives, whole or one part: sorted into nets, translated, and built."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.convert import unet
from audioldm.convert.conditioners import all_conditioners, clap_nets, is_clap, t5_net
from audioldm.convert.first_stage import unwrapped, vae_net, vocoder_net
from audioldm.convert.folder import DEFAULT, ROBERTA, T5, TOKENIZERS, Choices, Weights
from audioldm.convert.names import Net, below, unexplained
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State, fill, read_json, read_weights, save_component

PARTS = (  # where each net is in a whole checkpoint; the first that matches
    ("unet", r"model\.diffusion_model\."), ("ema", r"model_ema\."), ("vocoder", r"first_stage_model\.vocoder\."),
    ("vae", r"first_stage_model\."), ("condition", r"cond_stage_models?\.(?:\d+\.)?"), ("score", r"clap\."),
)  # fmt: skip
TITLES = {  # what messages call a net
    "unet": "U-Net", "vae": "VAE", "vocoder": "vocoder", "text_encoder": "CLAP", "audio_encoder": "CLAP",
    "text_encoder_2": "T5 encoder", "projection_model": "GPT-2 of AudioLDM 2", "language_model": "GPT-2 of AudioLDM 2",
}  # fmt: skip
PUBLISHED_HEADS = 8
"""what converted folders carry as attention_head_dim; diffusers runs it as 8 heads at every level"""
SCHEDULE = re.compile(  # numbers of the noise schedule; all follow from betas
    r"betas|logvar|lvlb_weights|(alphas_cumprod(_prev)?)|sqrt_\w*alphas_cumprod\w*|log_one_minus_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])"
)
TANGO_MAIN, TANGO_VAE, TANGO_CONFIG = "pytorch_model_main.bin", "pytorch_model_vae.bin", "vae_config.json"
TANGO_FILES = (TANGO_CONFIG, TANGO_VAE, TANGO_MAIN)
"""what is needed of Tango; its ``pytorch_model_stft.bin`` holds mel filters, which follow from the sampling rate"""
TANGO_HEAD = 64  # channels of one attention head in Stable Diffusion 2


@dataclass
class Checkpoint:
    """A ``Source``: the nets that a file holds, by the names of component folders, and what it says besides."""

    path: Path
    nets: dict[str, Net]
    unread: list[str] = field(default_factory=list)  # the first key of every conditioner that is unknown
    scale: float = 1.0
    betas: Tensor | None = None
    weights: Weights = "raw"  # which the U-Net has
    choices: Choices = DEFAULT

    def has(self, name: str) -> bool:
        return name in self.nets

    def build(self, name: str) -> Any:
        """A net, with 8 heads where the published ones are asked for.   Raises AudioLDMError where it is not there."""
        if name not in self.nets:
            raise AudioLDMError(f"{self.path} has no {TITLES[name]}.", "Name a file that has one.")
        net = self.nets[name]
        eight = name == "unet" and self.choices.heads == "as-published"
        config = {**net.config, **({"heads": PUBLISHED_HEADS} if eight else {})}
        module = fill(lambda: net.make(**config), net.state, self.path)
        if name == "vae":
            module.register_to_config(scaling_factor=self.scale)
        return module

    def save(self, folder: Path) -> list[Path]:
        return [save_component(self.build(name), folder / name).parent for name in self.nets]

    def tokenizer(self, kind: str) -> Path:
        """Where a tokenizer is: below the one that was named (T5's in ``tokenizer_2``), beside the file, or cached."""
        beside = self.path.parent / ("tokenizer" if kind == ROBERTA else "tokenizer_2")
        named, places = self.choices.tokenizer, [beside]
        if named is not None and (kind == ROBERTA or not self.has("text_encoder")):
            places.insert(0, Path(named))
        if named is not None and kind == T5:
            places.insert(0, Path(named) / beside.name)
        if folder := next(filter(Path.is_dir, places), None):
            return folder
        from audioldm.convert.hub import fetch_files

        files = TOKENIZERS[kind][0]
        return fetch_files(kind, files, what=", ".join(files), instead=f"into {beside}").folder

    def extractor(self) -> Any:
        """None: it is LAION's."""


def read_checkpoint(path: Path, choices: Choices = DEFAULT) -> Checkpoint:
    """Read and translate.   AudioLDMError for a file that is damaged or of another kind, or a key without a rule."""
    state = tensors(path)
    if below(state, unet.PREFIX):
        return whole_checkpoint(path, state, choices)
    state = unwrapped(state)
    if below(state, "conv_pre."):
        nets = {"vocoder": vocoder_net(state, path)}
    elif "encoder.conv_in.weight" in state and "quant_conv.weight" in state:
        nets = {"vae": vae_net({k: v for k, v in state.items() if not k.startswith("vocoder.")})}
        if inner := below(state, "vocoder."):
            nets["vocoder"] = vocoder_net(inner, path)
    elif is_clap(state):
        nets = clap_nets(state)
    else:
        what = f"{path} is no known checkpoint: its first key is {next(iter(state), 'none')!r}."
        raise AudioLDMError(what, "Known: AudioLDM's own, its training's (LDM, VAE, HiFi-GAN), LAION-CLAP.")
    return Checkpoint(path, nets, choices=choices)


def tensors(path: Path) -> State:
    """The weights of a file: below ``state_dict``, below ``generator`` (HiFi-GAN), or the table itself."""
    content: Mapping[str, Any] = read_weights(path)
    inner = (content.get(name) for name in ("state_dict", "generator", "model"))
    content = next((part for part in inner if isinstance(part, dict)), content)
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise AudioLDMError(f"{path} holds no tensors.", "Name a file of weights.")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def whole_checkpoint(path: Path, state: State, choices: Choices) -> Checkpoint:
    """A latent diffusion checkpoint with all its nets."""
    parts = sort(state)
    raw, average = parts["unet"], unet.average(state)
    weights: Weights = "ema" if average and choices.weights == "ema" else "raw"
    if weights == "ema" and (missing := sorted(raw.keys() - average.keys())):
        # half of one and half of the other is no model
        why = f"The moving average lacks {missing[0]!r} ({len(missing)} of {len(raw)} keys)."
        raise AudioLDMError(why, "Use the raw weights (--weights raw).")
    ours, shape = unet.convert(average if weights == "ema" else raw)
    nets = {"unet": Net(ours, unet.build, {"shape": shape, "heads": unet.heads(shape.channels)})}
    if parts["vae"]:
        nets["vae"] = vae_net(parts["vae"])
    if parts["vocoder"]:
        nets["vocoder"] = vocoder_net(parts["vocoder"], path)
    encoders, unread = all_conditioners(state, parts["score"])
    scale = float(state.get("scale_factor", torch.ones(1)).flatten()[0])
    return Checkpoint(path, nets | encoders, unread, scale, state.get("betas"), weights, choices)


def sort(state: State) -> dict[str, State]:
    """The keys of a whole checkpoint by the net that they belong to, without its prefix."""
    nets: dict[str, State] = {name: {} for name, _ in PARTS}
    for key, value in state.items():
        matches = ((name, match) for name, prefix in PARTS if (match := re.match(prefix, key)))
        name, match = next(matches, ("", None))
        if match:
            nets[name][key[match.end() :]] = value
        elif key != "scale_factor" and not SCHEDULE.fullmatch(key):
            raise unexplained(key)
    return nets


def is_tango(folder: Path) -> bool:
    return (folder / TANGO_MAIN).is_file()


def read_tango(folder: Path, choices: Choices = DEFAULT) -> Checkpoint:
    """All nets of a Tango (arXiv:2304.13731).   AudioLDMError for a missing file or a key without a place."""
    if missing := [name for name in TANGO_FILES if not (folder / name).is_file()]:
        raise AudioLDMError(f"{folder / missing[0]} is missing.", f"Tango needs {', '.join(TANGO_FILES)}.")
    main, scale = tensors(folder / TANGO_MAIN), read_json(folder / TANGO_CONFIG).get("scale_factor")
    if strange := sorted(k for k in main if not k.startswith(("unet.", "text_encoder."))):
        raise unexplained(strange[0])
    if not isinstance(scale, int | float):
        raise AudioLDMError(f"{folder / TANGO_CONFIG} has no scale_factor.", "Download the folder again.")
    nets, state = read_checkpoint(folder / TANGO_VAE).nets, below(main, "unet.")
    shape = unet.read_shape(state, "unet.")
    heads = tuple(max(1, width // TANGO_HEAD) for width in shape.channels)
    nets["unet"] = Net(state, unet.build, {"shape": shape, "heads": heads})
    nets["text_encoder_2"] = t5_net(below(main, "text_encoder."))
    return Checkpoint(folder / TANGO_MAIN, nets, scale=float(scale), choices=choices)
