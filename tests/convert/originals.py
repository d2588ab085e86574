"""Checkpoints in the original's names, written by a table of their own and not by the importer's rules."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import torch

Names = list[tuple[str, str]]


def published_keys() -> Iterator[tuple[str, tuple[int, ...]]]:
    """The key list of audioldm-s-full: key and shape."""
    for line in (Path(__file__).parent / "s_full.keys").read_text().splitlines()[1:]:
        name, shape = line.split()
        parts = re.split(r"\{([\d,]+)\}", name)
        for chosen in itertools.product(*(part.split(",") for part in parts[1::2])):
            key = "".join(a + b for a, b in itertools.zip_longest(parts[::2], chosen, fillvalue=""))
            yield key, () if shape == "-" else tuple(map(int, shape.split("x")))


def back(state: dict, names: Names) -> dict:
    """Every key with the pairs (ours, theirs) applied in order, as plain text."""
    renamed = {}
    for key, value in state.items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        renamed[key] = value.clone()
    return renamed


RES = [
    (".norm1.", ".in_layers.0."), (".conv1.", ".in_layers.2."), (".time_emb_proj.", ".emb_layers.1."),
    (".norm2.", ".out_layers.0."), (".conv2.", ".out_layers.3."), (".conv_shortcut.", ".skip_connection."),
]  # fmt: skip

# For two levels of one layer each, attention at the second: blocks counted by hand.
UNET: Names = [
    ("time_embedding.linear_1.", "time_embed.0."), ("time_embedding.linear_2.", "time_embed.2."),
    ("class_embedding.", "film_emb."), ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."), ("conv_out.", "out.2."),
    ("down_blocks.0.resnets.0.", "input_blocks.1.0."), ("down_blocks.0.downsamplers.0.conv.", "input_blocks.2.0.op."),
    ("down_blocks.1.resnets.0.", "input_blocks.3.0."), ("down_blocks.1.attentions.0.", "input_blocks.3.1."),
    ("mid_block.resnets.0.", "middle_block.0."), ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
    ("up_blocks.0.resnets.0.", "output_blocks.0.0."), ("up_blocks.0.attentions.0.", "output_blocks.0.1."),
    ("up_blocks.0.resnets.1.", "output_blocks.1.0."), ("up_blocks.0.attentions.1.", "output_blocks.1.1."),
    ("up_blocks.0.upsamplers.0.conv.", "output_blocks.1.2.conv."),
    ("up_blocks.1.resnets.0.", "output_blocks.2.0."), ("up_blocks.1.resnets.1.", "output_blocks.3.0."),
]  # fmt: skip

VAE: Names = [
    ("coder.conv_norm_out.", "coder.norm_out."),
    ("mid_block.resnets.0.", "mid.block_1."), ("mid_block.resnets.1.", "mid.block_2."),
    ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."), ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
    ("mid_block.attentions.0.to_k.", "mid.attn_1.k."), ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
    ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
    ("encoder.down_blocks.", "encoder.down."), (".resnets.", ".block."), (".conv_shortcut.", ".nin_shortcut."),
    (".downsamplers.0.", ".downsample."), (".upsamplers.0.", ".upsample."),
]  # fmt: skip

CLAP: Names = [
    ("text_model.", "text_branch."), ("audio_model.audio_encoder.", "audio_branch."),
    ("projection.linear1.", "projection.0."), ("projection.linear2.", "projection.2."),
    ("batch_norm.", "bn0."), ("layernorm_before.", "norm1."), ("layernorm_after.", "norm2."),
]  # fmt: skip
AUDIO_BLOCK: Names = [
    ("attention.self.relative", "attn.relative"), ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."), ("output.dense.", "mlp.fc2."),
]  # fmt: skip


def unet_state(unet) -> dict:
    state = back(unet.state_dict(), UNET)
    inner = {}
    for key, value in state.items():
        if not re.match(r"(input_blocks|output_blocks)\.\d+\.1\.|middle_block\.1\.", key):
            for ours, theirs in RES:
                key = key.replace(ours, theirs)
        inner[key] = value
    return inner


def contexts_state(net, many: int) -> dict:
    """A toy U-Net with ``many`` transformers a block, as AudioLDM 2 names it; counted by hand as UNET is."""
    names = [
        ("mid_block.resnets.1.", f"middle_block.{many + 1}."),
        ("up_blocks.0.upsamplers.0.conv.", f"output_blocks.1.{many + 1}.conv."),
    ]
    for j in range(many):
        names += [
            (f"down_blocks.1.attentions.{j}.", f"input_blocks.3.{j + 1}."),
            (f"mid_block.attentions.{j}.", f"middle_block.{j + 1}."),
            (f"up_blocks.0.attentions.{j}.", f"output_blocks.0.{j + 1}."),
            (f"up_blocks.0.attentions.{many + j}.", f"output_blocks.1.{j + 1}."),
        ]
    attention = {k: v for k, v in net.state_dict().items() if ".attentions." in k}
    rest = {k: v for k, v in net.state_dict().items() if ".attentions." not in k}

    class Rest:
        @staticmethod
        def state_dict() -> dict:
            return {k.replace(*names[0]).replace(*names[1]): v for k, v in rest.items()}

    return {**unet_state(Rest), **back(attention, names)}


def vae_state(vae) -> dict:
    levels = len(vae.config.block_out_channels)
    ups = [(f"decoder.up_blocks.{i}.", f"decoder.up.{levels - 1 - i}.") for i in range(levels)]
    state = back(vae.state_dict(), ups + VAE)
    return {
        k: v[:, :, None, None] if re.search(r"attn_1\.(q|k|v|proj_out)\.weight", k) else v
        for k, v in state.items()
    }


def vocoder_state(vocoder) -> dict:
    state = back(vocoder.state_dict(), [("upsampler.", "ups.")])
    return {k: v for k, v in state.items() if k not in ("mean", "scale")}


def weight_normed(state: dict) -> dict:
    """The same convolutions as direction and length, as a vocoder is trained."""
    new = {}
    for key, value in state.items():
        if key.endswith("weight"):
            norm = value.flatten(1).norm(dim=1).view(-1, *[1] * (value.dim() - 1))
            new[key + "_g"], new[key + "_v"] = norm, value * 3.0 / norm
        else:
            new[key] = value
    return new


def clap_state(clap) -> dict:
    """Both towers, with all that LAION's file has and transformers' does not."""
    own = {**clap.text_encoder.state_dict(), **clap.audio_encoder.state_dict()}
    state = {k: v for k, v in back(own, CLAP).items() if not k.endswith("token_type_ids")}
    audio = {k: v for k, v in state.items() if k.startswith("audio_branch.layers.")}
    state = {k: v for k, v in state.items() if k not in audio}
    audio = back(audio, AUDIO_BLOCK)
    for key in [k for k in audio if ".attention.self.query." in k]:
        three = [audio.pop(key.replace("query", name)) for name in ("query", "key", "value")]
        audio[key.replace("attention.self.query", "attn.qkv")] = torch.cat(three)
    return {
        **state,
        **audio,
        "logit_scale_a": torch.tensor(2.6),
        "logit_scale_t": torch.tensor(2.6),
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": torch.zeros(3, 1, 4),
        "audio_branch.logmel_extractor.melW": torch.zeros(3, 2),
        "audio_branch.layers.0.blocks.1.attn_mask": torch.zeros(1, 64, 64),
        "audio_branch.tscam_conv.weight": torch.zeros(1),
        "audio_branch.head.bias": torch.zeros(1),
        "text_transform.sequential.0.weight": torch.zeros(1),
        "audio_transform.sequential.3.bias": torch.zeros(1),
    }


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


def whole(pipe, *, average: dict | None = None, condition: str = "cond_stage_model.", many: int = 0) -> dict:
    """The state_dict of a latent diffusion checkpoint that holds ``pipe``; ``average`` is another U-Net's state.

    ``many``: transformers a block in the U-Net of AudioLDM 2's kind.
    """
    unet = contexts_state(pipe.unet, many) if many else unet_state(pipe.unet)
    state = {
        **prefixed(unet, "model.diffusion_model."),
        **prefixed(vae_state(pipe.vae), "first_stage_model."),
        **prefixed(vocoder_state(pipe.vocoder), "first_stage_model.vocoder."),
        **prefixed(clap_state(pipe.clap), condition + "model."),
        "scale_factor": torch.tensor(pipe.vae.config.scaling_factor),
        "betas": pipe.schedule.betas.float(),
        "alphas_cumprod": pipe.schedule.alphas_cumprod.float(),
        "sqrt_recipm1_alphas_cumprod": torch.zeros(1000),
        "posterior_mean_coef1": torch.zeros(1000),
        "logvar": torch.zeros(1000),
    }
    if average is not None:
        flat = {("diffusion_model." + k).replace(".", ""): v for k, v in average.items()}
        state |= prefixed(flat, "model_ema.")
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    return state


@torch.no_grad()
def enliven(module: torch.nn.Module, *, seed: int, gain: float = 1.0) -> None:
    """Random weights that let a signal through: libraries start so small that a wrong net would sound the same."""
    g = torch.Generator().manual_seed(seed)
    for key, value in module.named_parameters():
        if "extractor" in key:  # a Fourier transform written as a convolution is no weight
            continue
        if value.dim() > 1 and "embedding" not in key:
            # (in, out, width) of a transposed convolution: a stride of half the width adds two taps
            transposed = "upsampler" in key or ".ups." in key or key.startswith("ups.")
            fan = value.shape[0] * 2 if transposed else value[0].numel()
            value.copy_(torch.randn(value.shape, generator=g) * (gain / fan**0.5))
        elif key.endswith("weight") and value.dim() == 1:
            value.copy_(1 + 0.1 * torch.randn(value.shape, generator=g))
        elif key.endswith("bias"):
            value.copy_(0.1 * torch.randn(value.shape, generator=g))
