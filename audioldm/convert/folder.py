"""Where the nets of a model come from, each called as its component folder is, and the text encoders made of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import diffusers
import transformers
from torch import nn

from audioldm.convert import unet
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap, TwoTowers
from audioldm.nets.folder import class_name, load_component, read_json, reason
from audioldm.nets.text_encoder import LENGTH, AudioLDM2TextEncoder, T5TextEncoder

Heads = Literal["original", "as-published"]
Weights = Literal["ema", "raw"]
MAX_TOKENS = 512  # RoBERTa's longest text, and Tango's longest prompt
ROBERTA, T5 = "FacebookAI/roberta-base", "google/flan-t5-large"
TOKENIZERS = {  # files of which one group must be there
    ROBERTA: (("vocab.json", "merges.txt"), ("tokenizer.json",)),
    T5: (("tokenizer.json", "tokenizer_config.json"), ("tokenizer.json",), ("spiece.model",)),
}
NETS = ("unet", "vae", "vocoder")
CLASSES: dict[str, Any] = {
    "unet": (diffusers.UNet2DConditionModel, diffusers.AudioLDM2UNet2DConditionModel), "vae": diffusers.AutoencoderKL,
    "vocoder": nn.Module, "text_encoder": (transformers.ClapTextModelWithProjection, transformers.ClapModel),
    "audio_encoder": nn.Module, "text_encoder_2": transformers.T5EncoderModel,
    "projection_model": diffusers.AudioLDM2ProjectionModel, "language_model": transformers.GPT2Model,
}  # fmt: skip
EXTRACTORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Choices:
    """How to read what is published wrong or twice.   Raises AudioLDMError for an unknown choice.

    The heads are those of the training, or the 8 of converted folders; the weights the moving average if there is one.
    ``tokenizer`` is a folder of RoBERTa's vocab.json and merges.txt, T5's in ``tokenizer_2``: checkpoints have none.
    """

    heads: Heads = "original"
    weights: Weights = "ema"
    tokenizer: Path | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("heads", self.heads, Heads), ("weights", self.weights, Weights)):
            if value not in get_args(known):
                raise AudioLDMError(f"{name}={value!r} is unknown.", f"Known: {', '.join(get_args(known))}.")
        if self.tokenizer is not None and not Path(self.tokenizer).is_dir():
            raise AudioLDMError(f"tokenizer={self.tokenizer} is no folder.", "Name one with vocab.json.")


DEFAULT = Choices()


class Source(Protocol):
    """Where nets come from: a folder, or a checkpoint of the original code."""

    def has(self, name: str) -> bool: ...
    def build(self, name: str) -> Any: ...
    def tokenizer(self, kind: str) -> Path: ...
    def extractor(self) -> Any: ...


@dataclass(frozen=True)
class Folder:
    """Component folders below ``path``, or a folder that is one part itself, with its tokenizer."""

    path: Path
    heads: Heads = "as-published"

    def place(self, name: str) -> Path:
        alone = (self.path / "config.json").is_file() and not (self.path / name / "config.json").is_file()
        return self.path if alone else self.path / name

    def has(self, name: str) -> bool:
        return (self.path / name).is_dir()

    def build(self, name: str) -> Any:
        place = self.place(name)
        heads = published_heads(place) if name == "unet" and self.heads == "original" else None
        return load_component(place, CLASSES[name], **({"attention_head_dim": heads} if heads else {}))

    def tokenizer(self, kind: str) -> Path:
        """The folder of the CLAP's or the T5's tokenizer."""
        name, net = ("tokenizer", "text_encoder") if kind == ROBERTA else ("tokenizer_2", "text_encoder_2")
        return self.path if self.place(net) == self.path else self.path / name

    def extractor(self) -> Any:
        """The feature extractor of the CLAP's audio tower; None, which is LAION's, where there is no file."""
        names = ("",) if self.place("text_encoder") == self.path else ("audio_encoder", "feature_extractor")
        files = (place / file for place in (self.path / name for name in names) for file in EXTRACTORS)
        folder = next((file.parent for file in files if file.is_file()), None)
        try:
            return folder and transformers.ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            what = f"{folder} holds no feature extractor ({reason(error)})."
            raise AudioLDMError(what, "Download it again.") from None


def published_heads(folder: Path) -> tuple[int, ...] | None:
    """The heads that a U-Net was trained with whose converter wrote ``attention_head_dim: 8`` everywhere; else None."""
    config = read_json(folder / "config.json")
    number = config.get("num_attention_heads") or config.get("attention_head_dim")
    converted = config.get("class_embed_type") == "simple_projection" or "AudioLDM2" in class_name(config)
    channels = config.get("block_out_channels")
    if converted and type(number) is int and type(channels) is list and {*map(type, channels)} == {int}:
        return unet.heads(channels)
    return None


def clap_of(source: Source) -> TwoTowers | NoClap:
    """The CLAP of a source, by what is there; ``NoClap`` beside a T5 alone."""
    if not source.has("text_encoder") and source.has("text_encoder_2"):
        return NoClap()
    text = source.build("text_encoder")
    whole = isinstance(text, transformers.ClapModel)  # AudioLDM 2's, or transformers' own
    config = text.config.text_config if whole else text.config
    tokenizer = load_tokenizer(source.tokenizer(ROBERTA), config.vocab_size)
    if whole:
        return TwoTowers.from_clap(text, tokenizer, source.extractor())
    audio = source.build("audio_encoder") if source.has("audio_encoder") else None
    return TwoTowers(text, tokenizer, audio, source.extractor()).eval()


def t5_of(source: Source, *, longest: int | None = None) -> T5TextEncoder:
    """The T5 of a source with its tokenizer, which says where texts are cut unless ``longest`` does."""
    net = source.build("text_encoder_2")
    reader = load_tokenizer(source.tokenizer(T5), net.config.vocab_size, T5)
    return T5TextEncoder(net, reader, longest=longest or min(reader.model_max_length, MAX_TOKENS))


def token_encoder_of(
    source: Source, clap: TwoTowers | NoClap, *, alone: bool, longest: int | None = None
) -> T5TextEncoder | AudioLDM2TextEncoder | None:
    """T5, or AudioLDM 2's GPT-2 behind it; None for a source without either."""
    t5 = t5_of(source, longest=longest) if source.has("text_encoder_2") else None
    if t5 is None or not source.has("language_model") or not isinstance(clap, TwoTowers):
        return t5
    projection, gpt = source.build("projection_model"), source.build("language_model")
    length = getattr(gpt.config, "max_new_tokens", None) or LENGTH
    return AudioLDM2TextEncoder(clap, t5, projection, gpt, length=length, alone=alone)


def load_tokenizer(folder: Path, vocabulary: int, kind: str = ROBERTA) -> Any:
    """The tokenizer of a folder for an encoder of ``vocabulary`` rows, published as ``kind``.  Raises AudioLDMError."""
    there = {path.name for path in folder.glob("*") if path.is_file()}
    if not any(map(there.issuperset, TOKENIZERS[kind])):
        files = TOKENIZERS[kind][0]
        lost = next(name for name in files if name not in there)
        hint = f"Put the tokenizer of {kind} into {folder}: {', '.join(files)}."
        raise AudioLDMError(f"{folder / lost} is missing.", hint)
    reader: Any = transformers.AutoTokenizer if kind == T5 else transformers.RobertaTokenizer
    if kind == ROBERTA and "tokenizer.json" in there:
        read_json(folder / "tokenizer.json")
        named = str(read_json(folder / "tokenizer_config.json").get("tokenizer_class", ""))
        reader = reader if named.startswith("Roberta") else transformers.PreTrainedTokenizerFast
    try:
        tokenizer = reader.from_pretrained(folder, local_files_only=True)
        tokenizer(["a"], padding=True, truncation=True, max_length=8, return_tensors="pt")
        if kind == ROBERTA:  # its two files alone do not say it, and stock pipelines pad to it
            tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise AudioLDMError(f"{folder} holds no tokenizer ({reason(error)}).", "Download it again.") from None
    if len(tokenizer) > vocabulary:
        why = f"The tokenizer {folder} has {len(tokenizer)} entries, its text encoder {vocabulary}."
        raise AudioLDMError(why, f"Use the tokenizer of {kind}, or the one that the model was trained with.")
    return tokenizer
