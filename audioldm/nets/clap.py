"""Text and sound as unit vectors of one space: the small CLAP that this project trains, and LAION's.

LAION-CLAP: arXiv:2211.06687.   B batch, N samples, T frames, F bins, D embedding width.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, TypeVar

import torch
import torchaudio.functional as taf
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import ClapTextModelWithProjection, PreTrainedTokenizerFast

from audioldm.errors import AudioLDMError
from audioldm.nets.folder import Component, load_component, read_json, save_component, state_digest
from audioldm.signal.mel import MEAN, STD, LogMel
from audioldm.spec import SPECS

InSpace = TypeVar("InSpace", bound=nn.Module)
TextCall = Callable[[Tensor, Tensor], Tensor]
MAX_TOKENS = 77  # tokens of a prompt that the small text tower has positions for
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def check_texts(texts: Sequence[str]) -> None:
    """Refuse texts with half of a surrogate pair, which JSON and consoles can bring and no tokenizer takes."""
    for text in texts:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise AudioLDMError(f"prompt={text!r} holds half a character.", "Write it anew in UTF-8.")


def unread_words(encoder: Any, text: str) -> tuple[int, list[str]]:
    """The longest text in tokens that an encoder (CLAP, T5) reads, and the words of ``text`` that are beyond it."""
    encoder = getattr(encoder, "t5", encoder)
    tokenizer = getattr(encoder, "tokenizer", None)
    longest = int(getattr(encoder, "max_tokens", 0) or getattr(encoder, "longest", 0))
    # no token is shorter than a byte, and two mark the ends
    if tokenizer is None or not tokenizer.is_fast or len(text.encode(errors="replace")) + 2 <= longest:
        return longest, []
    read = tokenizer(text, truncation=True, max_length=longest, return_offsets_mapping=True)
    end = max((last for _, last in read["offset_mapping"]), default=0)
    within = bool(text[end : end + 1].strip())
    return longest, text[text.rfind(" ", 0, end) + 1 if within else end :].split()


class MelEncoder(Component):
    """Strided convolutions over a log-mel, then mean and maximum over time: (B, 1, N), 0.1 s or more, to (B, dim)."""

    def __init__(
        self, spec: str = "16k_64", widths: Sequence[int] = (32, 64, 128, 256), dim: int = 256, hidden: int = 512
    ) -> None:  # fmt: skip
        super().__init__()
        if spec not in SPECS:
            raise AudioLDMError(f"spec={spec!r} is unknown.", f"Known: {', '.join(SPECS)}.")
        self.mel = LogMel(SPECS[spec])
        stages: list[nn.Module] = []
        for inside, outside in zip((1, *widths), widths, strict=False):
            halve = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
            depth = nn.Conv2d(outside, outside, 3, padding=1, groups=outside)
            mix = nn.Conv2d(outside, outside, 1)
            stages += [halve, nn.GroupNorm(8, outside), nn.GELU()]
            stages += [depth, mix, nn.GroupNorm(8, outside), nn.GELU()]
        self.stages = nn.Sequential(*stages)
        bins = -(-SPECS[spec].mels // 2 ** len(widths))
        self.head = nn.Sequential(nn.Linear(2 * widths[-1] * bins, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def _apply(self, fn: Any, recurse: bool = True) -> "MelEncoder":
        """Move or cast; the front end stays in float32 where the rest becomes half precision."""
        super()._apply(fn, recurse)
        if self.mel.window.dtype in (torch.bfloat16, torch.float16):
            self.mel = LogMel(self.mel.spec).to(self.mel.window.device)
        return self

    def forward(self, wave: Tensor) -> Tensor:
        return self.pooled(self.frames(wave))

    def frames(self, wave: Tensor) -> Tensor:
        """What the last convolution sees in each stretch of time, (B, T', C F')."""
        x = (self.mel(wave.to(self.mel.window.dtype)) - MEAN) / STD
        return self.stages(x.to(self.head[0].weight.dtype)).transpose(1, 2).flatten(2)

    def pooled(self, frames: Tensor) -> Tensor:
        """The vectors (B, dim) of ``frames``."""
        return self.head(torch.cat([frames.mean(1), frames.amax(1)], dim=-1))


class TwoTowers(nn.Module):
    """A CLAP: a text tower with its tokenizer and an audio tower, which end in one space of unit vectors.

    The audio tower is a ``MelEncoder``, or transformers' behind its feature ``extractor`` (None is LAION's), or None:
    converted AudioLDM folders have none.   Raises AudioLDMError for towers that do not belong together.
    """

    def __init__(
        self, text_encoder: Any, tokenizer: Any, audio_encoder: Any = None, extractor: Any = None
    ) -> None:
        super().__init__()
        self.text_encoder, self.tokenizer, self.audio_encoder = text_encoder, tokenizer, audio_encoder
        config = text_encoder.config
        self.dim: int = config.projection_dim
        self.max_tokens: int = config.max_position_embeddings - (config.pad_token_id or 0) - 1
        if self.max_tokens < 3:
            raise AudioLDMError("The text tower has no room for tokens.", "Its config.json is not its own.")
        if isinstance(audio_encoder, MelEncoder):
            self.extractor: Any = None
            self.rate = SPECS[audio_encoder.config.spec].rate
            if audio_encoder.config.dim != self.dim:
                why = f"The text tower has dim={self.dim}, the audio tower {audio_encoder.config.dim}."
                raise AudioLDMError(why, "Use two towers that were trained together.")
        else:  # LAION's other settings are transformers' defaults
            usual = {"frequency_min": 50, "truncation": "rand_trunc"}
            self.extractor = extractor or transformers.ClapFeatureExtractor(**usual)
            self.rate = int(self.extractor.sampling_rate)

    @classmethod
    def from_clap(cls, model: Any, tokenizer: Any, extractor: Any) -> "TwoTowers":
        """The towers of a whole ``ClapModel``; its logit scales are not needed for unit vectors."""
        text = ClapTextModelWithProjection(model.config.text_config)
        audio = transformers.ClapAudioModelWithProjection(model.config.audio_config)
        state = model.state_dict()
        for tower in (text, audio):
            tower.load_state_dict({key: state[key] for key in tower.state_dict()})
        return cls(text, tokenizer, audio, extractor).eval()

    @property
    def device(self) -> torch.device:
        return self.text_encoder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.text_encoder.dtype

    def embed_text(self, prompts: Sequence[str], function: TextCall | None = None) -> Tensor:
        """Prompts to unit vectors (B, D), float32, cut at ``max_tokens``; ``function`` replaces ``text_vectors``."""
        check_texts(prompts)
        tokens = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        return (function or self.text_vectors)(tokens.input_ids, tokens.attention_mask)

    def text_vectors(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L) with which of them count, (B, L) or what is added to scores (B, 1, 1, L), to vectors (B, D)."""
        return nnf.normalize(self.text_encoder(ids, attention_mask=mask).text_embeds.float(), dim=-1)

    def embed_audio(self, wave: Tensor, rate: int = 16000) -> Tensor:
        """Waveforms (B, 1, N) at ``rate`` Hz to unit vectors (B, D), float32, or AudioLDMError without a tower."""
        if self.audio_encoder is None:
            hint = "Use the original .ckpt, which has both towers, or a folder exported from it."
            raise AudioLDMError("This model has no audio tower: its CLAP embeds text but not sound.", hint)
        wave = taf.resample(wave, rate, self.rate) if rate != self.rate else wave
        if self.extractor is None:
            return nnf.normalize(self.audio_encoder(wave).float(), dim=-1)
        # the first 10 s: LAION's code takes them from a random place, and one sound would have many embeddings
        waves = list(wave[:, 0, : self.extractor.nb_max_samples].float().cpu().numpy())
        features = self.extractor(waves, sampling_rate=self.rate, return_tensors="pt").input_features
        vectors = self.audio_encoder(features.to(self.device, self.dtype)).audio_embeds
        return nnf.normalize(vectors.float(), dim=-1)

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        save_component(self.text_encoder, Path(folder) / "text_encoder", dtype=dtype)
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")
        if self.audio_encoder is not None:
            save_component(self.audio_encoder, Path(folder) / "audio_encoder", dtype=dtype)
            if self.extractor is not None:
                self.extractor.save_pretrained(Path(folder) / "audio_encoder")


class NoClap(nn.Module):
    """The CLAP of a model that is conditioned on tokens only (Tango): it refuses every call."""

    audio_encoder = None

    def embed_text(self, *_: Any) -> Tensor:
        """Raise AudioLDMError."""
        raise AudioLDMError("This model has no CLAP.", "Use one that has, such as AudioLDM.")

    embed_audio = embed_text

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        """Nothing to write."""


def clap_digest(clap: TwoTowers | NoClap) -> str:
    """What a net that lives in CLAP's space is tied to: a digest of the text tower, which every CLAP has."""
    return "" if isinstance(clap, NoClap) else state_digest(clap.text_encoder)[:16]


def in_space(folder: Path, clap: TwoTowers | NoClap) -> bool:
    """Whether the net of a folder was trained on this CLAP."""
    return bool(read_json(folder / "config.json").get("clap") == clap_digest(clap))


def load_in_space(folder: Path, kind: type[InSpace], clap: TwoTowers | NoClap, recipe: str) -> InSpace:
    """The net that ``recipe`` exported, where ``clap`` is.   Raises AudioLDMError if it was trained on another CLAP."""
    net: Any = load_component(folder, kind)
    if net.config.clap not in ("", clap_digest(clap)):
        hint = f"Name its model by --model, or train again: audioldm train {recipe}."
        raise AudioLDMError(f"{folder} was trained on another CLAP than this model's.", hint)
    return net.to(clap.device).requires_grad_(False)


def build_text_encoder(
    tokenizer: PreTrainedTokenizerFast, *, width: int = 128, layers: int = 2, heads: int = 4, dim: int = 256
) -> ClapTextModelWithProjection:
    """CLAP's own text architecture at small size, so that published pipelines can open it."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "projection_hidden_size": width}
    depth = {"num_hidden_layers": layers, "num_attention_heads": heads, "projection_dim": dim}
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": MAX_TOKENS + tokenizer.pad_token_id + 1}
    still = {"type_vocab_size": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.ClapTextConfig(**words, **sizes, **depth, **ends, **still)
    return ClapTextModelWithProjection(config)


def build_small_clap(
    tokenizer: PreTrainedTokenizerFast, *, dim: int = 256, width: int = 128, layers: int = 2,
    widths: Sequence[int] = (32, 64, 128, 256), word_embeddings: Tensor | None = None,
) -> TwoTowers:  # fmt: skip
    """Both towers, untrained; ``word_embeddings`` (vocabulary, width) to begin from.   Raises AudioLDMError."""
    text = build_text_encoder(tokenizer, width=width, layers=layers, dim=dim)
    if word_embeddings is not None:
        if word_embeddings.shape[1] != width:
            what = f"The word embeddings are {word_embeddings.shape[1]} wide, the text tower {width}."
            raise AudioLDMError(what, "Give both the same width.")
        text.get_input_embeddings().weight.data.copy_(word_embeddings)
    return TwoTowers(text, tokenizer, MelEncoder(widths=tuple(widths), dim=dim))


def train_tokenizer(texts: Sequence[str], *, size: int = 2000) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer for ``texts``: letters, then the most frequent words, in lower case; RoBERTa's specials.

    The same texts give the same vocabulary; the library's own trainer breaks ties differently at every run.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    parts = (splitter.pre_tokenize_str(normalizer.normalize_str(text)) for text in texts)
    counts = Counter(word for part in parts for word, _ in part)
    letters = sorted({*"".join(counts), *ascii_lowercase, *digits})
    words = sorted((w for w in counts if len(w) > 1), key=lambda w: (-counts[w], w))
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
    raw = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces[:size])}, unk_token="<unk>"))
    raw.normalizer, raw.pre_tokenizer, raw.decoder = normalizer, splitter, decoders.WordPiece()
    return wrap_tokenizer(raw)


def wrap_tokenizer(raw: Any) -> PreTrainedTokenizerFast:
    """Frame every text as <s> ... </s> and give transformers the names of the special tokens."""
    bos, pad, eos, unk, mask = SPECIAL
    ends = [(name, raw.token_to_id(name)) for name in (bos, eos)]
    raw.post_processor = processors.TemplateProcessing(single=f"{bos} $A {eos}", special_tokens=ends)
    roles = {"bos": bos, "cls": bos, "pad": pad, "eos": eos, "sep": eos, "unk": unk, "mask": mask}
    names = {f"{role}_token": name for role, name in roles.items()}
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=MAX_TOKENS, **names)
