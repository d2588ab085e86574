"""Files of the original code, whole or one part: sorted into nets, translated, and built.

Known: AudioLDM's six (s, m, l), AudioLDM 2's and its relatives' (48 kHz, T5), the training repository's latent
diffusion, VAE and HiFi-GAN files, LAION's CLAP, Tango's folder (arXiv:2304.13731).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diffusers import AudioLDM2ProjectionModel, AutoencoderKL
from torch import Tensor
from transformers import (
    ClapAudioModelWithProjection,
    ClapConfig,
    ClapTextModelWithProjection,
    GPT2Config,
    GPT2Model,
    SpeechT5HifiGan,
    T5Config,
    T5EncoderModel,
)

from audioldm.convert import first_stage, unet
from audioldm.convert.conditioners import Conditioners, is_clap, t5_config
from audioldm.convert.first_stage import HifiganShape, VaeShape
from audioldm.convert.names import below, unexplained
from audioldm.convert.unet import UNetShape
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State, fill, read_json, read_weights
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import LatentUNet, build_unet
from audioldm.nets.vae import build_vae

Weights = Literal["ema", "raw"]
PARTS = (
    ("unet", r"model\.diffusion_model\."),
    ("ema", r"model_ema\."),
    ("vocoder", r"first_stage_model\.vocoder\."),
    ("vae", r"first_stage_model\."),
    ("condition", r"cond_stage_models?\.(?:\d+\.)?"),
    ("score", r"clap\."),
)
"""where each net is in a whole checkpoint; the first that matches"""
SCHEDULE = re.compile(
    r"betas|logvar|lvlb_weights|(alphas_cumprod(_prev)?)|sqrt_\w*alphas_cumprod\w*|log_one_minus_alphas_cumprod"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])"
)
"""numbers of the noise schedule; all follow from ``betas``"""
TANGO_MAIN, TANGO_VAE, TANGO_CONFIG = "pytorch_model_main.bin", "pytorch_model_vae.bin", "vae_config.json"
TANGO_FILES = (TANGO_CONFIG, TANGO_VAE, TANGO_MAIN)
"""what is needed of Tango; its ``pytorch_model_stft.bin`` holds mel filters, which follow from the sampling rate"""
TANGO_RESIZED = "group_in."
"""layers of the variant that starts from Stable Diffusion's own weights, whose latents have 4 channels"""
TANGO_HEAD = 64
"""channels of one attention head in Stable Diffusion 2"""


@dataclass
class Checkpoint(Conditioners):
    """The nets of a file in today's names; what the file does not hold is None or empty."""

    path: Path = Path()
    unet: State = field(default_factory=dict)
    unet_shape: UNetShape | None = None
    heads: tuple[int, ...] = ()
    """attention heads a level that the U-Net was trained with"""
    vae: State = field(default_factory=dict)
    vae_shape: VaeShape | None = None
    vocoder: State = field(default_factory=dict)
    vocoder_shape: HifiganShape | None = None
    scale: float = 1.0
    betas: Tensor | None = None
    weights: Weights = "raw"
    """which weights the U-Net has"""

    def lacks(self, part: str) -> AudioLDMError:
        """The error for a part that is not there."""
        return AudioLDMError(f"{self.path} has no {part}.", "Name a file that has one.")

    def add_vae(self, state: State) -> None:
        """Translate an autoencoder."""
        self.vae_shape = first_stage.vae_shape(state)
        self.vae = first_stage.convert_vae(state, self.vae_shape)

    def add_vocoder(self, state: State) -> None:
        """Translate a vocoder, if there is one."""
        if state:
            state = first_stage.plain(state)
            self.vocoder_shape = first_stage.vocoder_shape(state, self.path)
            self.vocoder = first_stage.convert_vocoder(state)

    def add_unet(self, state: State) -> None:
        """Translate a U-Net."""
        self.unet_shape = unet.read_shape(state)
        self.unet, self.heads = unet.convert(state, self.unet_shape), unet.heads(self.unet_shape.channels)

    def build_unet(self, *, heads: int | None = None) -> LatentUNet:
        """The U-Net, with its own heads a level or one number for all."""
        shape = self.unet_shape
        if shape is None:
            raise self.lacks("U-Net")
        return fill(lambda: build_unet_of(shape, heads or self.heads), self.unet, self.path)

    def build_vae(self) -> AutoencoderKL:
        """The autoencoder, with its scale factor."""
        shape = self.vae_shape
        if shape is None:
            raise self.lacks("VAE")
        vae = fill(
            lambda: build_vae(
                channels=shape.channels,
                latent_channels=shape.latent_channels,
                layers=shape.layers,
                groups=min(32, shape.channels[0]),
            ),
            self.vae,
            self.path,
        )
        vae.register_to_config(scaling_factor=self.scale)
        return vae

    def build_vocoder(self) -> SpeechT5HifiGan:
        """The vocoder."""
        shape = self.vocoder_shape
        if shape is None:
            raise self.lacks("vocoder")
        return fill(lambda: build_hifigan(**vars(shape)), self.vocoder, self.path)

    def build_clap(self) -> tuple[ClapTextModelWithProjection, ClapAudioModelWithProjection]:
        """Both CLAP towers."""
        if self.clap_config is None:
            raise self.lacks("CLAP")
        config = ClapConfig(**self.clap_config)
        text, audio = (
            {k: v for k, v in self.clap.items() if k.startswith((f"{side}_model.", f"{side}_projection."))}
            for side in ("text", "audio")
        )
        return (
            fill(lambda: ClapTextModelWithProjection(config.text_config), text, self.path),
            fill(lambda: ClapAudioModelWithProjection(config.audio_config), audio, self.path),
        )

    def build_t5(self) -> T5EncoderModel:
        """The T5 encoder."""
        config = self.t5_config
        if config is None:
            raise self.lacks("T5 encoder")
        return fill(lambda: T5EncoderModel(T5Config(**config)), self.t5, self.path)

    def build_gpt(self) -> tuple[AudioLDM2ProjectionModel, GPT2Model]:
        """AudioLDM 2's layers before GPT-2, and GPT-2."""
        before, config = self.projection_config, self.gpt_config
        if before is None or config is None:
            raise self.lacks("GPT-2 of AudioLDM 2")
        return (
            fill(lambda: AudioLDM2ProjectionModel(**before), self.projection, self.path),
            fill(lambda: GPT2Model(GPT2Config(**config)), self.gpt, self.path),
        )


def build_unet_of(shape: UNetShape, heads: Sequence[int] | int) -> LatentUNet:
    """A U-Net of a checkpoint's shape with these heads a level.   Raises AudioLDMError for the shape of no model."""
    above = [True] * (len(shape.channels) - 1)
    if shape.attention not in ((False, *above), (*above, False)):
        raise AudioLDMError(
            f"The U-Net has attention at levels {shape.attention}.",
            "Known: at every level but the first, or but the last.",
        )
    widths = [width for width in shape.contexts if width is not None]
    if not widths and shape.film_dim is None:
        raise AudioLDMError("The U-Net has no condition at all.", "Name a text-to-audio checkpoint.")
    return build_unet(
        "film" if not widths else "cross" if shape.film_dim is None else "both",
        channels=shape.channels,
        latent_channels=shape.in_channels,
        layers=shape.layers,
        heads=heads,
        film_dim=shape.film_dim,
        context_dim=widths[0] if widths else 0,
        contexts=shape.contexts if len(shape.contexts) > 1 else None,
        depth=shape.depth,
        attention=shape.attention,
        linear=shape.linear,
    )


def read_checkpoint(path: Path, *, weights: Weights = "ema") -> Checkpoint:
    """Read and translate ``path``.   ``weights``: the moving average where there is one, or the raw ones.

    Raises AudioLDMError for a file that is damaged, of another kind, or has a key that no rule explains.
    """
    state = tensors(read_weights(path), path)
    checkpoint = Checkpoint(path=path)
    if any(key.startswith(unet.PREFIX) for key in state):
        add_whole(checkpoint, state, weights=weights)
        return checkpoint
    bare = {re.sub(r"^(_orig_mod\.|module\.)+", "", key): value for key, value in state.items()}
    if first_stage.is_vocoder(bare):
        checkpoint.add_vocoder(bare)
    elif "encoder.conv_in.weight" in bare and "quant_conv.weight" in bare:
        checkpoint.add_vocoder(below(bare, "vocoder."))
        checkpoint.add_vae({k: v for k, v in bare.items() if not k.startswith("vocoder.")})
    elif is_clap(bare):
        checkpoint.add_clap(bare)
    else:
        raise AudioLDMError(
            f"{path} is no known checkpoint: its first key is {next(iter(state), 'none')!r}.",
            "Known: AudioLDM and its training repository (LDM, VAE, HiFi-GAN), LAION-CLAP.",
        )
    return checkpoint


def tensors(content: Mapping[str, Any], path: Path) -> State:
    """The weights of a file: below ``state_dict``, below ``generator`` (HiFi-GAN), or the table itself."""
    for name in ("state_dict", "generator", "model"):
        if isinstance(content.get(name), dict):
            content = content[name]
            break
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise AudioLDMError(f"{path} holds no tensors.", "Name a file of weights.")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def add_whole(checkpoint: Checkpoint, state: State, *, weights: Weights) -> None:
    """Translate a latent diffusion checkpoint with all its nets."""
    nets = sort(state)
    raw = nets["unet"]
    average = unet.average(state)
    if average and weights == "ema":
        if missing := sorted(raw.keys() - average.keys()):  # half of one and half of the other is no model
            raise AudioLDMError(
                f"The moving average lacks {missing[0]!r} ({len(missing)} of {len(raw)} keys).",
                "Use the raw weights (--weights raw).",
            )
        raw, checkpoint.weights = {**raw, **average}, "ema"
    checkpoint.add_unet(raw)
    if nets["vae"]:
        checkpoint.add_vae(nets["vae"])
    checkpoint.add_vocoder(nets["vocoder"])
    checkpoint.add_all(state, nets["score"])
    if "scale_factor" in state:
        checkpoint.scale = float(state["scale_factor"].flatten()[0])
    checkpoint.betas = state.get("betas")


def sort(state: State) -> dict[str, State]:
    """The keys of a whole checkpoint by the net that they belong to, without its prefix."""
    nets: dict[str, State] = {name: {} for name, _ in PARTS}
    for key, value in state.items():
        for name, prefix in PARTS:
            if match := re.match(prefix, key):
                nets[name][key[match.end() :]] = value
                break
        else:
            if key != "scale_factor" and not SCHEDULE.fullmatch(key):
                raise unexplained(key)
    return nets


def is_tango(folder: Path) -> bool:
    """Whether ``folder`` has Tango's main file."""
    return (folder / TANGO_MAIN).is_file()


def read_tango(folder: Path) -> Checkpoint:
    """All nets of a Tango.   AudioLDMError for a file that is missing or of another kind, or a key without a place.

    Its main file holds ``unet.`` and ``text_encoder.`` in diffusers' and transformers' names, its second AudioLDM's
    autoencoder with the vocoder in the original's, and a JSON file the scale.
    """
    if missing := [name for name in TANGO_FILES if not (folder / name).is_file()]:
        raise AudioLDMError(
            f"{folder / missing[0]} is missing.", f"Tango needs {', '.join(TANGO_FILES)} in one folder."
        )
    path = folder / TANGO_MAIN
    main = tensors(read_weights(path), path)
    if any(key.startswith(TANGO_RESIZED) for key in main):
        raise AudioLDMError(
            f"{path} is a Tango that was started from Stable Diffusion's weights ({TANGO_RESIZED}*).",
            "Known: those with a U-Net of 8 latent channels, such as declare-lab/tango.",
        )
    if strange := sorted(k for k in main if not k.startswith(("unet.", "text_encoder."))):
        raise unexplained(strange[0])
    checkpoint = read_checkpoint(folder / TANGO_VAE)
    scale = read_json(folder / TANGO_CONFIG).get("scale_factor")
    if not isinstance(scale, int | float):
        raise AudioLDMError(f"{folder / TANGO_CONFIG} has no scale_factor.", "Download the folder again.")
    checkpoint.path, checkpoint.scale = path, float(scale)
    checkpoint.unet = below(main, "unet.")
    checkpoint.unet_shape = unet.read_diffusers_shape(checkpoint.unet)
    checkpoint.heads = tuple(max(1, width // TANGO_HEAD) for width in checkpoint.unet_shape.channels)
    checkpoint.t5 = below(main, "text_encoder.")
    checkpoint.t5_config = t5_config(checkpoint.t5)
    return checkpoint
