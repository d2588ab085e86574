"""Whole models as components: original checkpoints, diffusers' and Tango's folders, and the folder of this project.

A model folder is ``model_index.json`` and one folder a component, as diffusers lays it out, plus ``audioldm.json``: the
AudioSpec, the defaults for generating, and the sha256 of every weight file.   What published files do not say (the mel
front end, the heads) is derived.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    UNet2DConditionModel,
)
from torch import nn
from transformers import GPT2Model, SpeechT5HifiGan

from audioldm.components import Components, Sampling
from audioldm.convert import unet as unet_names
from audioldm.convert.checkpoint import Checkpoint, Weights, read_checkpoint, read_tango
from audioldm.convert.folder import MAX_TOKENS, ROBERTA, T5, load_clap, load_t5, load_tokenizer
from audioldm.convert.scheduler import read_scheduler, write_scheduler
from audioldm.diffusion.schedule import audioldm, from_betas, scaled_linear
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap, PretrainedClap, SmallClap
from audioldm.nets.folder import (
    class_name,
    load_component,
    read_json,
    save_component,
    sha256,
    weight_file,
)
from audioldm.nets.text_encoder import LENGTH, LONGEST, AudioLDM2TextEncoder, T5TextEncoder
from audioldm.nets.vae import stride_of
from audioldm.paths import write_text
from audioldm.spec import SPECS, AudioSpec

Heads = Literal["original", "as-published"]
PUBLISHED_HEADS = 8
"""what converted folders carry as attention_head_dim; diffusers runs it as 8 heads at every level"""
SUCCESSORS = Sampling(guidance=3.5)
"""how AudioLDM 2's original samples; its U-Nets have more than one transformer a block"""
TANGO = Sampling(sampler="ddpm", grid="leading", guidance=3.0)
"""how Tango's own code samples: diffusers' DDPMScheduler"""
LICENCE, TANGO_LICENCE = "CC-BY-NC-SA-4.0", "research, non-commercial"
NOTICE = "The published AudioLDM weights are licensed CC-BY-NC-SA-4.0: not for commercial use, share alike."
TANGO_NOTICE = "The published Tango weights are for research, not for commercial use; see their model card."
NETS = {
    "unet": (UNet2DConditionModel, AudioLDM2UNet2DConditionModel),
    "vae": AutoencoderKL,
    "vocoder": nn.Module,
}
HASHED = (*NETS, "text_encoder", "audio_encoder", "text_encoder_2", "projection_model", "language_model")
REQUIRED = ("seconds", "steps", "sampler", "grid", "guidance")
"""defaults that a model folder must name"""


@dataclass(frozen=True)
class Choices:
    """How to read what is published wrong or twice.   Raises AudioLDMError for an unknown choice."""

    heads: Heads = "original"
    """the heads that the weights were trained with, or the 8 of converted folders"""
    weights: Weights = "ema"
    """the moving average where a checkpoint has one, or the weights themselves"""
    tokenizer: Path | None = None
    """folder of RoBERTa's vocab.json and merges.txt, for checkpoints, which have none; T5's in ``tokenizer_2``"""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("heads", self.heads, get_args(Heads)), ("weights", self.weights, get_args(Weights))
        ):  # fmt: skip
            if value not in known:
                raise AudioLDMError(f"{name}={value!r} is unknown.", f"Known: {', '.join(known)}.")
        if self.tokenizer is not None and not Path(self.tokenizer).is_dir():
            raise AudioLDMError(
                f"tokenizer={self.tokenizer} is no folder.",
                "Name one with vocab.json, or T5's tokenizer.json.",
            )


def open_checkpoint(path: Path, choices: Choices) -> Components:
    """The model of an original ``.ckpt`` or ``.pth``, with both CLAP towers and its encoders of tokens."""
    checkpoint = read_checkpoint(path, weights=choices.weights)
    shape = checkpoint.unet_shape
    more = {"weights": checkpoint.weights, "heads": choices.heads, "scaling_factor": checkpoint.scale}
    return replace(
        of_checkpoint(checkpoint, choices),
        schedule=audioldm() if checkpoint.betas is None else from_betas(checkpoint.betas),
        name=path.stem,
        defaults=SUCCESSORS if shape is not None and len(shape.contexts) > 1 else Sampling(),
        about={"source": path.name, "licence": LICENCE, **more},
        hashes={"checkpoint": sha256(path)},
        notice=NOTICE,
    )


def open_tango(folder: Path, choices: Choices) -> Components:
    """The model of Tango's folder, without CLAP; FLAN-T5's tokenizer is ``tokenizer_2`` inside, or the hub's."""
    checkpoint = read_tango(folder)
    files = [folder / name for name in ("pytorch_model_main.bin", "pytorch_model_vae.bin")]
    return replace(
        of_checkpoint(checkpoint, replace(choices, heads="original"), longest=MAX_TOKENS),
        schedule=scaled_linear(0.00085, 0.012),
        prediction="v",
        name=folder.name,
        defaults=TANGO,
        about={"source": str(folder), "licence": TANGO_LICENCE, "scaling_factor": checkpoint.scale},
        hashes={path.name: sha256(path) for path in files},
        notice=TANGO_NOTICE,
    )


def of_checkpoint(checkpoint: Checkpoint, choices: Choices, *, longest: int = LONGEST) -> Components:
    """The nets of a checkpoint with their tokenizers.   Raises AudioLDMError where it cannot generate."""
    if (problem := obstacle(checkpoint)) is not None:
        raise problem
    vae, vocoder = checkpoint.build_vae(), checkpoint.build_vocoder()
    clap = clap_of(checkpoint, choices) if checkpoint.clap else NoClap()
    return Components(
        checkpoint.build_unet(heads=None if choices.heads == "original" else PUBLISHED_HEADS),
        vae,
        vocoder,
        clap,
        spec_of(vocoder, stride_of(vae), vae.config.latent_channels),
        token_encoder=token_encoder_of(checkpoint, choices, clap, longest=longest),
    )


def clap_of(checkpoint: Checkpoint, choices: Choices) -> PretrainedClap:
    """Both towers of a checkpoint with RoBERTa's tokenizer."""
    text, audio = checkpoint.build_clap()
    folder = tokenizer_folder(checkpoint.path, choices.tokenizer, ROBERTA)
    return PretrainedClap(text, load_tokenizer(folder, text.config.vocab_size), audio).eval()


def token_encoder_of(
    checkpoint: Checkpoint, choices: Choices, clap: PretrainedClap | NoClap, *, longest: int
) -> T5TextEncoder | AudioLDM2TextEncoder | None:
    """What encodes a prompt as tokens, where the U-Net attends to them."""
    if checkpoint.unet_shape is None or not any(checkpoint.unet_shape.contexts):
        return None
    model = checkpoint.build_t5()
    folder = tokenizer_folder(checkpoint.path, choices.tokenizer, T5, alone=not checkpoint.clap)
    t5 = T5TextEncoder(model, load_tokenizer(folder, model.config.vocab_size, T5), longest=longest)
    if not checkpoint.gpt or not isinstance(clap, PretrainedClap):
        return t5
    return AudioLDM2TextEncoder(clap, t5, *checkpoint.build_gpt(), alone=choices.heads == "original")


def tokenizer_folder(path: Path, named: Path | None, kind: str, *, alone: bool = False) -> Path:
    """Where the tokenizer for a checkpoint is: below ``named``, beside the file, or in the hub's cache.

    RoBERTa's is ``named`` itself or ``tokenizer`` beside the file; T5's ``tokenizer_2`` in either, or ``named`` itself
    where it is the only one (``alone``).
    """
    beside = path.parent / ("tokenizer" if kind == ROBERTA else "tokenizer_2")
    places = [] if named is None else [Path(named) / beside.name] if kind == T5 else [Path(named)]
    places += [Path(named)] if named is not None and alone else []
    folder = next((place for place in (*places, beside) if place.is_dir()), None)
    if folder is not None:
        return folder
    from audioldm.convert.hub import fetch

    names = ("vocab.json", "merges.txt") if kind == ROBERTA else ("tokenizer.json", "tokenizer_config.json")
    return fetch(kind, names, instead=f"into {beside}").folder


def obstacle(checkpoint: Checkpoint) -> AudioLDMError | None:
    """Why a checkpoint cannot generate: it lacks a net, or its U-Net needs a condition that nothing in it gives."""
    path, shape = checkpoint.path, checkpoint.unet_shape
    parts = {"U-Net": checkpoint.unet, "VAE": checkpoint.vae, "vocoder": checkpoint.vocoder}
    if shape is None or shape.film_dim is not None:
        parts["CLAP"] = checkpoint.clap
    missing = [name for name, state in parts.items() if not state]
    if shape is None or missing:
        there = ", ".join(name for name, state in parts.items() if state) or "none of them"
        return AudioLDMError(
            f"{path} holds {there} but no {', no '.join(missing)}: it cannot generate alone.",
            "Join parts with audioldm export --ldm ... --vae ... --vocoder ... --clap ....",
        )
    hint = f"Take its other nets out with: audioldm export {path} -o FOLDER."
    if checkpoint.unread:
        unknown = f"neither CLAP nor T5 nor AudioLDM 2's GPT-2: {checkpoint.unread[0]!r}"
        return AudioLDMError(f"{path} has a conditioner that is {unknown}.", hint)
    widths, needed = token_widths(checkpoint), [width for width in shape.contexts if width]
    if needed and needed != widths:
        gives = f"gives {', '.join(map(str, widths))}" if widths else "has no encoder for them"
        return AudioLDMError(
            f"The U-Net of {path} needs token sequences ({', '.join(map(str, needed))} wide); the file {gives}.",
            hint,
        )
    return None


def token_widths(checkpoint: Checkpoint) -> list[int]:
    """The widths of the token sequences that a checkpoint's encoders give, in the U-Net's order."""
    widths = [checkpoint.t5_config["d_model"]] if checkpoint.t5_config else []
    return [checkpoint.gpt_config["n_embd"], *widths] if checkpoint.gpt_config and checkpoint.clap else widths


def spec_of(vocoder: Any, stride: int, latent_channels: int) -> AudioSpec:
    """The front end that belongs to a vocoder; AudioLDMError where no known one does."""
    config = vocoder.config
    if hasattr(config, "spec"):  # a vocoder of this project, trained on one front end
        return replace(SPECS[config.spec], stride=stride, latent_channels=latent_channels)
    hop = math.prod(config.upsample_rates)
    for spec in SPECS.values():
        if (spec.rate, spec.mels, spec.hop) == (config.sampling_rate, config.model_in_dim, hop):
            return replace(spec, stride=stride, latent_channels=latent_channels)
    raise AudioLDMError(
        f"No known mel front end has {config.sampling_rate} Hz, {config.model_in_dim} mels and a hop of {hop}.",
        f"Known: {', '.join(SPECS)}.",
    )


def open_diffusers(folder: Path, choices: Choices) -> Components:
    """The model of a diffusers folder, with the heads that its weights were trained with.

    Known: AudioLDMPipeline and AudioLDM2Pipeline; for the latter ``heads="as-published"`` also pads texts as that
    pipeline does.
    """
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind not in ("AudioLDMPipeline", "AudioLDM2Pipeline"):
        raise AudioLDMError(f"{folder} is a {kind}.", "Known: AudioLDMPipeline, AudioLDM2Pipeline.")
    parts = HASHED if kind == "AudioLDM2Pipeline" else (*NETS, "text_encoder")
    if kind == "AudioLDM2Pipeline":
        named = class_name(read_json(folder / "text_encoder_2" / "config.json"))
        if named != "T5EncoderModel":
            raise AudioLDMError(
                f"{folder} reads its prompt with a {named}: it speaks text, from phonemes.",
                "Known of AudioLDM 2: those with a T5EncoderModel (sound and music).",
            )
    model = of_folder(folder, heads=choices.heads, alone=choices.heads == "original")
    return replace(
        model,
        name=folder.name,
        defaults=Sampling() if kind == "AudioLDMPipeline" else SUCCESSORS,
        about={"source": str(folder), "licence": LICENCE, "heads": choices.heads},
        hashes={part: sha256(weight_file(folder / part)) for part in parts if (folder / part).is_dir()},
        notice=NOTICE,
    )


def of_folder(
    folder: Path, *, heads: Heads = "as-published", alone: bool = True, spec: AudioSpec | None = None
) -> Components:
    """The nets of a folder in diffusers' layout; ``spec`` None is the one that belongs to the vocoder."""
    original = published_heads(folder / "unet") if heads == "original" else None
    change = {} if original is None else {"attention_head_dim": original}
    schedule, prediction = read_scheduler(folder / "scheduler")
    unet: Any = load_component(folder / "unet", NETS["unet"], **change)
    vae: Any = load_component(folder / "vae", AutoencoderKL)
    vocoder: Any = load_component(folder / "vocoder")
    clap = load_clap(folder)
    return Components(
        unet,
        vae,
        vocoder,
        clap,
        spec or spec_of(vocoder, stride_of(vae), vae.config.latent_channels),
        token_encoder=load_token_encoder(folder, clap, alone=alone),
        schedule=schedule,
        prediction=prediction,
    )


def published_heads(folder: Path) -> tuple[int, ...] | None:
    """The heads that a converted U-Net was trained with, where its configuration says one number; else None.

    The converter wrote ``attention_head_dim: 8`` for every size, which diffusers runs as 8 heads at every level.   A
    list of numbers was written by somebody who knew.
    """
    config = read_json(folder / "config.json")
    number = config.get("num_attention_heads") or config.get("attention_head_dim")
    converted = config.get("class_embed_type") == "simple_projection" or "AudioLDM2" in class_name(config)
    channels = config.get("block_out_channels")
    if not isinstance(number, int) or not converted or not isinstance(channels, list):
        return None
    if not channels or not all(isinstance(width, int) for width in channels):
        return None
    return unet_names.heads(tuple(channels))


def load_token_encoder(
    folder: Path, clap: SmallClap | PretrainedClap | NoClap, *, alone: bool
) -> T5TextEncoder | AudioLDM2TextEncoder | None:
    """T5, or AudioLDM 2's GPT-2 behind it; None for a folder without either."""
    if not (folder / "text_encoder_2").is_dir():
        return None
    t5 = load_t5(folder / "text_encoder_2", folder / "tokenizer_2")
    if not (folder / "language_model").is_dir() or not isinstance(clap, PretrainedClap):
        return t5
    projection: Any = load_component(folder / "projection_model", AudioLDM2ProjectionModel)
    gpt: Any = load_component(folder / "language_model", GPT2Model)
    length = getattr(gpt.config, "max_new_tokens", None) or LENGTH
    return AudioLDM2TextEncoder(clap, t5, projection, gpt, length=length, alone=alone)


def open_folder(folder: Path) -> Components:
    """The model in a folder that ``save_model`` wrote, float32 on the CPU.   Raises AudioLDMError."""
    index = read_json(folder / "model_index.json")
    about = read_about(folder / "audioldm.json")
    hashes = check_hashes(folder, about["sha256"])
    model = of_folder(folder, alone=index.get("texts", "alone") == "alone", spec=about["spec"])
    config = model.vocoder.config
    if hasattr(config, "upsample_rates") and math.prod(config.upsample_rates) != model.spec.hop:
        raise AudioLDMError(
            f"{folder}: its vocoder and its spec differ in the hop.", "Copy the folder again."
        )
    if (model.vae.config.latent_channels, stride_of(model.vae)) != (
        model.spec.latent_channels,
        model.spec.stride,
    ):
        raise AudioLDMError(f"{folder}: its VAE and its spec differ.", "Copy the model folder again.")
    return replace(model, defaults=about["defaults"], name=about["name"], about=about["about"], hashes=hashes)


def read_about(path: Path) -> dict[str, Any]:
    """``audioldm.json``, with an AudioSpec and Sampling in it; AudioLDMError where something is missing or wrong."""
    about = {"about": {}, "sha256": {}, **read_json(path)}
    for key, kind in {"name": str, "spec": dict, "defaults": dict, "about": dict, "sha256": dict}.items():
        if key not in about:
            raise AudioLDMError(f"{path} lacks {key}.", "Copy the model folder again.")
        if not isinstance(about[key], kind):
            raise AudioLDMError(
                f"{path}: {key}={about[key]!r:.60} is not valid.", "Copy the model folder again."
            )
    if missing := [key for key in REQUIRED if key not in about["defaults"]]:
        raise AudioLDMError(f"{path} has no default for {', '.join(missing)}.", "Export the model again.")
    about["spec"] = typed(AudioSpec, about["spec"], path)
    about["defaults"] = typed(Sampling, about["defaults"], path)
    return about


def typed(kind: Any, values: dict[str, Any], path: Path) -> Any:
    """A frozen dataclass of numbers and names from JSON, every value of its default's type and in range."""
    plain = asdict(kind())
    for key, value in values.items():
        if key not in plain:
            raise AudioLDMError(f"{path}: {key} is unknown here.", "Export the model again.")
        usual = (float, int) if isinstance(plain[key], float) else (type(plain[key]),)
        if type(value) not in usual or (type(value) is not str and not 0 <= value <= 2**20):
            raise AudioLDMError(f"{path}: {key}={value!r:.60} is not valid.", "Copy the model folder again.")
        if kind is AudioSpec and not isinstance(value, str) and value == 0 and key != "fmin":
            raise AudioLDMError(f"{path}: {key}=0 is not valid.", "Copy the model folder again.")
    return kind(**values)


def check_hashes(folder: Path, expected: dict[str, str]) -> dict[str, str]:
    """The sha256 of every weight file; AudioLDMError where one is not what ``audioldm.json`` says."""
    parts = [part for part in HASHED if part in expected or (folder / part).is_dir() or part in NETS]
    hashes = {part: sha256(weight_file(folder / part)) for part in parts}
    for part, digest in hashes.items():
        if part in expected and digest != expected[part]:
            raise AudioLDMError(
                f"{weight_file(folder / part)} is truncated or was changed: its sha256 is {digest[:12]}..., "
                f"not {str(expected[part])[:12]}....",
                "Copy the model folder again.",
            )
    return hashes


def save_model(model: Components, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write every component and what describes them; weights are cast to ``dtype`` if given.

    Stock diffusers opens the folder as AudioLDMPipeline where the U-Net is conditioned on CLAP's vector alone.
    """
    for name in NETS:
        save_component(getattr(model, name), folder / name, dtype=dtype)
    model.clap.save(folder, dtype=dtype)
    if model.token_encoder is not None:
        model.token_encoder.save(folder, dtype=dtype)
    write_scheduler(folder / "scheduler", model.schedule, model.prediction)
    content = {
        "format": 1,
        "name": model.name,
        "spec": asdict(model.spec),
        "defaults": asdict(model.defaults),
        "about": model.about,
        "sha256": {part: sha256(weight_file(folder / part)) for part in HASHED if (folder / part).is_dir()},
    }
    write_text(folder / "model_index.json", json.dumps(index_of(model), indent=1))
    write_text(folder / "audioldm.json", json.dumps(content, indent=1))


def index_of(model: Components) -> dict[str, Any]:
    """``model_index.json``: stock AudioLDMPipeline's, or our own for a model with tokens or another vocoder."""
    hifigan = isinstance(model.vocoder, SpeechT5HifiGan)
    stock = hifigan and model.token_encoder is None
    index: dict[str, Any] = {
        "_class_name": "AudioLDMPipeline" if stock else "AudioLDM",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", type(model.unet).__name__],
        "vae": ["diffusers", "AutoencoderKL"],
        "vocoder": ["transformers" if hifigan else "audioldm", type(model.vocoder).__name__],
    }
    if not isinstance(model.clap, NoClap):
        index["text_encoder"] = ["transformers", "ClapTextModelWithProjection"]
        index["tokenizer"] = ["transformers", type(model.clap.tokenizer).__name__]
    if model.token_encoder is not None:
        index["text_encoder_2"] = ["transformers", "T5EncoderModel"]
    if isinstance(model.token_encoder, AudioLDM2TextEncoder):
        index["projection_model"] = ["diffusers", "AudioLDM2ProjectionModel"]
        index["language_model"] = ["transformers", "GPT2Model"]
        index["texts"] = "alone" if model.token_encoder.alone else "padded"
    return index


def part_folders(checkpoint: Checkpoint, folder: Path, names: Sequence[str] = HASHED) -> list[Path]:
    """Write those nets of a checkpoint that are there and in ``names`` as component folders."""
    makers: list[tuple[Any, tuple[str, ...], Any]] = [
        (checkpoint.unet, ("unet",), lambda: (checkpoint.build_unet(),)),
        (checkpoint.vae, ("vae",), lambda: (checkpoint.build_vae(),)),
        (checkpoint.vocoder, ("vocoder",), lambda: (checkpoint.build_vocoder(),)),
        (checkpoint.clap, ("text_encoder", "audio_encoder"), checkpoint.build_clap),
        (checkpoint.t5, ("text_encoder_2",), lambda: (checkpoint.build_t5(),)),
        (checkpoint.gpt, ("projection_model", "language_model"), checkpoint.build_gpt),
    ]
    written = []
    for state, places, make in makers:
        if state and set(places) <= set(names):
            for name, net in zip(places, make(), strict=True):
                save_component(net, folder / name)
                written.append(folder / name)
    return written
