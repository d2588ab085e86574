"""From published checkpoints and folders to a pipeline.   What the files do not say (the mel front end) is derived."""

from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, cast, get_args

from transformers import SpeechT5HifiGan

from audioldm.components import Components, Sampling
from audioldm.convert import build, tokenizers
from audioldm.convert.checkpoint import Checkpoint, Weights, read_checkpoint
from audioldm.convert.folder import (
    find_weights,
    load_pretrained_clap,
    load_published,
    published_heads,
)
from audioldm.convert.scheduler import read_scheduler
from audioldm.diffusion.schedule import audioldm, from_betas
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap
from audioldm.nets.folder import read_json, sha256
from audioldm.nets.generated import GeneratedText
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.t5 import LONGEST, T5Text
from audioldm.nets.vae import stride_of
from audioldm.spec import SPECS, AudioSpec

Heads = Literal["original", "as-published"]
DEFAULTS = Sampling()
"""How the original command samples."""
SUCCESSORS = Sampling(guidance=3.5)
"""How AudioLDM 2's samples; its U-Nets have more than one transformer a block."""
LICENCE = "CC-BY-NC-SA-4.0"
NOTICE = "The published AudioLDM weights are licensed CC-BY-NC-SA-4.0: not for commercial use, share alike."


@dataclass(frozen=True)
class Choices:
    """How to read what is published wrong or twice."""

    heads: Heads = "original"
    """the heads that the weights were trained with, or the 8 of converted folders"""
    weights: Weights = "ema"
    """the moving average where a checkpoint has one, or the weights themselves"""
    tokenizer: Path | None = field(default=None)
    """folder of RoBERTa's vocab.json and merges.txt, for checkpoints, which have none; T5's in ``tokenizer_2``"""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("heads", self.heads, get_args(Heads)), ("weights", self.weights, get_args(Weights))
        ):  # fmt: skip
            if value not in known:
                raise AudioLDMError(f"{name}={value!r} is unknown.", f"Known: {', '.join(known)}.")


def open_checkpoint(path: Path, choices: Choices) -> Components:
    """The pipeline of an original ``.ckpt`` or ``.pth``, with both CLAP towers and whatever reads words."""
    tokenizers.check_folder(choices.tokenizer)
    found = read_checkpoint(path, weights=choices.weights)
    if (why := obstacle(found, path)) is not None:
        raise why
    heads = None if choices.heads == "original" else build.PUBLISHED_AS
    clap = clap_of(found, path, choices)
    vae, vocoder = build.vae_of(found, path), build.vocoder_of(found, path)
    shape = found.unet_shape
    return Components(
        build.unet_of(found, path, heads=heads),
        vae,
        vocoder,
        clap,
        spec_of(vocoder, stride_of(vae), vae.config.latent_channels),
        token_encoder=words_of(found, path, choices, clap),
        schedule=audioldm() if found.betas is None else from_betas(found.betas),
        name=path.stem,
        defaults=SUCCESSORS if shape is not None and len(shape.contexts) > 1 else DEFAULTS,
        about={
            "source": path.name, "licence": LICENCE, "weights": found.weights, "heads": choices.heads,
            "scaling_factor": found.scale,
        },
        hashes={"checkpoint": sha256(path)},
        notice=NOTICE,
    )  # fmt: skip


def clap_of(found: Checkpoint, path: Path, choices: Choices) -> PretrainedClap | NoClap:
    """Both towers with RoBERTa's tokenizer, where the checkpoint has a CLAP."""
    if not found.clap:
        return NoClap()
    text, audio = build.clap_of(found, path)
    return PretrainedClap(
        text, tokenizers.roberta(path, choices.tokenizer, text.config.vocab_size), audio
    ).eval()


def words_of(
    found: Checkpoint, path: Path, choices: Choices, clap: PretrainedClap | NoClap, *, longest: int = LONGEST
) -> T5Text | GeneratedText | None:
    """What reads the prompt word by word, where the U-Net is told tokens."""
    if found.unet_shape is None or not any(found.unet_shape.contexts):
        return None
    model = build.words_of(found, path)
    tokenizer = tokenizers.t5(path, choices.tokenizer, model.config.vocab_size, only=not found.clap)
    t5 = T5Text(model, tokenizer, longest=longest)
    if not found.language or not isinstance(clap, PretrainedClap):
        return t5
    return GeneratedText(clap, t5, *build.generator_of(found, path), alone=choices.heads == "original")


def obstacle(found: Checkpoint, path: Path) -> AudioLDMError | None:
    """Why a checkpoint cannot generate: a net that it lacks, or a U-Net told what nothing in the file gives."""
    shape = found.unet_shape
    parts = {"U-Net": found.unet, "VAE": found.vae, "vocoder": found.vocoder}
    if shape is None or shape.film_dim is not None:
        parts["CLAP"] = found.clap
    missing = [name for name, state in parts.items() if not state]
    if shape is None or missing:
        held = ", ".join(name for name, state in parts.items() if state) or "none of them"
        return AudioLDMError(
            f"{path} holds {held} but no {', no '.join(missing)}: it cannot generate alone.",
            "Join parts with audioldm export --ldm ... --vae ... --vocoder ... --clap ....",
        )
    out = f"Take its other nets out with: audioldm export {path} -o FOLDER."
    if found.unread:
        unknown = f"neither CLAP nor T5 nor AudioLDM 2's generator: {found.unread[0]!r}"
        return AudioLDMError(f"{path} has a conditioner that is {unknown}.", out)
    given = [found.words_config["d_model"]] if found.words_config else []
    if found.language_config and found.clap:
        given.insert(0, found.language_config["n_embd"])
    if (asked := [width for width in shape.contexts if width]) and asked != given:
        there = f"gives {', '.join(map(str, given))}" if given else "has no encoder for them"
        return AudioLDMError(
            f"The U-Net of {path} is told token sequences ({', '.join(map(str, asked))} wide); the file {there}.",
            out,
        )
    return None


def open_diffusers(folder: Path, choices: Choices) -> Components:
    """The pipeline of a diffusers folder, with the heads that its weights were trained with."""
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind == "AudioLDM2Pipeline":
        from audioldm.convert.relatives import open_audioldm2

        return open_audioldm2(folder, choices)
    if kind != "AudioLDMPipeline":
        raise AudioLDMError(f"{folder} is a {kind}.", "Known: AudioLDMPipeline, AudioLDM2Pipeline.")
    return open_parts(folder, choices, load_pretrained_clap(folder))


def open_parts(
    folder: Path,
    choices: Choices,
    clap: PretrainedClap,
    words: GeneratedText | None = None,
    defaults: Sampling = DEFAULTS,
) -> Components:
    """What every diffusers folder has, with what tells its U-Net."""
    heads = published_heads(folder / "unet") if choices.heads == "original" else None
    schedule, prediction = read_scheduler(folder / "scheduler")
    vae, vocoder = cast(Any, load_published(folder / "vae")), cast(Any, load_published(folder / "vocoder"))
    parts = ["unet", "vae", "vocoder", "text_encoder"]
    parts += ["text_encoder_2", "projection_model", "language_model"] if words is not None else []
    return Components(
        load_published(folder / "unet", {} if heads is None else {"attention_head_dim": heads}),  # type: ignore[arg-type]
        vae,
        vocoder,
        clap,
        spec_of(vocoder, stride_of(vae), vae.config.latent_channels),
        token_encoder=words,
        schedule=schedule,
        prediction=prediction,
        name=folder.name,
        defaults=defaults,
        about={"source": str(folder), "licence": LICENCE, "heads": choices.heads},
        hashes={part: sha256(path) for part in parts for path in find_weights(folder / part)[:1]},
        notice=NOTICE,
    )


def spec_of(vocoder: SpeechT5HifiGan, stride: int, latent_channels: int) -> AudioSpec:
    """The front end that belongs to a vocoder; AudioLDMError where no known one does."""
    config = vocoder.config
    hop = prod(config.upsample_rates)
    for spec in SPECS.values():
        if (spec.rate, spec.mels, spec.hop) == (config.sampling_rate, config.model_in_dim, hop):
            return replace(spec, stride=stride, latent_channels=latent_channels)
    raise AudioLDMError(
        f"No known mel front end has {config.sampling_rate} Hz, {config.model_in_dim} mels and a hop of {hop}.",
        f"Known: {', '.join(SPECS)}.",
    )
