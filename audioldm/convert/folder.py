"""Component folders as diffusers and transformers wrote them over the years, and the tokenizers beside them."""

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    AutoTokenizer,
    ClapFeatureExtractor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)

from audioldm.convert import vae
from audioldm.convert.build import fill, original_heads
from audioldm.convert.files import read_weights
from audioldm.convert.rules import State, below
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import BUILDERS, read_json
from audioldm.nets.pretrained_clap import PretrainedClap

NAMES = tuple(
    f"{stem}{suffix}"
    for suffix in (".safetensors", ".bin")
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model")
)
"""Weight files in the order of preference."""
MAX_TOKENS = 512
"""RoBERTa's longest text."""
LANGUAGE = "GPT2LMHeadModel"
"""GPT-2 with a last layer to words, as some of AudioLDM 2's folders keep it; what counts are its states."""
COMPUTED = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Buffers that transformers has saved or not, by its age; they are computed from the configuration."""


def find_weights(folder: Path) -> list[Path]:
    """The weight files of a component: one, or the shards that an index names."""
    for name in NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return sorted({folder / shard for shard in read_json(index)["weight_map"].values()})
    raise AudioLDMError(
        f"{folder} has no weights (none of {', '.join(NAMES)}).", "Download the folder again."
    )


def read_state(folder: Path) -> State:
    """All tensors of a component."""
    state: State = {}
    for path in find_weights(folder):
        state.update(read_weights(path))
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def load_published(folder: Path, change: dict[str, Any] | None = None) -> nn.Module:
    """The component that ``config.json`` describes, with ``change`` in its configuration; strict.

    Raises AudioLDMError for an unknown class, or weights that are not the configuration's.
    """
    config = {**read_json(folder / "config.json"), **(change or {})}
    name = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    if name not in (*BUILDERS, LANGUAGE):
        raise AudioLDMError(f"{folder}: unknown class {name!r}.", f"Known: {', '.join(BUILDERS)}.")
    state = read_state(folder)
    if name == LANGUAGE:
        name, state = "GPT2Model", below(state, "transformer.")
    if name == "AutoencoderKL":
        state = vae.modernise(state)
    if name == "T5EncoderModel" and "shared.weight" in state:
        state.setdefault("encoder.embed_tokens.weight", state["shared.weight"])
    if name.startswith("Clap"):
        built = BUILDERS[name](config)  # with memory: its own buffers are wanted
        computed = {k: v for k, v in built.state_dict().items() if k.endswith(COMPUTED)}
        state = {**computed, **state}
    return fill(lambda: BUILDERS[name](config), state, folder)


def published_heads(folder: Path) -> tuple[int, ...] | None:
    """The heads that a converted U-Net was trained with, where its configuration says one number; else None.

    The converter wrote ``attention_head_dim: 8`` for every size, which diffusers runs as 8 heads at every level.
    A list of numbers was written by somebody who knew.
    """
    config = read_json(folder / "config.json")
    number = config.get("num_attention_heads") or config.get("attention_head_dim")
    converted = config.get("class_embed_type") == "simple_projection" or "AudioLDM2" in config["_class_name"]
    if not isinstance(number, int) or not converted:
        return None
    return original_heads(config["block_out_channels"])


def load_any_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer from ``tokenizer.json``, or from RoBERTa's ``vocab.json`` and ``merges.txt``."""
    tokenizer = _read_tokenizer(folder)
    if (
        tokenizer.model_max_length > MAX_TOKENS
    ):  # the two files alone do not say it, and stock pipelines pad to it
        tokenizer.model_max_length = MAX_TOKENS
    return tokenizer


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if (folder / "tokenizer.json").is_file():
        read_json(folder / "tokenizer.json")
        settings = read_json(folder / "tokenizer_config.json")
        roberta = str(settings.get("tokenizer_class", "")).startswith("Roberta")
        kind = RobertaTokenizer if roberta else PreTrainedTokenizerFast
        return kind.from_pretrained(folder, local_files_only=True)
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise AudioLDMError(
                f"{folder / name} is missing.",
                f"Put RoBERTa's vocab.json and merges.txt (FacebookAI/roberta-base) into {folder}.",
            )
    try:
        return RobertaTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise AudioLDMError(f"{folder} holds no RoBERTa tokenizer ({error}).", "Download it again.") from None


def load_t5_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """T5's tokenizer from ``tokenizer.json``, or from ``spiece.model`` where sentencepiece is installed."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        raise AudioLDMError(
            f"{folder / 'tokenizer.json'} is missing.",
            f"Put FLAN-T5's tokenizer.json and tokenizer_config.json (google/flan-t5-large) into {folder}.",
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise AudioLDMError(f"{folder} holds no T5 tokenizer ({reason}).", "Download it again.") from None


def load_pretrained_clap(folder: Path) -> PretrainedClap:
    """``text_encoder`` and ``tokenizer`` of a model folder, and ``audio_encoder`` where there is one."""
    audio, extractor = None, None
    if (folder / "audio_encoder").is_dir():
        audio = load_published(folder / "audio_encoder")
        if (folder / "audio_encoder" / "preprocessor_config.json").is_file():
            extractor = ClapFeatureExtractor.from_pretrained(folder / "audio_encoder", local_files_only=True)
    return PretrainedClap(
        load_published(folder / "text_encoder"),  # type: ignore[arg-type]
        load_any_tokenizer(folder / "tokenizer"),
        audio,  # type: ignore[arg-type]
        extractor,
    ).eval()


def has_small_clap(folder: Path) -> bool:
    """Whether the audio tower is that of this project, which no published folder has."""
    config = folder / "audio_encoder" / "config.json"
    return config.is_file() and read_json(config).get("_class_name") == "MelEncoder"
