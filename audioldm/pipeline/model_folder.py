"""What a model folder says of itself: ``audioldm.json``, the hashes of its weights, and which CLAP it holds."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import SmallClap
from audioldm.nets.folder import read_json, save_component, sha256, weight_file
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.published.folder import load_pretrained_clap
from audioldm.pipeline.scheduler import write_scheduler
from audioldm.spec import AudioSpec

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

COMPONENTS = ("unet", "vae", "vocoder")
WEIGHED = (*COMPONENTS, "text_encoder", "audio_encoder")
SETTINGS = ("seconds", "steps", "sampler", "grid", "guidance")


def read_about(path: Path) -> dict[str, Any]:
    """``audioldm.json``, with its spec as an AudioSpec; AudioLDMError where something is missing."""
    about = read_json(path)
    if missing := [key for key in ("name", "spec", "defaults") if key not in about]:
        raise AudioLDMError(f"{path} lacks {', '.join(missing)}.", "Copy the model folder again.")
    if missing := [key for key in SETTINGS if key not in about["defaults"]]:
        raise AudioLDMError(f"{path} has no default for {', '.join(missing)}.", "Export the model again.")
    try:
        return {**about, "spec": AudioSpec(**about["spec"])}
    except TypeError as error:
        raise AudioLDMError(
            f"{path}: its spec is unknown here ({error}).", "Export the model again."
        ) from None


def load_clap(folder: Path) -> SmallClap | PretrainedClap:
    """The small CLAP of this project, or a published one, by what its audio tower is."""
    return SmallClap.load(folder) if has_small_clap(folder) else load_pretrained_clap(folder)


def has_small_clap(folder: Path) -> bool:
    """Whether the audio tower is that of this project, which no published folder has."""
    config = folder / "audio_encoder" / "config.json"
    return config.is_file() and read_json(config).get("_class_name") == "MelEncoder"


def check_hashes(folder: Path, expected: dict[str, str]) -> dict[str, str]:
    """The sha256 of every weight file; AudioLDMError where one is not what ``audioldm.json`` says."""
    parts = [part for part in WEIGHED if part in expected or (folder / part).is_dir() or part in COMPONENTS]
    found = {part: sha256(weight_file(folder / part)) for part in parts}
    for part, digest in found.items():
        if part in expected and digest != expected[part]:
            raise AudioLDMError(
                f"{weight_file(folder / part)} is truncated or was changed: its sha256 is {digest[:12]}..., "
                f"not {expected[part][:12]}....",
                "Copy the model folder again.",
            )
    return found


def save_folder(pipe: "AudioLDM", folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write every component of ``pipe`` and what describes them; weights are cast to ``dtype`` if given."""
    for name in COMPONENTS:
        save_component(getattr(pipe, name), folder / name, dtype=dtype)
    pipe.clap.save(folder, dtype=dtype)
    write_scheduler(folder / "scheduler", pipe.schedule, pipe.prediction)
    index = {
        "_class_name": "AudioLDMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "ClapTextModelWithProjection"],
        "tokenizer": ["transformers", type(pipe.clap.tokenizer).__name__],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
    }
    content = {
        "format": 1,
        "name": pipe.name,
        "spec": asdict(pipe.spec),
        "defaults": pipe.defaults,
        "about": pipe.about,
        "sha256": {part: sha256(weight_file(folder / part)) for part in WEIGHED if (folder / part).is_dir()},
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))
    (folder / "audioldm.json").write_text(json.dumps(content, indent=1))
