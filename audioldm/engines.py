"""How the nets are run: the same four functions, exact or fast.

exact   the nets as they are, in the type they have (float32 unless asked otherwise); keeps the bytes of a seed
fast    bfloat16 (float32 on a CPU without it), channels-last; on a GPU fused norms and sums (nets.fused), a CUDA graph
        a net, on a CPU more products (nets.pictures.hasten); near it, not equal
"""

import ctypes
import math
import os
import platform
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from typing import Any, Literal, TypeVar, get_args

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import SpeechT5HifiGan

from audioldm.adapters.adapter import Adapted
from audioldm.batch import Condition
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.clap import NoClap, TextCall, TwoTowers
from audioldm.nets.hifigan import vocode
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.nets.pictures import hasten
from audioldm.nets.unet import LatentUNet, NetCall, net_call
from audioldm.nets.vae import decode

Mode = Literal["exact", "fast"]
MODES: tuple[Mode, ...] = get_args(Mode)
Clap = TwoTowers | NoClap
Nets = tuple[LatentUNet, AutoencoderKL, SpeechT5HifiGan | ISTFTVocoder, Clap]
Net = TypeVar("Net", bound=nn.Module)
CAPS = ("AVX512_CORE", "AVX512_CORE_VNNI")  # of oneDNN's, that leave AVX-512 without bfloat16
PLANS = 4
"""of cuDNN's for a convolution that are tried: ten take 58 s for the vocoder of 64 clips and are no faster"""
FEW_SECONDS = 120
"""of sound, for which searches and recordings take longer (5.7 s of S) than they save (38 ms for ten seconds)"""


@dataclass(frozen=True)
class Functions:
    """The nets of one model, ready to be called."""

    embed_text: Callable[[Sequence[str]], Tensor]  # prompts -> CLAP's unit vectors (B, D)
    unet: NetCall  # (x (B, C, T, F), t (B,), condition, **residuals) -> (B, C, T, F)
    decode: Callable[[Tensor], Tensor]  # scaled latent (B, C, T, F) -> log-mel (B, 1, T, F)
    vocode: Callable[[Tensor], Tensor]  # log-mel (B, 1, T, F) -> wave (B, 1, N)


class Engine:
    """The nets of a model with their device, type, mode and adapters: all of it that changes; its copies share it."""

    def __init__(self, nets: Nets, mode: Mode = "exact", dtype: torch.dtype = torch.float32) -> None:
        self.nets, self.mode, self.dtype = nets, mode, dtype
        self.adapted: Adapted | None = None
        self.seconds = math.inf  # of sound to come, where it is known

    @cached_property
    def functions(self) -> Functions:
        return build_functions(self.mode, self.nets, few=self.seconds < FEW_SECONDS)

    def reset(self) -> None:
        """Build the functions anew at the next call: weights were changed, and fused layers may hold old ones."""
        self.__dict__.pop("functions", None)

    def to(self, device: str | torch.device, dtype: torch.dtype | None, mode: Mode) -> None:
        """Move the nets and choose how they run; CLAP stays in float32.   ``dtype`` None is the mode's own."""
        check_mode(mode)
        self.mode, self.dtype = mode, dtype or (torch.float32 if mode == "exact" else torch.bfloat16)
        if torch.device(device).type == "cpu" and emulated(self.dtype):
            name, end = str(self.dtype).removeprefix("torch."), "; leave out the dtype."
            if dtype is None:
                self.dtype, end = torch.float32, ", so that mode fast runs in float32."
            why = f"This processor has no instructions for {name}, which takes many times as long as float32"
            warnings.warn(why + end, AudioLDMWarning, stacklevel=3)
        *cast, clap = self.nets
        for net in cast:
            nn.Module.to(net, device=device, dtype=self.dtype).eval()  # diffusers' own warns of any cast
        if mode != "exact":
            for net in cast[:2]:
                net.to(memory_format=torch.channels_last)
        clap.to(device).eval()
        self.reset()


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise AudioLDMError(f"mode={mode!r} is none of {', '.join(MODES)}.", "Use --mode exact.")


def emulated(dtype: torch.dtype) -> bool:
    """Whether this processor has no instructions for ``dtype``, so that its products are not faster but slower."""
    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype)
    if short is None or not torch.backends.mkldnn.is_available():
        return False
    held = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in CAPS
    lacking = held or not torch.cpu._is_avx512_bf16_supported()
    if short == "bf16" and torch.cpu._is_avx512_supported() and lacking:
        return True  # oneDNN answers yes, and takes five times as long as in float32
    return not getattr(torch.ops.mkldnn, f"_is_mkldnn_{short}_supported")()


def build_functions(mode: Mode, nets: Nets, *, few: bool = False) -> Functions:
    """The functions for nets that are already where, and of the type, that they should be; for ``few`` sounds."""
    *cast, clap = nets
    unet, vae, vocoder = cast
    plain = net_call(unet)
    if mode == "exact":  # prompts one by one, so that the length of one moves no other
        return Functions(
            lambda prompts: torch.cat([clap.embed_text([prompt]) for prompt in prompts]),
            plain, partial(decode, vae), partial(vocode, vocoder),
        )  # fmt: skip
    on_gpu = unet.device.type == "cuda"
    record: Callable[..., Any] = partial(Graphed, search=not few) if on_gpu else lambda function: function
    recorded = (lambda function: function) if few else record  # what is called once a sound
    inside = partial(Tensor.contiguous, memory_format=torch.channels_last)
    quick_unet, quick_vae, quick_vocoder = map(fused, cast) if on_gpu else (*map(hasten, cast[:2]), vocoder)
    call = net_call(quick_unet)
    on_tensors = record(lambda x, t, *parts: call(inside(x), t, Condition(*parts)))

    def unet_call(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Any:
        if residuals or condition.tokens2 is not None or (x.requires_grad and torch.is_grad_enabled()):
            return plain(x, t, condition, **residuals)
        return on_tensors(x, t, condition.film, condition.tokens, condition.mask)

    embed_text: Callable[..., Tensor] = clap.embed_text
    if on_gpu and not isinstance(clap, NoClap):
        embed_text = partial(embed_text, function=text_call(clap, recorded))
    decoders = (lambda latent: decode(quick_vae, inside(latent))), partial(vocode, quick_vocoder)
    return Functions(embed_text, unet_call, *map(recorded, decoders))


def text_call(clap: TwoTowers, recorded: Callable[..., Any]) -> TextCall:
    """CLAP's text tower, recorded: tokens (B, L) up to multiples of 16, for few shapes."""
    # given a mask of words, transformers would build this sum on the CPU
    least, fill = torch.finfo(torch.float32).min, clap.tokenizer.pad_token_id
    vectors = recorded(lambda ids, mask: clap.text_vectors(ids, (1 - mask[:, None, None].float()) * least))

    def call(ids: Tensor, mask: Tensor) -> Any:
        more = min(-ids.shape[1] % 16, clap.max_tokens - ids.shape[1])
        return vectors(nnf.pad(ids, (0, more), value=fill), nnf.pad(mask, (0, more)))

    return call


def fused(net: Net) -> Net:
    """``net`` with fused blocks; without Triton, ``net`` itself."""
    if find_spec("triton"):
        from audioldm.nets.fused import fuse

        return fuse(net)
    why = "Triton is not installed, which mode fast fuses norms and sums with: batches take longer."
    use = "Install torch for CUDA from PyPI, which brings it."
    warnings.warn(f"{why} {use}", AudioLDMWarning, stacklevel=2)
    return net


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees for its next tensors, up to 512 MiB; nothing without glibc.

    glibc returns blocks above 32 MB at once, and the next costs a page fault for each 4 KiB: up to a quarter of a
    U-Net's call on a CPU.   No part of the library calls it but the command line.
    """
    if platform.libc_ver()[0] == "glibc":
        library, trim_threshold, mmap_max = ctypes.CDLL(None), -1, -4  # as malloc.h numbers them
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 512 * 2**20)


class Graphed:
    """A function of tensors, recorded for each combination of shapes that it meets (the last ``keep``) and replayed.

    The function must not read a tensor's value on the CPU, nor draw random numbers.   Weights may change in place.
    """

    def __init__(self, function: Callable[..., Tensor], *, keep: int = 4, search: bool = True) -> None:
        self.function, self.keep, self.search = function, keep, search
        self.recordings = OrderedDict[tuple[object, ...], Any]()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor | None) -> Tensor:
        key = tuple(None if part is None else (part.shape, part.dtype, part.device) for part in inputs)
        if key not in self.recordings:
            self.recordings[key] = self.record(inputs)
            if len(self.recordings) > self.keep:
                self.recordings.popitem(last=False)
        self.recordings.move_to_end(key)
        graph, places, output = self.recordings[key]
        for place, part in zip(places, inputs, strict=True):
            if place is not None and part is not None:
                place.copy_(part)
        graph.replay()
        return output.clone()  # type: ignore[no-any-return]

    def record(self, inputs: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
        """The graph, and the memory that it reads and writes; first a warm-up on a stream of its own."""
        places = tuple(None if part is None else part.clone() for part in inputs)
        cudnn = torch.backends.cudnn
        before = cudnn.benchmark, cudnn.benchmark_limit
        cudnn.benchmark, cudnn.benchmark_limit = self.search, PLANS
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):  # in which cuDNN chooses its kernels
                    self.function(*places)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # cuBLAS's memory is shared otherwise, and who clears it, as torch.compile does, takes it from the graph
            torch._C._cuda_clearCublasWorkspaces()
            with torch.cuda.graph(graph):
                output = self.function(*places)
        finally:
            torch._C._cuda_clearCublasWorkspaces()
            cudnn.benchmark, cudnn.benchmark_limit = before
        return graph, places, output
