"""Tango's folder: FLAN-T5, a U-Net of Stable Diffusion 2's shape, AudioLDM's VAE and vocoder.   arXiv:2304.13731.

``pytorch_model_main.bin`` holds ``unet.`` and ``text_encoder.`` in diffusers' and transformers' names;
``pytorch_model_vae.bin`` AudioLDM's autoencoder with its vocoder, in the original's names; ``vae_config.json`` the
scale.
"""

import re
from pathlib import Path

from audioldm.convert import t5
from audioldm.convert.checkpoint import Checkpoint, read_checkpoint, tensors
from audioldm.convert.files import read_weights
from audioldm.convert.rules import State, below, count, need
from audioldm.convert.unet import UNetShape
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import read_json

MAIN, VAE, CONFIG = "pytorch_model_main.bin", "pytorch_model_vae.bin", "vae_config.json"
FILES = (CONFIG, VAE, MAIN)
"""What is needed of it; its ``pytorch_model_stft.bin`` holds mel filters, which follow from the sampling rate."""
PART = "U-Net"
HEAD = 64
"""channels of one attention head in Stable Diffusion 2"""
RESIZED = "group_in."
"""Layers of the variant that starts from Stable Diffusion's own weights, whose latents have 4 channels"""


def is_tango(folder: Path) -> bool:
    """Whether ``folder`` has Tango's main file."""
    return (folder / MAIN).is_file()


def read_tango(folder: Path) -> Checkpoint:
    """All nets of a Tango.   AudioLDMError for a file that is missing or of another kind, or a key without a place."""
    main = tensors(read_weights(folder / MAIN), folder / MAIN)
    if any(key.startswith(RESIZED) for key in main):
        raise AudioLDMError(
            f"{folder / MAIN} is a Tango that was started from Stable Diffusion's weights ({RESIZED}*).",
            "Known: those with a U-Net of 8 latent channels, such as declare-lab/tango.",
        )
    if strange := sorted(k for k in main if not k.startswith(("unet.", "text_encoder."))):
        raise AudioLDMError(
            f"{folder / MAIN} has a key that no rule explains: {strange[0]!r}.",
            "Known: Tango's unet.* and text_encoder.*; please report the key.",
        )
    found = read_checkpoint(folder / VAE)
    scale = read_json(folder / CONFIG).get("scale_factor")
    if not isinstance(scale, int | float):
        raise AudioLDMError(f"{folder / CONFIG} has no scale_factor.", "Download the folder again.")
    words = below(main, "text_encoder.")
    found.scale = float(scale)
    found.unet = below(main, "unet.")
    found.unet_shape = read_shape(found.unet)
    found.words = t5.convert(words, prefix="text_encoder.")
    found.words_config = t5.t5_config(words)
    return found


def heads(channels: tuple[int, ...]) -> tuple[int, ...]:
    """Attention heads a level.

    >>> heads((320, 640, 1280, 1280))
    (5, 10, 20, 20)
    """
    return tuple(max(1, channel // HEAD) for channel in channels)


def read_shape(state: State) -> UNetShape:
    """The shape of a U-Net in diffusers' names."""
    levels = count(state, r"down_blocks\.(\d+)\.")
    channels = tuple(
        need(state, f"down_blocks.{i}.resnets.0.conv1.weight", part=PART, prefix="unet.").shape[0]
        for i in range(levels)
    )
    context = need(
        state,
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        part=PART,
        prefix="unet.",
    ).shape[1]
    inside = need(state, "mid_block.attentions.0.proj_in.weight", part=PART, prefix="unet.")
    return UNetShape(
        channels=channels,
        in_channels=need(state, "conv_in.weight", part=PART, prefix="unet.").shape[1],
        layers=count(state, r"down_blocks\.0\.resnets\.(\d+)\."),
        attention=tuple(
            any(re.match(rf"down_blocks\.{i}\.attentions\.", key) for key in state) for i in range(levels)
        ),
        contexts=(context,),
        depth=count(state, r"mid_block\.attentions\.0\.transformer_blocks\.(\d+)\."),
        film_dim=None,
        linear=inside.dim() == 2,
    )
