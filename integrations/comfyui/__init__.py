"""audioldm in ComfyUI: load a model, put adapters on it, generate, edit.

Copy this folder to ComfyUI's ``custom_nodes`` and run ``pip install audioldm`` in its environment.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch

from audioldm import AudioLDM
from audioldm.datasets.decode import resample
from audioldm.serve.service import EDITS, EditRequest

Inputs = dict[str, dict[str, tuple[Any, ...]]]
Audio = dict[str, Any]
"""ComfyUI's AUDIO: a waveform (B, C, N) in [-1, 1] and its sample_rate"""
PROMPT = ("STRING", {"default": "", "multiline": True})
SEED = ("INT", {"default": 0, "min": 0, "max": 2**53 - 1, "control_after_generate": True})
STEPS = ("INT", {"default": 0, "min": 0, "max": 1000, "tooltip": "0: the model's own"})
GUIDANCE = ("FLOAT", {"default": 0.0, "min": 0.0, "max": 30.0, "step": 0.1, "tooltip": "0: the model's own"})


def seconds(default: float) -> tuple[Any, ...]:
    """A length, or a place."""
    return ("FLOAT", {"default": default, "min": 0.0, "max": 600.0, "step": 0.01})


@dataclass(frozen=True)
class Model:
    """A model to open and the adapters on it: what travels between the nodes."""

    ref: str
    device: str
    mode: str
    adapters: tuple[str, ...] = ()

    def load(self) -> AudioLDM:
        """The pipeline; the last one stays in memory."""
        return load(self)


@lru_cache(maxsize=1)
def load(model: Model) -> AudioLDM:
    """Open a model and put its adapters on."""
    place = model.device
    if place == "auto":
        place = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = AudioLDM.from_pretrained(model.ref or None, device=place, mode=model.mode)
    return pipe.adapt(*model.adapters)


def options(steps: int, guidance: float, negative: str) -> dict[str, Any]:
    """Settings that are not the model's own, and ComfyUI's bar."""
    return {
        "steps": steps or None,
        "guidance": guidance or None,
        "negative": negative or None,
        "on_step": bar(),
    }


def bar() -> Callable[[int, int], None] | None:
    """Moves ComfyUI's bar and lets its stop button stop; None outside of it."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ImportError:
        return None
    shown = ProgressBar(1)

    def on_step(done: int, steps: int) -> None:
        throw_exception_if_processing_interrupted()
        shown.update_absolute(done, steps)

    return on_step


def as_audio(waves: torch.Tensor, rate: int) -> tuple[Audio]:
    """Waves (B, N) as ComfyUI takes them."""
    return ({"waveform": waves[:, None].float().cpu(), "sample_rate": rate},)


class Node:
    """What the four have in common."""

    CATEGORY = "audio/audioldm"
    FUNCTION = "run"


class LoadModel(Node):
    """A model folder, hub id or original .ckpt; empty is the embedded model."""

    RETURN_TYPES = ("AUDIOLDM",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """ComfyUI's declaration."""
        return {
            "required": {
                "ref": ("STRING", {"default": ""}),
                "device": (["auto", "cpu", "cuda", "mps"],),
                "mode": (["exact", "fast"],),
            }
        }

    def run(self, ref: str, device: str, mode: str) -> tuple[Model]:
        """Name it; it is opened when it is needed."""
        return (Model(ref, device, mode),)


class Adapter(Node):
    """The model with one adapter more."""

    RETURN_TYPES = ("AUDIOLDM",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """ComfyUI's declaration."""
        weight = ("FLOAT", {"default": 1.0, "min": -4.0, "max": 4.0, "step": 0.05})
        return {"required": {"model": ("AUDIOLDM",), "file": ("STRING", {"default": ""}), "weight": weight}}

    def run(self, model: Model, file: str, weight: float) -> tuple[Model]:
        """Add it."""
        return (replace(model, adapters=(*model.adapters, f"{file}:{weight:g}")),)


class Generate(Node):
    """Sounds from words, with seeds seed, seed + 1, ..."""

    RETURN_TYPES = ("AUDIO",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """ComfyUI's declaration."""
        clips = ("INT", {"default": 1, "min": 1, "max": 64})
        return {
            "required": {
                "model": ("AUDIOLDM",), "prompt": PROMPT, "seconds": seconds(5.12), "seed": SEED, "clips": clips,
            },
            "optional": {"negative": PROMPT, "steps": STEPS, "guidance": GUIDANCE},
        }  # fmt: skip

    def run(
        self, model: Model, prompt: str, seconds: float, seed: int, clips: int,
        negative: str = "", steps: int = 0, guidance: float = 0.0,
    ) -> tuple[Audio]:  # fmt: skip
        """Make them."""
        pipe = model.load()
        seeds = range(seed, seed + clips)
        waves = pipe(prompt, seeds=seeds, seconds=seconds, **options(steps, guidance, negative))
        return as_audio(waves, pipe.spec.rate)


class Edit(Node):
    """An edit of a sound, the same for every one of a batch; its channels become one."""

    RETURN_TYPES = ("AUDIO",)
    KINDS: ClassVar[list[str]] = list(EDITS)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """ComfyUI's declaration."""
        strength = ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0, "step": 0.01})
        return {
            "required": {
                "model": ("AUDIOLDM",), "audio": ("AUDIO",), "kind": (cls.KINDS,), "prompt": PROMPT,
                "strength": strength, "begin": seconds(0.0), "end": seconds(0.0), "added": seconds(0.0), "seed": SEED,
            },
            "optional": {"negative": PROMPT, "steps": STEPS, "guidance": GUIDANCE},
        }  # fmt: skip

    def run(
        self, model: Model, audio: Audio, kind: str, prompt: str, strength: float, begin: float, end: float,
        added: float, seed: int, negative: str = "", steps: int = 0, guidance: float = 0.0,
    ) -> tuple[Audio]:  # fmt: skip
        """Make it."""
        pipe = model.load()
        request = EditRequest(kind, None, prompt, begin, end, strength, added)
        request.check()
        waves = resample(audio["waveform"].float().mean(1), audio["sample_rate"], pipe.spec.rate)
        settings = {"seed": seed, **options(steps, guidance, negative)}
        edited = [request.apply(pipe, wave, **settings) for wave in waves]
        return as_audio(torch.stack(edited), pipe.spec.rate)


NODE_CLASS_MAPPINGS = {
    "AudioLDMLoadModel": LoadModel, "AudioLDMAdapter": Adapter, "AudioLDMGenerate": Generate, "AudioLDMEdit": Edit,
}  # fmt: skip
NODE_DISPLAY_NAME_MAPPINGS = {
    "AudioLDMLoadModel": "AudioLDM: load a model", "AudioLDMAdapter": "AudioLDM: adapter",
    "AudioLDMGenerate": "AudioLDM: generate", "AudioLDMEdit": "AudioLDM: edit",
}  # fmt: skip
