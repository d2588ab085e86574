"""What a model folder says of itself: ``audioldm.json``, the hashes of its weights, and which CLAP it holds."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from audioldm.convert.folder import load_pretrained_clap, load_t5_tokenizer
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap, SmallClap
from audioldm.nets.folder import load_component, read_json, save_component, sha256, weight_file
from audioldm.nets.text_encoder import AudioLDM2TextEncoder
from audioldm.nets.clap import PretrainedClap
from audioldm.nets.text_encoder import T5TextEncoder
from audioldm.pipeline.scheduler import read_scheduler, write_scheduler
from audioldm.spec import AudioSpec

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

COMPONENTS = ("unet", "vae", "vocoder")
WEIGHED = (
    *COMPONENTS, "text_encoder", "audio_encoder", "text_encoder_2", "projection_model", "language_model",
)  # fmt: skip
SETTINGS = ("seconds", "steps", "sampler", "grid", "guidance")


def load_folder(folder: Path) -> dict[str, Any]:
    """What an ``AudioLDM`` is made of, from a folder that ``save_folder`` wrote."""
    read_json(folder / "model_index.json")
    about = read_about(folder / "audioldm.json")
    hashes = check_hashes(folder, about.get("sha256", {}))
    schedule, prediction = read_scheduler(folder / "scheduler")
    clap = load_clap(folder)
    return {
        **{name: load_component(folder / name) for name in COMPONENTS},
        "clap": clap,
        "words": load_words(folder, clap),
        "spec": about["spec"],
        "schedule": schedule,
        "prediction": prediction,
        "name": about["name"],
        "defaults": about["defaults"],
        "about": about.get("about", {}),
        "hashes": hashes,
    }


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


def load_clap(folder: Path) -> SmallClap | PretrainedClap | NoClap:
    """The small CLAP of this project, or a published one, by what its audio tower is; or that there is none."""
    if not (folder / "text_encoder").is_dir() and (folder / "text_encoder_2").is_dir():
        return NoClap()
    return SmallClap.load(folder) if has_small_clap(folder) else load_pretrained_clap(folder)


def load_words(folder: Path, clap: SmallClap | PretrainedClap | NoClap) -> T5TextEncoder | AudioLDM2TextEncoder | None:
    """What reads prompts word by word: T5, or AudioLDM 2's generator around it; None where the U-Net is told none."""
    if not (folder / "text_encoder_2").is_dir():
        return None
    tokenizer = load_t5_tokenizer(folder / "tokenizer_2")
    t5 = T5TextEncoder(
        load_component(folder / "text_encoder_2"),  # type: ignore[arg-type]
        tokenizer,
        longest=tokenizer.model_max_length,
    )
    if not (folder / "language_model").is_dir() or not isinstance(clap, PretrainedClap):
        return t5
    gpt = load_component(folder / "language_model")
    return AudioLDM2TextEncoder(
        clap,
        t5,
        load_component(folder / "projection_model"),  # type: ignore[arg-type]
        gpt,  # type: ignore[arg-type]
        length=gpt.config.max_new_tokens,  # type: ignore[union-attr, arg-type]
        alone=read_json(folder / "model_index.json").get("texts", "alone") == "alone",
    )


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
    if pipe.words is not None:
        pipe.words.save(folder, dtype=dtype)
    write_scheduler(folder / "scheduler", pipe.schedule, pipe.prediction)
    index = index_of(pipe)
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


def index_of(pipe: "AudioLDM") -> dict[str, Any]:
    """``model_index.json``: stock AudioLDMPipeline's, or our own for a model that is told tokens."""
    index: dict[str, Any] = {
        "_class_name": "AudioLDMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", type(pipe.unet).__name__],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
    }
    if not isinstance(pipe.clap, NoClap):
        index["text_encoder"] = ["transformers", "ClapTextModelWithProjection"]
        index["tokenizer"] = ["transformers", type(pipe.clap.tokenizer).__name__]
    if pipe.words is None:
        return index
    index |= {"_class_name": "AudioLDM", "text_encoder_2": ["transformers", "T5EncoderModel"]}
    if isinstance(pipe.words, AudioLDM2TextEncoder):
        index["projection_model"] = ["diffusers", "AudioLDM2ProjectionModel"]
        index["language_model"] = ["transformers", "GPT2Model"]
        index["texts"] = "alone" if pipe.words.alone else "filled"
    return index
