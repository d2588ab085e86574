"""How the nets are run: the same four functions, exact or fast.

exact      the nets as they are, in the type they have (float32 unless asked otherwise)
split      float32 too, every product as three of bfloat16 on a processor's matrix units (nets.machine): as near exact
           as rounding, not the same bytes
fast       bfloat16; on a GPU also channels-last and one CUDA graph a net: nothing to compile, starts at once
compiled   fast, and inductor fuses what lies between the convolutions: a minute or so at the first use of each length

Only exact keeps the bytes of a seed from one machine's settings to the next; the others are near it, not equal.
"""

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import SpeechT5HifiGan

from audioldm.adapters.inject import Adapted
from audioldm.batch import Condition
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.clap import NoClap, PretrainedClap, SmallClap
from audioldm.nets.fused import compile_blocks, fuse
from audioldm.nets.hifigan import CHUNK, vocode
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.nets.machine import (
    cache_folder,
    keep_freed,
    reason_against,
    release_weight_pages,
    split,
    trim_heap,
)
from audioldm.nets.unet import LatentUNet, NetCall, net_call
from audioldm.nets.vae import decode

Mode = Literal["exact", "split", "fast", "compiled"]
MODES: tuple[Mode, ...] = get_args(Mode)
Clap = SmallClap | PretrainedClap | NoClap
Nets = tuple[LatentUNet, AutoencoderKL, SpeechT5HifiGan | ISTFTVocoder, Clap]


@dataclass(frozen=True)
class Functions:
    """The nets of one model, ready to be called."""

    embed_text: Callable[[Sequence[str]], Tensor]
    """prompts -> CLAP's unit vectors (B, D), in the float32 modes each by itself"""
    unet: NetCall
    """(x (B, C, T, F), t (B,), condition, **residuals) -> (B, C, T, F)"""
    decode: Callable[[Tensor], Tensor]
    """scaled latent (B, C, T, F) -> log-mel (B, 1, T, F)"""
    vocode: Callable[[Tensor], Tensor]
    """log-mel (B, 1, T, F) -> wave (B, 1, N)"""


class Engine:
    """The nets of a model with the device, number type, mode and adapters that they run with.

    It is the only part of a model that changes; copies of a model share it.
    """

    def __init__(self, nets: Nets, mode: Mode = "exact", dtype: torch.dtype = torch.float32) -> None:
        self.nets, self.mode, self.dtype = nets, mode, dtype
        self.adapted: Adapted | None = None

    @cached_property
    def functions(self) -> Functions:
        """The nets as ``mode`` runs them, built when they are first needed."""
        return build_functions(self.mode, self.nets)

    def reset(self) -> None:
        """Build the functions anew at the next call: weights were changed, and compiled code may hold the old ones."""
        self.__dict__.pop("functions", None)

    def to(self, device: str | torch.device, dtype: torch.dtype | None, mode: Mode) -> None:
        """Move the nets and choose how they run; CLAP stays in float32.   ``dtype`` None is the mode's own."""
        check_mode(mode)
        self.mode, self.dtype = mode, dtype or default_dtype(mode)
        warn_of_emulation(device, self.dtype)
        *cast, clap = self.nets
        for net in cast:
            nn.Module.to(net, device=device, dtype=self.dtype).eval()  # diffusers' own warns of any cast
        if mode not in ("exact", "split"):
            for net in cast[:2]:
                net.to(memory_format=torch.channels_last)
        clap.to(device).eval()
        self.reset()


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
    """Warn where nets on a processor are given a type that it has no instructions for."""
    if torch.device(device).type == "cpu" and emulated(dtype):
        name = str(dtype).removeprefix("torch.")
        warnings.warn(
            f"This processor has no instructions for {name}, which takes many times as long here as float32 does: "
            "use --mode exact, without a dtype.",
            AudioLDMWarning,
            stacklevel=4,
        )


def build_functions(mode: Mode, nets: Nets) -> Functions:
    """The functions for nets that are already where, and of the type, that they should be."""
    unet, vae, vocoder, clap = nets
    alone = mode in ("exact", "split")  # so that the length of a prompt moves no other
    on_cpu = unet.device.type == "cpu"
    mode = "exact" if mode == "split" and not on_cpu else mode
    if on_cpu:
        keep_freed()
    if mode == "split":
        unet, vae, vocoder = split(unet), split(vae), split(vocoder)
    call = net_call(unet)
    if unet.device.type == "cuda" and mode == "fast":
        unet, vae = fuse(unet), fuse(vae)
    if unet.device.type == "cuda" and mode == "compiled":
        unet, vae = compile_blocks(unet), compile_blocks(vae)
    run_call = net_call(unet)

    def bare(x: Tensor, t: Tensor, film: Tensor | None, tokens: Tensor | None, mask: Tensor | None) -> Tensor:
        return run_call(x, t, Condition(film, tokens, mask))

    run_unet = wrap_for_mode(bare, mode, unet.device)

    def unet_call(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
        two = condition.tokens2 is not None  # such nets are not compiled
        if residuals or two or mode == "exact" or (x.requires_grad and torch.is_grad_enabled()):
            return call(x, t, condition, **residuals)
        return run_unet(channels_last(x), t, condition.film, condition.tokens, condition.mask)

    def vae_decode(latent: Tensor) -> Tensor:
        return decode(vae, channels_last(latent) if mode != "exact" else latent)

    decode_mel = wrap_for_mode(vae_decode, mode, vae.device)
    # an inverse STFT and a few wide products: inductor would take longer than it saves
    vocoder_mode: Mode = "fast" if mode == "compiled" and isinstance(vocoder, ISTFTVocoder) else mode

    def mel_to_wave(mel: Tensor) -> Tensor:
        if isinstance(vocoder, ISTFTVocoder):
            return vocoder.vocode(mel[:, 0], chunk=CHUNK)[:, None]
        return vocode(vocoder, mel)

    vocode_mel = wrap_for_mode(mel_to_wave, vocoder_mode, vocoder.device)

    def embed_text(prompts: Sequence[str]) -> Tensor:
        vectors = torch.cat([clap.embed_text([p]) for p in prompts]) if alone else clap.embed_text(prompts)
        if on_cpu:
            release_weight_pages(clap)
        return vectors

    if on_cpu:  # a GPU has memory of its own, and its driver's thousand mappings take 2 ms to read
        decode_mel, vocode_mel = frugal(decode_mel, nets[:3]), frugal(vocode_mel, nets[:3])
    return Functions(embed_text, unet_call, decode_mel, vocode_mel)


def frugal(function: Callable[[Tensor], Tensor], nets: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
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
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))  # /tmp forgets
        # on a CPU the weights are packed for inductor's kernels
        if device.type == "cpu":
            function = torch.compile(function, dynamic=False, options={"freezing": True})
    return Graphed(function) if device.type == "cuda" else function


WARM_UPS = 3
"""Calls before a recording: cuDNN chooses its kernels and inductor compiles in them."""


@dataclass(frozen=True)
class Recording:
    """One CUDA graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor | None, ...]
    output: Tensor


class Graphed:
    """A function of tensors, recorded for each combination of shapes that it meets and replayed from then on.

    The last ``keep`` recordings are kept; each holds its own memory.   The function must not read a tensor's value on
    the CPU, nor draw random numbers.   Weights may change in place, their storage may not.
    """

    def __init__(self, function: Callable[..., Tensor], *, keep: int = 4) -> None:
        self.function, self.keep = function, keep
        self.recordings: OrderedDict[tuple[object, ...], Recording] = OrderedDict()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """The function's answer, in memory of its own."""
        key = tuple(None if part is None else (part.shape, part.dtype, part.device) for part in inputs)
        if key not in self.recordings:
            self.recordings[key] = record(self.function, inputs)
            if len(self.recordings) > self.keep:
                self.recordings.popitem(last=False)
        self.recordings.move_to_end(key)
        recording = self.recordings[key]
        for place, part in zip(recording.inputs, inputs, strict=True):
            if place is not None and part is not None:
                place.copy_(part)
        recording.graph.replay()
        return recording.output.clone()


def record(function: Callable[..., Tensor], inputs: tuple[Tensor | None, ...]) -> Recording:
    """Warm up on a stream of its own, as capturing needs it, then record."""
    places = tuple(None if part is None else part.clone() for part in inputs)
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = function(*places)
    finally:
        torch.backends.cudnn.benchmark = benchmark
    return Recording(graph, places, output)
