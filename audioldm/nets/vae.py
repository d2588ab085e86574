"""The mel autoencoder: diffusers' AutoencoderKL on one channel.   B batch, C latent channels, T frames, F bins.

Three spaces: log-mel (as ``signal.mel`` gives it); raw latent (what the encoder gives: mean and std); scaled latent
(raw times ``vae.config.scaling_factor``, unit variance over the data set: what the U-Net sees).
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from audioldm.nets.folder import state_digest
from audioldm.signal.mel import MEAN, STD


def build_vae(
    *, channels: Sequence[int] = (128, 256, 512), latent_channels: int = 8, layers: int = 2, groups: int = 32
) -> AutoencoderKL:
    """A KL autoencoder that halves both axes at each level but the first. Defaults: AudioLDM's, 55.377 M parameters."""
    n = len(channels)
    ends: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "sample_size": 512, "scaling_factor": 1.0}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * n, "up_block_types": ("UpDecoderBlock2D",) * n}
    sizes = {"block_out_channels": tuple(channels), "layers_per_block": layers, "norm_num_groups": groups}
    vae = AutoencoderKL(**ends, **blocks, **sizes, latent_channels=latent_channels)
    with torch.no_grad():  # start at the data's mean instead of learning it through the whole decoder
        vae.decoder.conv_out.bias.fill_(MEAN)
        vae.decoder.conv_out.weight.mul_(STD)
    return vae


def stride_of(vae: AutoencoderKL) -> int:
    """Mel frames per latent frame."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def encode(vae: AutoencoderKL, mel: Tensor) -> tuple[Tensor, Tensor]:
    """Log-mel (B, 1, T, F) to the posterior's raw mean and std, both (B, C, T/stride, F/stride); else ValueError."""
    stride = stride_of(vae)
    if mel.shape[-1] % stride or mel.shape[-2] % stride:
        raise ValueError(f"mel {tuple(mel.shape)}: frames and bins must be multiples of {stride}")
    posterior = vae.encode(mel.to(vae.dtype)).latent_dist
    return posterior.mean, posterior.std


def decode(vae: AutoencoderKL, latent: Tensor) -> Tensor:
    """Scaled latent (B, C, T', F') to log-mel (B, 1, T'*stride, F'*stride)."""
    return vae.decode(latent / vae.config.scaling_factor).sample


def encoder_digest(vae: AutoencoderKL) -> str:
    """sha256 over the weights that decide a latent: the encoder's and quant_conv's.   A decoder may be trained on."""
    return state_digest(vae.encoder, vae.quant_conv)
