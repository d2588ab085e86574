"""What a model folder says of itself: ``audioldm.json``, the hashes of its weights, and which CLAP it holds."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from audioldm.components import Components, Sampling
from audioldm.convert.folder import has_small_clap, load_pretrained_clap, load_t5_tokenizer
from audioldm.convert.scheduler import read_scheduler, write_scheduler
from audioldm.engines import Clap
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap, SmallClap
from audioldm.nets.folder import load_component, read_json, save_component, sha256, weight_file
from audioldm.nets.generated import GeneratedText
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.t5 import T5Text
from audioldm.spec import AudioSpec

COMPONENTS = ("unet", "vae", "vocoder")
HASHED = (
    *COMPONENTS, "text_encoder", "audio_encoder", "text_encoder_2", "projection_model", "language_model",
)  # fmt: skip
SETTINGS = ("seconds", "steps", "sampler", "grid", "guidance")


def load_folder(folder: Path) -> Components:
    """The model in a folder that ``save_folder`` wrote, float32 on the CPU.   Raises AudioLDMError."""
    read_json(folder / "model_index.json")
    about = read_about(folder / "audioldm.json")
    hashes = check_hashes(folder, about.get("sha256", {}))
    schedule, prediction = read_scheduler(folder / "scheduler")
    clap = load_clap(folder)
    unet, vae, vocoder = (cast(Any, load_component(folder / name)) for name in COMPONENTS)
    return Components(
        unet,
        vae,
        vocoder,
        clap,
        about["spec"],
        load_token_encoder(folder, clap),
        schedule,
        prediction,
        defaults=about["defaults"],
        name=about["name"],
        about=about.get("about", {}),
        hashes=hashes,
    )


def read_about(path: Path) -> dict[str, Any]:
    """``audioldm.json``, with an AudioSpec and Sampling in it; AudioLDMError where something is missing."""
    about = read_json(path)
    if missing := [key for key in ("name", "spec", "defaults") if key not in about]:
        raise AudioLDMError(f"{path} lacks {', '.join(missing)}.", "Copy the model folder again.")
    if missing := [key for key in SETTINGS if key not in about["defaults"]]:
        raise AudioLDMError(f"{path} has no default for {', '.join(missing)}.", "Export the model again.")
    try:
        return {**about, "spec": AudioSpec(**about["spec"]), "defaults": Sampling(**about["defaults"])}
    except TypeError as error:
        raise AudioLDMError(
            f"{path}: its spec or its defaults are unknown here ({error}).", "Export the model again."
        ) from None


def load_clap(folder: Path) -> Clap:
    """The small CLAP of this project, or a published one, by what its audio tower is; or that there is none."""
    if not (folder / "text_encoder").is_dir() and (folder / "text_encoder_2").is_dir():
        return NoClap()
    return SmallClap.load(folder) if has_small_clap(folder) else load_pretrained_clap(folder)


def load_token_encoder(folder: Path, clap: Clap) -> T5Text | GeneratedText | None:
    """T5, or AudioLDM 2's generator around it; None for a U-Net without tokens."""
    if not (folder / "text_encoder_2").is_dir():
        return None
    tokenizer = load_t5_tokenizer(folder / "tokenizer_2")
    encoder = cast(Any, load_component(folder / "text_encoder_2"))
    t5 = T5Text(encoder, tokenizer, longest=tokenizer.model_max_length)
    if not (folder / "language_model").is_dir() or not isinstance(clap, PretrainedClap):
        return t5
    projection = cast(Any, load_component(folder / "projection_model"))
    gpt = cast(Any, load_component(folder / "language_model"))
    alone = read_json(folder / "model_index.json").get("texts", "alone") == "alone"
    return GeneratedText(clap, t5, projection, gpt, length=gpt.config.max_new_tokens, alone=alone)


def check_hashes(folder: Path, expected: dict[str, str]) -> dict[str, str]:
    """The sha256 of every weight file; AudioLDMError where one is not what ``audioldm.json`` says."""
    parts = [part for part in HASHED if part in expected or (folder / part).is_dir() or part in COMPONENTS]
    hashes = {part: sha256(weight_file(folder / part)) for part in parts}
    for part, digest in hashes.items():
        if part in expected and digest != expected[part]:
            raise AudioLDMError(
                f"{weight_file(folder / part)} is truncated or was changed: its sha256 is {digest[:12]}..., "
                f"not {expected[part][:12]}....",
                "Copy the model folder again.",
            )
    return hashes


def save_folder(parts: Components, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write every component of ``parts`` and what describes them; weights are cast to ``dtype`` if given."""
    for name in COMPONENTS:
        save_component(getattr(parts, name), folder / name, dtype=dtype)
    parts.clap.save(folder, dtype=dtype)
    if parts.token_encoder is not None:
        parts.token_encoder.save(folder, dtype=dtype)
    write_scheduler(folder / "scheduler", parts.schedule, parts.prediction)
    index = index_of(parts)
    content = {
        "format": 1,
        "name": parts.name,
        "spec": asdict(parts.spec),
        "defaults": asdict(parts.defaults),
        "about": parts.about,
        "sha256": {part: sha256(weight_file(folder / part)) for part in HASHED if (folder / part).is_dir()},
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))
    (folder / "audioldm.json").write_text(json.dumps(content, indent=1))


def index_of(parts: Components) -> dict[str, Any]:
    """``model_index.json``: stock AudioLDMPipeline's, or our own for a model that is conditioned on tokens."""
    index: dict[str, Any] = {
        "_class_name": "AudioLDMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", type(parts.unet).__name__],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers", "SpeechT5HifiGan"],
    }
    if not isinstance(parts.clap, NoClap):
        index["text_encoder"] = ["transformers", "ClapTextModelWithProjection"]
        index["tokenizer"] = ["transformers", type(parts.clap.tokenizer).__name__]
    if parts.token_encoder is None:
        return index
    index |= {"_class_name": "AudioLDM", "text_encoder_2": ["transformers", "T5EncoderModel"]}
    if isinstance(parts.token_encoder, GeneratedText):
        index["projection_model"] = ["diffusers", "AudioLDM2ProjectionModel"]
        index["language_model"] = ["transformers", "GPT2Model"]
        index["texts"] = "alone" if parts.token_encoder.alone else "filled"
    return index
