"""From published checkpoints and folders to a pipeline.   What the files do not say (the mel front end) is derived."""

from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, cast, get_args

from transformers import PreTrainedTokenizerBase, SpeechT5HifiGan

from audioldm.diffusion.schedule import audioldm, from_betas
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import read_json, sha256
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.published import build
from audioldm.nets.published.checkpoint import Checkpoint, Weights, read_checkpoint
from audioldm.nets.published.folder import (
    find_weights,
    load_any_tokenizer,
    load_pretrained_clap,
    load_published,
    published_heads,
)
from audioldm.nets.vae import stride_of
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.scheduler import read_scheduler
from audioldm.spec import SPECS, AudioSpec

Heads = Literal["original", "as-published"]
DEFAULTS = {"seconds": 10.24, "steps": 200, "sampler": "ddim:eta=1", "grid": "published", "guidance": 2.5}
"""How the original command samples."""
LICENCE = "CC-BY-NC-SA-4.0"
NOTICE = "The published AudioLDM weights are licensed CC-BY-NC-SA-4.0: not for commercial use, share alike."
CLASSES = ("AudioLDMPipeline",)
ROBERTA = "FacebookAI/roberta-base"


@dataclass(frozen=True)
class Choices:
    """How to read what is published wrong or twice."""

    heads: Heads = "original"
    """the heads that the weights were trained with, or the 8 of converted folders"""
    weights: Weights = "ema"
    """the moving average where a checkpoint has one, or the weights themselves"""
    tokenizer: Path | None = field(default=None)
    """folder of RoBERTa's vocab.json and merges.txt, for checkpoints, which have none"""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("heads", self.heads, get_args(Heads)), ("weights", self.weights, get_args(Weights))
        ):  # fmt: skip
            if value not in known:
                raise AudioLDMError(f"{name}={value!r} is unknown.", f"Known: {', '.join(known)}.")


def open_checkpoint(path: Path, choices: Choices) -> AudioLDM:
    """The pipeline of an original ``.ckpt``, with both CLAP towers."""
    tokenizer = tokenizer_beside(path, choices)
    found = read_checkpoint(path, weights=choices.weights)
    check_whole(found, path)
    check_film(found, path)
    heads = None if choices.heads == "original" else build.PUBLISHED_AS
    text, audio = build.clap_of(found, path)
    vae, vocoder = build.vae_of(found, path), build.vocoder_of(found, path)
    check_tokenizer(tokenizer, text.config.vocab_size, path)
    return AudioLDM(
        build.unet_of(found, path, heads=heads),
        vae,
        vocoder,
        PretrainedClap(text, tokenizer, audio),
        spec_of(vocoder, stride_of(vae), vae.config.latent_channels),
        schedule=audioldm() if found.betas is None else from_betas(found.betas),
        name=path.stem,
        defaults=dict(DEFAULTS),
        about={
            "source": path.name, "licence": LICENCE, "weights": found.weights, "heads": choices.heads,
            "scaling_factor": found.scale,
        },
        hashes={"checkpoint": sha256(path)},
        notice=NOTICE,
    )  # fmt: skip


def check_whole(found: Checkpoint, path: Path) -> None:
    """Say which nets a checkpoint lacks, before any is built."""
    parts = {"U-Net": found.unet, "VAE": found.vae, "vocoder": found.vocoder, "CLAP": found.clap}
    if missing := [name for name, state in parts.items() if not state]:
        held = ", ".join(name for name, state in parts.items() if state) or "none of them"
        raise AudioLDMError(
            f"{path} holds {held} but no {', no '.join(missing)}: it cannot generate alone.",
            "Join parts with audioldm export --ldm ... --vae ... --vocoder ... --clap ....",
        )


def check_film(found: Checkpoint, path: Path) -> None:
    """Refuse a U-Net that is told words: its nets can be taken out, but no text encoder of ours speaks to it yet."""
    shape = found.unet_shape
    if found.unread:
        raise AudioLDMError(
            f"{path} has a conditioner that is neither CLAP nor T5: {found.unread[0]!r}.",
            f"Take its other nets out with: audioldm export {path} -o FOLDER.",
        )
    if shape is not None and any(shape.contexts):
        widths = ", ".join(str(width) for width in shape.contexts if width)
        raise AudioLDMError(
            f"The U-Net of {path} is told token sequences ({widths} wide), for which there is no text encoder here.",
            f"Take its nets out with: audioldm export {path} -o FOLDER.",
        )


def open_diffusers(folder: Path, choices: Choices) -> AudioLDM:
    """The pipeline of a diffusers folder, with the heads that its weights were trained with."""
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind not in CLASSES:
        raise AudioLDMError(f"{folder} is a {kind}.", f"Known: {', '.join(CLASSES)}.")
    heads = published_heads(folder / "unet") if choices.heads == "original" else None
    schedule, prediction = read_scheduler(folder / "scheduler")
    vae, vocoder = cast(Any, load_published(folder / "vae")), cast(Any, load_published(folder / "vocoder"))
    parts = ("unet", "vae", "vocoder", "text_encoder")
    return AudioLDM(
        load_published(folder / "unet", {} if heads is None else {"attention_head_dim": heads}),  # type: ignore[arg-type]
        vae,
        vocoder,
        load_pretrained_clap(folder),
        spec_of(vocoder, stride_of(vae), vae.config.latent_channels),
        schedule=schedule,
        prediction=prediction,
        name=folder.name,
        defaults=dict(DEFAULTS),
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


def tokenizer_beside(path: Path, choices: Choices) -> PreTrainedTokenizerBase:
    """RoBERTa's tokenizer, which checkpoints lack: the named folder, one beside the file, or the hub's."""
    beside = path.parent / "tokenizer"
    if choices.tokenizer is not None:
        if not Path(choices.tokenizer).is_dir():
            raise AudioLDMError(
                f"tokenizer={choices.tokenizer} is no folder.", "Name a folder with vocab.json."
            )
        return load_any_tokenizer(Path(choices.tokenizer))
    if beside.is_dir():
        return load_any_tokenizer(beside)
    from audioldm.pipeline.hub import fetch

    return load_any_tokenizer(fetch(ROBERTA, ("vocab.json", "merges.txt"), instead=beside).folder)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary: int, path: Path) -> None:
    """A tokenizer of another vocabulary would give other words."""
    if len(tokenizer) > vocabulary:
        raise AudioLDMError(
            f"The tokenizer has {len(tokenizer)} entries, the text tower of {path} {vocabulary}.",
            f"Use the tokenizer of {ROBERTA}.",
        )
