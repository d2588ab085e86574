"""Modules from translated weights: built without memory of their own, filled strictly."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AudioLDM2ProjectionModel, AutoencoderKL
from torch import nn
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

from audioldm.convert import unet as unet_names
from audioldm.convert.checkpoint import Checkpoint
from audioldm.convert.clap import towers
from audioldm.convert.rules import State
from audioldm.convert.vae import VaeShape
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import aligned, check_state
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import LatentUNet, build_unet, build_unet_of_contexts
from audioldm.nets.vae import build_vae

Module = TypeVar("Module", bound=nn.Module)
PUBLISHED_AS = 8
"""What converted folders carry as attention_head_dim; diffusers runs it as 8 heads at every level."""


def fill(build: Callable[[], Module], state: State, path: Path) -> Module:
    """``build()`` with ``state`` as its weights, strictly; AudioLDMError names the first key that differs."""
    with torch.device("meta"):
        module = build()
    check_state(module, state, path)
    module.load_state_dict(aligned(state), strict=True, assign=True)
    return module.eval()


def original_heads(channels: Sequence[int]) -> tuple[int, ...]:
    """The heads that the weights were trained with."""
    return unet_names.heads(tuple(channels))


def build_published_unet(shape: unet_names.UNetShape, heads: Sequence[int] | int | None = None) -> LatentUNet:
    """A U-Net of a checkpoint's shape; ``heads`` a level, or one number for all, else the original ones."""
    many = original_heads(shape.channels) if heads is None else heads
    many = many if isinstance(many, int) else tuple(many)
    above = [True] * (len(shape.channels) - 1)
    if shape.attention not in ((False, *above), (*above, False)):
        raise AudioLDMError(
            f"The U-Net has attention at levels {shape.attention}.",
            "Known: at every level but the first, or but the last.",
        )
    widths = [width for width in shape.contexts if width is not None]
    if not widths and shape.film_dim is None:
        raise AudioLDMError("The U-Net has no condition at all.", "Name a text-to-audio checkpoint.")
    if len(shape.contexts) > 1:
        return build_unet_of_contexts(
            shape.contexts,
            channels=shape.channels,
            latent_channels=shape.in_channels,
            layers=shape.layers,
            heads=many,
            film_dim=shape.film_dim,
            depth=shape.depth,
        )
    return build_unet(
        "film" if not widths else "cross" if shape.film_dim is None else "both",
        channels=shape.channels,
        latent_channels=shape.in_channels,
        layers=shape.layers,
        heads=many,
        film_dim=shape.film_dim or 0,
        context_dim=widths[0] if widths else 0,
        depth=shape.depth,
        attention=shape.attention,
        linear=shape.linear,
    )


def unet_of(found: Checkpoint, path: Path, *, heads: Sequence[int] | int | None = None) -> LatentUNet:
    """The U-Net of a checkpoint."""
    shape = found.unet_shape
    if shape is None:
        raise AudioLDMError(f"{path} has no U-Net.", "Name a whole checkpoint.")
    return fill(lambda: build_published_unet(shape, heads), found.unet, path)


def vae_of(found: Checkpoint, path: Path) -> AutoencoderKL:
    """The autoencoder of a checkpoint, with its scale factor."""
    shape = found.vae_shape
    if shape is None:
        raise AudioLDMError(f"{path} has no VAE.", "Name a checkpoint that has one.")
    vae = fill(lambda: _build_vae(shape), found.vae, path)
    vae.register_to_config(scaling_factor=found.scale)
    return vae


def _build_vae(shape: VaeShape) -> AutoencoderKL:
    return build_vae(
        channels=shape.channels,
        latent_channels=shape.latent_channels,
        layers=shape.layers,
        groups=min(32, shape.channels[0]),
    )


def vocoder_of(found: Checkpoint, path: Path) -> SpeechT5HifiGan:
    """The vocoder of a checkpoint."""
    shape = found.vocoder_shape
    if shape is None:
        raise AudioLDMError(f"{path} has no vocoder.", "Name a checkpoint that has one.")
    return fill(
        lambda: build_hifigan(
            mels=shape.mels,
            rate=shape.rate,
            channels=shape.channels,
            upsample=shape.upsample,
            upsample_kernels=shape.upsample_kernels,
            kernels=shape.kernels,
            dilations=shape.dilations,
        ),
        found.vocoder,
        path,
    )


def clap_of(
    found: Checkpoint, path: Path
) -> tuple[ClapTextModelWithProjection, ClapAudioModelWithProjection]:
    """Both CLAP towers of a checkpoint."""
    if found.clap_config is None:
        raise AudioLDMError(f"{path} has no CLAP.", "Name a checkpoint that has one.")
    config = ClapConfig(**found.clap_config)
    text, audio = towers(found.clap)
    return (
        fill(lambda: ClapTextModelWithProjection(config.text_config), text, path),
        fill(lambda: ClapAudioModelWithProjection(config.audio_config), audio, path),
    )


def words_of(found: Checkpoint, path: Path) -> T5EncoderModel:
    """The T5 encoder of a checkpoint."""
    if found.words_config is None:
        raise AudioLDMError(f"{path} has no T5 encoder.", "Name a checkpoint that has one.")
    config = T5Config(**found.words_config)
    return fill(lambda: T5EncoderModel(config), found.words, path)


def generator_of(found: Checkpoint, path: Path) -> tuple[AudioLDM2ProjectionModel, GPT2Model]:
    """AudioLDM 2's generator: the layers before GPT-2, and GPT-2."""
    before, language = found.projection_config, found.language_config
    if before is None or language is None:
        raise AudioLDMError(f"{path} has no generator of audio tokens.", "Name a checkpoint of AudioLDM 2.")
    config = GPT2Config(**language)
    return (
        fill(lambda: AudioLDM2ProjectionModel(**before), found.projection, path),
        fill(lambda: GPT2Model(config), found.language, path),
    )
