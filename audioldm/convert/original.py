"""A model of AudioLDM's shape as a checkpoint of the original code, with all that its strict loader wants."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from audioldm.components import Components
from audioldm.convert import first_stage, unet
from audioldm.convert.conditioners import CLAP_NAMES
from audioldm.convert.first_stage import VOCODER_NAMES, vae_names
from audioldm.convert.names import rename
from audioldm.diffusion.schedule import NoiseSchedule
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import TwoTowers
from audioldm.nets.folder import State
from audioldm.nets.unet import UNetSizes
from audioldm.paths import staged

CLAP_PREFIX = "cond_stage_model.model."
CLASSES = 527  # of AudioSet
COMPUTED = r".*\.(position_ids|token_type_ids)"


def save_checkpoint(model: Components, path: Path) -> None:
    """Write ``model`` as an original ``.ckpt``.   Raises AudioLDMError where the original has no such model."""
    with staged(path) as draft:
        torch.save({"state_dict": original_state(model)}, draft)


def original_state(model: Components) -> State:
    """The state_dict of AudioLDM's ``LatentDiffusion`` that holds ``model``; no moving average."""
    config, clap, heads = model.unet.config, model.clap, model.unet.config.attention_head_dim
    channels = tuple(config.block_out_channels)
    heads = tuple(heads) if isinstance(heads, list | tuple) else (heads,)
    attention = tuple(name != "DownBlock2D" for name in config.down_block_types)
    film = [config.class_embed_type != "simple_projection", not config.class_embeddings_concat]
    lacks = {
        "the shape of AudioLDM's U-Net (FiLM, one transformer a block)":
            any((*film, model.token_encoder, config.use_linear_projection, attention[0])),
        f"the original's prediction and heads, but {model.prediction} and {heads}":
            (model.prediction, heads) != ("eps", unet.heads(channels)),
        "LAION's CLAP with both towers": not all(getattr(clap, part, None) for part in ("audio_encoder", "extractor")),
        "the original's vocoder": getattr(model.vocoder.config, "normalize_before", True),
    }  # fmt: skip
    for what in filter(lacks.get, lacks):
        raise AudioLDMError(f"{model.name} has not {what}.", "Export to a folder.")
    shape = UNetSizes(channels, layers=config.layers_per_block, attention=attention, contexts=(None,))
    names = vae_names(len(model.vae.config.block_out_channels))
    first = rename(model.vae.state_dict(), names, part="VAE", back=True)
    # its attention's matrices are 1 x 1 convolutions there
    first |= {key: value[..., None, None] for key, value in first.items() if value.dim() == 2}
    state, more = model.vocoder.state_dict(), "mean|scale"
    parts: dict[str, Mapping[str, Tensor]] = {
        unet.PREFIX: rename(model.unet.state_dict(), unet.names(shape), part="U-Net", back=True),
        first_stage.PREFIX: first,
        f"{first_stage.PREFIX}vocoder.": rename(state, VOCODER_NAMES, part="vocoder", drop=more, back=True),
        CLAP_PREFIX: clap_state(cast(TwoTowers, clap)),
        "": {**schedule_state(model.schedule), "scale_factor": torch.tensor(float(model.vae.config.scaling_factor))},
    }  # fmt: skip
    return {prefix + k: v.contiguous() for prefix, state in parts.items() for k, v in state.items()}


def clap_state(clap: TwoTowers) -> State:
    """Both towers in LAION's names, with all that its file has besides."""
    towers = {**clap.text_encoder.state_dict(), **clap.audio_encoder.state_dict()}
    parted = rename(towers, CLAP_NAMES, part="CLAP", drop=COMPUTED, back=True)
    state = State()
    for (
        key,
        value,
    ) in parted.items():  # an attention's query, key and value follow each other, and are one there
        name = re.sub(r"\.attn\.(query|key|value)\.", ".attn.qkv.", key)
        state[name] = torch.cat([state[name], value]) if name in state else value
    config, width, front, sound = clap.audio_encoder.config, clap.dim, clap.extractor, "audio_branch."
    places = clap.text_encoder.config.max_position_embeddings
    state |= {"text_branch.embeddings.position_ids": torch.arange(places)[None]}
    state |= {f"logit_scale_{side}": torch.tensor(math.log(1 / 0.07)) for side in "at"}
    # torchlibrosa's short-time Fourier transform as convolutions: a periodic Hann window times cosines and sines
    size = front.fft_window_size
    turns = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)).double() * (2 * math.pi / size)
    window = torch.hann_window(size, dtype=torch.float64)
    for key, wave in (("real", turns.cos()), ("imag", -turns.sin())):
        state[f"{sound}spectrogram_extractor.stft.conv_{key}.weight"] = (wave * window)[:, None].float()
    state[f"{sound}logmel_extractor.melW"] = torch.from_numpy(front.mel_filters_slaney).float()
    state |= shift_masks(clap.audio_encoder.audio_model.audio_encoder)
    grid = config.spec_size // config.patch_stride[0] // 2 ** (len(config.depths) - 1)
    last = (CLASSES, config.hidden_size, max(1, grid // (config.spec_size // config.num_mel_bins)), 3)
    unused = {f"{sound}tscam_conv": last, f"{sound}head": (CLASSES, CLASSES)}
    unused |= {f"{side}_transform.sequential.{i}": (width,) * 2 for side in ("text", "audio") for i in (0, 3)}
    for layer, shape in unused.items():
        state |= {f"{layer}.weight": torch.zeros(shape), f"{layer}.bias": torch.zeros(shape[0])}
    return state


def shift_masks(encoder: Any) -> State:
    """The attention masks of an HTS-AT's shifted windows.   Liu et al. 2021 (Swin, arXiv:2103.14030) sec. 3.2."""
    masks: State = {}
    for i, layer in enumerate(encoder.layers):
        side = encoder.config.spec_size // encoder.config.patch_stride[0] // 2**i
        for j, block in enumerate(layer.blocks):
            block.set_shift_and_window_size((side, side))  # as when it runs
            if (mask := block.get_attn_mask(side, side, torch.float32, "cpu")) is not None:
                masks[f"audio_branch.layers.{i}.blocks.{j}.attn_mask"] = mask
    return masks


def schedule_state(schedule: NoiseSchedule) -> State:
    """The numbers of DDPM's schedule (arXiv:2006.11239 eq. 4 to 7), float32, all from the betas."""
    betas = schedule.betas.float().double()  # all follows from what the file can hold
    product = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), product[:-1]])
    variance = betas * (1 - before) / (1 - product)
    state = {
        "betas": betas, "alphas_cumprod": product, "alphas_cumprod_prev": before, "logvar": torch.zeros(len(betas)),
        "sqrt_alphas_cumprod": product.sqrt(), "sqrt_one_minus_alphas_cumprod": (1 - product).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - product).log(), "sqrt_recip_alphas_cumprod": product.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / product - 1).sqrt(), "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - product),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - product),
    }  # fmt: skip
    return {key: value.float() for key, value in state.items()}
