"""The published nets with random weights, and the pipelines that share them: ours and diffusers'.

Speed does not depend on what a net has learned, so random weights of the published shapes stand for the published
models; both sides get the same ones.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AudioLDMPipeline, AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    PreTrainedTokenizerFast,
    SpeechT5HifiGan,
)

from audioldm.components import Sampling
from audioldm.diffusion.grids import leading
from audioldm.diffusion.noise import PerSample
from audioldm.engines import Mode
from audioldm.nets.clap import MelEncoder, TwoTowers, train_tokenizer
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.spec import AudioSpec

for library in (diffusers, transformers):
    library.utils.logging.set_verbosity_error()  # their advice is for programmers

PROMPTS = ("a dog barking in the distance while rain is falling on a tin roof", "church bells", "waves")
GUIDANCE = 2.5
WIDTHS: dict[str, tuple[tuple[int, ...], int]] = {
    "S": ((128, 256, 384, 640), 32),
    "M": ((192, 384, 576, 960), 32),
    "L": ((256, 512, 768, 1280), 64),
}
"""Channels by level and channels of one attention head: audioldm-s, -m and -l."""


@dataclass(frozen=True)
class Nets:
    """What both pipelines are made of."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    vocoder: SpeechT5HifiGan
    text_encoder: ClapTextModelWithProjection
    tokenizer: PreTrainedTokenizerFast

    def copy(self, dtype: torch.dtype) -> "Nets":
        """The same weights in another type and other memory; the tokenizer is shared."""
        nets = (self.unet, self.vae, self.vocoder, self.text_encoder)
        return Nets(*(deepcopy(net).to(dtype) for net in nets), self.tokenizer)  # type: ignore[arg-type]


def unet_of(shape: str, *, tiny: bool = False) -> UNet2DConditionModel:
    """The U-Net of ``shape``, ready to answer; ``tiny`` an eighth as wide."""
    widths, head = WIDTHS[shape]
    if not tiny:
        return build_unet(channels=widths, head_channels=head).eval()
    return build_unet(
        channels=[w // 8 for w in widths], layers=1, head_channels=8, film_dim=512, groups=4
    ).eval()


def build(shape: str, device: str, *, tiny: bool = False, seed: int = 0) -> Nets:
    """The nets of ``shape`` in float32; ``tiny`` makes them toys, to rehearse a benchmark."""
    tokenizer = train_tokenizer([*PROMPTS, ""], size=300)
    torch.manual_seed(seed)
    with torch.device(device):
        unet = unet_of(shape, tiny=tiny)
        if tiny:
            vae = build_vae(channels=(8, 8, 16), layers=1, groups=4)
            vocoder = build_hifigan(channels=32, kernels=(3,), dilations=((1, 3),))
            text = ClapTextConfig(
                vocab_size=300,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=64,
            )
        else:
            vae, vocoder, text = build_vae(), build_hifigan(), ClapTextConfig()
        encoder = ClapTextModelWithProjection(text)
    for net in (unet, vae, vocoder, encoder):
        net.eval().requires_grad_(False)
    return Nets(unet, vae, vocoder, encoder, tokenizer)


def ours(nets: Nets, mode: Mode = "exact", dtype: torch.dtype | None = None) -> AudioLDM:
    """Our pipeline on these nets themselves (exact, float32) or on a copy."""
    if mode != "exact" or dtype not in (None, torch.float32):
        nets = nets.copy(torch.float32)
    device = nets.unet.device
    clap = TwoTowers(nets.text_encoder, nets.tokenizer, MelEncoder(widths=(8, 8), dim=512, hidden=16))
    defaults = Sampling(10.24, 10, "ddim", "leading", GUIDANCE)
    pipe = AudioLDM(nets.unet, nets.vae, nets.vocoder, clap, AudioSpec(), defaults=defaults)
    return pipe.to(device, dtype, mode=mode)


def theirs(nets: Nets, dtype: torch.dtype = torch.float32) -> AudioLDMPipeline:
    """Diffusers' AudioLDMPipeline on these nets, or on a copy for another type.

    ``set_alpha_to_one`` ends it at the clean sample, as ours does; the published file ends one level before it.
    """
    nets = nets if dtype == torch.float32 else nets.copy(dtype)
    tokenizer = deepcopy(nets.tokenizer)
    tokenizer.model_max_length = min(512, nets.text_encoder.config.max_position_embeddings - 2)
    scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )
    pipe = AudioLDMPipeline(nets.vae, nets.text_encoder, tokenizer, nets.unet, scheduler, nets.vocoder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run_ours(pipe: AudioLDM, batch: int, **settings: Any) -> Tensor:
    """``batch`` clips at once: waves (B, N) on the CPU."""
    return pipe(prompts(batch), seeds=range(batch), batch_size=batch, **settings)


def run_theirs(pipe: AudioLDMPipeline, batch: int, *, seconds: float, steps: int) -> Tensor:
    """The same clips from the same noise: waves (B, N) on the CPU.

    Theirs starts at unit variance, ours at the variance of its first level, so their noise is scaled to ours.
    """
    spec, schedule = AudioSpec(), AudioLDM.__dataclass_fields__["schedule"].default_factory()  # type: ignore[misc]
    sigma = leading(schedule, steps)[0]
    multiple = 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    noise = PerSample(range(batch), spec.latent_shape(seconds, multiple))()
    start = noise * (sigma / (1 + sigma**2).sqrt()).float()
    audio = pipe(
        prompts(batch),
        audio_length_in_s=seconds,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        latents=start.to(pipe.unet.dtype),
    ).audios
    return torch.as_tensor(audio)


def aligned(mine: Tensor, other: Tensor, vocoder: SpeechT5HifiGan) -> tuple[Tensor, Tensor]:
    """Both waves from the same sample on: theirs keeps all of the vocoder's extra samples at the front, ours half."""
    config = vocoder.config
    sizes = zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
    extra = 0
    for rate, kernel in sizes:
        extra = extra * rate + (kernel - rate) % 2
    lead = extra // 2
    return mine[:, : mine.shape[1] - lead], other[:, lead:]


def prompts(batch: int) -> list[str]:
    """As many prompts as asked for."""
    return [PROMPTS[i % len(PROMPTS)] for i in range(batch)]
