"""Parts of models as folders: tokenizers, CLAPs and T5s in the layouts of this project, diffusers and transformers."""

from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextModelWithProjection,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    T5EncoderModel,
)

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import MelEncoder, NoClap, PretrainedClap, SmallClap
from audioldm.nets.folder import class_name, load_component, read_json, reason
from audioldm.nets.text_encoder import T5TextEncoder

MAX_TOKENS = 512
"""RoBERTa's longest text, and Tango's longest prompt"""
ROBERTA, T5 = "FacebookAI/roberta-base", "google/flan-t5-large"
TOKENIZERS = {
    ROBERTA: (("vocab.json", "merges.txt"), ("tokenizer.json",)),
    T5: (("tokenizer.json", "tokenizer_config.json"), ("tokenizer.json",), ("spiece.model",)),
}
"""files of which one group must be there"""


def load_tokenizer(folder: Path, vocabulary: int, kind: str = ROBERTA) -> Any:
    """A tokenizer for a text encoder of ``vocabulary`` rows, from any of the files that libraries save.

    ``kind`` is the hub id of the published one, for the messages.   Raises AudioLDMError where there is none, where it
    cannot be read, and where it has more entries than the text encoder.
    """
    if not has_tokenizer(folder, kind):
        files = TOKENIZERS[kind][0]
        lost = next((name for name in files if not (folder / name).is_file()), files[0])
        raise AudioLDMError(
            f"{folder / lost} is missing.", f"Put the tokenizer of {kind} into {folder}: {', '.join(files)}."
        )
    try:
        tokenizer = tokenizer_class(folder, kind).from_pretrained(folder, local_files_only=True)
        tokenizer(["a"], padding=True, truncation=True, max_length=8, return_tensors="pt")
        if kind == ROBERTA:  # its two files alone do not say it, and stock pipelines pad to it
            tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS)
    except Exception as error:  # the tokenizers library raises bare exceptions
        if isinstance(error, AudioLDMError):
            raise
        raise AudioLDMError(f"{folder} holds no tokenizer ({reason(error)}).", "Download it again.") from None
    if len(tokenizer) > vocabulary:
        raise AudioLDMError(
            f"The tokenizer {folder} has {len(tokenizer)} entries, its text encoder {vocabulary}.",
            f"Use the tokenizer of {kind}, or the one that the model was trained with.",
        )
    return tokenizer


def has_tokenizer(folder: Path, kind: str) -> bool:
    """Whether the files of a tokenizer are in ``folder``."""
    return any(all((folder / name).is_file() for name in group) for group in TOKENIZERS[kind])


def tokenizer_class(folder: Path, kind: str) -> Any:
    """The class that reads the files of ``folder``."""
    if kind == T5:
        return AutoTokenizer
    if not (folder / "tokenizer.json").is_file():
        return RobertaTokenizer
    read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json")
    named = str(settings.get("tokenizer_class", ""))
    return RobertaTokenizer if named.startswith("Roberta") else PreTrainedTokenizerFast


def load_clap(folder: Path) -> SmallClap | PretrainedClap | NoClap:
    """The CLAP of a model folder or of a ``ClapModel``'s, by what is there; ``NoClap`` beside a T5 alone."""
    if (folder / "config.json").is_file() and class_name(read_json(folder / "config.json")) == "ClapModel":
        return whole_clap(folder, folder, folder)
    if not (folder / "text_encoder").is_dir() and (folder / "text_encoder_2").is_dir():
        return NoClap()
    if class_name(read_json(folder / "text_encoder" / "config.json")) == "ClapModel":  # AudioLDM 2
        return whole_clap(folder / "text_encoder", folder / "tokenizer", folder / "feature_extractor")
    text: Any = load_component(folder / "text_encoder", ClapTextModelWithProjection)
    tokenizer = load_tokenizer(folder / "tokenizer", text.config.vocab_size)
    audio: Any = load_component(folder / "audio_encoder") if (folder / "audio_encoder").is_dir() else None
    if isinstance(audio, MelEncoder):
        return SmallClap(text, tokenizer, audio).eval()
    return PretrainedClap(text, tokenizer, audio, load_extractor(folder / "audio_encoder")).eval()


def whole_clap(folder: Path, tokenizer: Path, extractor: Path) -> PretrainedClap:
    """Both towers of a ``ClapModel``, with its tokenizer and feature extractor from their folders."""
    model: Any = load_component(folder, ClapModel)
    words = load_tokenizer(tokenizer, model.config.text_config.vocab_size)
    return PretrainedClap.from_clap(model, words, load_extractor(extractor))


def load_extractor(folder: Path) -> Any:
    """The feature extractor of an audio tower; None, which is LAION's, where there is no file."""
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return None
    try:
        return ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise AudioLDMError(
            f"{folder} holds no feature extractor ({reason(error)}).", "Download it again."
        ) from None


def load_t5(model: Path, tokenizer: Path | None = None, *, longest: int | None = None) -> T5TextEncoder:
    """A T5 encoder and its tokenizer, from two folders or one; ``longest`` None is what the tokenizer says."""
    net: Any = load_component(model, T5EncoderModel)
    reader = load_tokenizer(tokenizer or model, net.config.vocab_size, T5)
    most = min(reader.model_max_length, MAX_TOKENS) if longest is None else longest
    return T5TextEncoder(net, reader, longest=most)
