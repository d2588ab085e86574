"""How the nets are run: the same three functions, exact or fast.

exact      the nets as they are, in the type they have (float32 unless asked otherwise)
split      float32 too, every product as three of bfloat16 on a processor's matrix units (``nets.split``): as near exact
           as rounding, not the same bytes
fast       bfloat16; on a GPU also channels-last and one CUDA graph a net: nothing to compile, starts at once
compiled   fast, and inductor fuses what lies between the convolutions: a minute or so at the first use of each length

Only exact keeps the bytes of a seed from one machine's settings to the next; the others are near it, not equal.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import SpeechT5HifiGan

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.machine import keep_freed, release_weight_pages, trim_heap
from audioldm.nets.hifigan import vocode
from audioldm.nets.machine import cache_folder, reason_against, split
from audioldm.nets.unet import NetCall, net_call
from audioldm.nets.vae import decode
from audioldm.pipeline.graphs import Graphed

Mode = Literal["exact", "split", "fast", "compiled"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Engine:
    """The nets of one pipeline, ready to be called."""

    nets: tuple[UNet2DConditionModel, AutoencoderKL, SpeechT5HifiGan]
    unet: NetCall
    """(x (B, C, T, F), t (B,), condition, **residuals) -> (B, C, T, F)"""
    decode: Callable[[Tensor], Tensor]
    """scaled latent (B, C, T, F) -> log-mel (B, 1, T, F)"""
    vocode: Callable[[Tensor], Tensor]
    """log-mel (B, 1, T, F) -> wave (B, 1, N)"""


def check_mode(mode: str) -> None:
    """Raise AudioLDMError for a mode that there is not, or not on this machine."""
    if mode not in MODES:
        raise AudioLDMError(f"mode={mode!r} is none of {', '.join(MODES)}.", "Use --mode exact.")
    if mode == "split" and (why := reason_against()):
        raise AudioLDMError(f"Mode split cannot run here: {why}.", "Use --mode exact or --mode fast.")


def default_dtype(mode: Mode) -> torch.dtype:
    """float32 for exact and split, bfloat16 for the others."""
    return torch.float32 if mode in ("exact", "split") else torch.bfloat16


def emulated(dtype: torch.dtype) -> bool:
    """Whether this processor has no instructions for ``dtype``, so that its products are not faster but slower.

    >>> emulated(torch.float32)
    False
    """
    if dtype not in (torch.bfloat16, torch.float16) or not torch.backends.mkldnn.is_available():
        return False
    short = "bf16" if dtype == torch.bfloat16 else "fp16"
    return not getattr(torch.ops.mkldnn, f"_is_mkldnn_{short}_supported")()


def warn_of_emulation(device: str | torch.device, dtype: torch.dtype) -> None:
    """Say it where nets on a processor are given a type that it has no instructions for."""
    if torch.device(device).type == "cpu" and emulated(dtype):
        name = str(dtype).removeprefix("torch.")
        warnings.warn(
            f"This processor has no instructions for {name}, which takes many times as long here as float32 does: "
            "use --mode exact, without --dtype.",
            AudioLDMWarning,
            stacklevel=3,
        )


def build_engine(
    mode: Mode, unet: UNet2DConditionModel, vae: AutoencoderKL, vocoder: SpeechT5HifiGan
) -> Engine:
    """The three functions for nets that are already where, and of the type, that they should be."""
    given, mode = (unet, vae, vocoder), "exact" if mode == "split" and unet.device.type != "cpu" else mode
    if unet.device.type == "cpu":
        keep_freed()
    if mode == "split":
        unet, vae, vocoder = split(unet), split(vae), split(vocoder)
    call = net_call(unet)

    def bare(x: Tensor, t: Tensor, film: Tensor | None, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        return call(x, t, Condition(film, tokens, mask))

    run_unet = wrap_for_mode(bare, mode, unet.device)

    def told(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
        two = condition.tokens2 is not None  # such nets are not compiled
        if residuals or two or mode == "exact" or (x.requires_grad and torch.is_grad_enabled()):
            return call(x, t, condition, **residuals)
        return run_unet(channels_last(x), t, condition.film, condition.tokens, condition.mask)

    def decoded(latent: Tensor) -> Tensor:
        return decode(vae, channels_last(latent) if mode != "exact" else latent)

    rest = (
        wrap_for_mode(decoded, mode, vae.device),
        wrap_for_mode(lambda mel: vocode(vocoder, mel), mode, vocoder.device),
    )
    if (
        unet.device.type == "cpu"
    ):  # a GPU has memory of its own, and its driver's thousand mappings take 2 ms to read
        rest = (settled(rest[0], given), settled(rest[1], given))
    return Engine(given, told, *rest)


def settled(function: Callable[[Tensor], Tensor], nets: tuple[nn.Module, ...]) -> Callable[[Tensor], Tensor]:
    """``function``, which begins without what other nets have left in memory, and leaves little itself."""

    def call(x: Tensor) -> Tensor:
        trim_heap()
        release_weight_pages(*nets)
        y = function(x)
        trim_heap()
        return y

    return call


def channels_last(x: Tensor) -> Tensor:
    """``x`` with its channels innermost, as fast convolutions read it."""
    return x.contiguous(memory_format=torch.channels_last)


def wrap_for_mode(function: Callable[..., Tensor], mode: Mode, device: torch.device) -> Callable[..., Tensor]:
    """``function`` as ``mode`` runs it on ``device``."""
    if mode in ("exact", "split"):
        return function
    if mode == "compiled":
        function = compiled(function, device)
    return Graphed(function) if device.type == "cuda" else function


def compiled(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """``function`` through inductor, for the shapes that it meets; on a CPU with the weights packed for its kernels."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))  # /tmp forgets
    options: dict[str, Any] | None = {"freezing": True} if device.type == "cpu" else None
    return torch.compile(function, dynamic=False, options=options)
