"""Text and sound in one space: what a CLAP is, and the small one that this project trains.

Each gives unit vectors: ``embed_text(prompts) -> (B, D)`` and ``embed_audio(wave (B, 1, N), rate) -> (B, D)``.
LAION-CLAP: arXiv:2211.06687.   B batch, N samples, T frames, F bins, D embedding width.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Protocol

import torch
import torchaudio.functional as taf
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import ClapTextConfig, ClapTextModelWithProjection, PreTrainedTokenizerFast

from audioldm.errors import AudioLDMError
from audioldm.signal.mel import LogMel
from audioldm.spec import SPECS

MAX_TOKENS = 77  # longest prompt that the small text tower has positions for


class Clap(Protocol):
    """What the rest of the project knows of a CLAP."""

    dim: int

    def embed_text(self, prompts: Sequence[str]) -> Tensor: ...
    def embed_audio(self, wave: Tensor, rate: int = 16000) -> Tensor: ...


class MelEncoder(ModelMixin, ConfigMixin):
    """The small audio tower: strided convolutions over our own log-mel, then mean and maximum over time.

    Any length from 0.1 s on; (B, 1, N) at the spec's rate to (B, dim), not normalised.
    """

    @register_to_config
    def __init__(
        self,
        spec: str = "16k_64",
        widths: Sequence[int] = (32, 64, 128, 256),
        dim: int = 256,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        self.mel = LogMel(SPECS[spec])
        stages: list[nn.Module] = []
        for inside, outside in zip((1, *widths), widths, strict=False):
            stages += [
                nn.Conv2d(inside, outside, 3, stride=2, padding=1),
                nn.GroupNorm(8, outside),
                nn.GELU(),
                nn.Conv2d(outside, outside, 3, padding=1, groups=outside),
                nn.Conv2d(outside, outside, 1),
                nn.GroupNorm(8, outside),
                nn.GELU(),
            ]
        self.stages = nn.Sequential(*stages)
        bins = -(-SPECS[spec].mels // 2 ** len(widths))
        self.head = nn.Sequential(nn.Linear(2 * widths[-1] * bins, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, wave: Tensor) -> Tensor:
        """Embed waveforms."""
        x = (self.mel(wave) + 4.63) / 2.74  # AudioLDM's mean and std of log-mels
        x = self.stages(x).transpose(1, 2).flatten(2)  # (B, T', C*F')
        return self.head(torch.cat([x.mean(1), x.amax(1)], dim=-1))


def build_text_encoder(
    tokenizer: PreTrainedTokenizerFast, *, width: int = 128, layers: int = 2, heads: int = 4, dim: int = 256
) -> ClapTextModelWithProjection:
    """CLAP's own text architecture at small size, so that published pipelines can open it."""
    return ClapTextModelWithProjection(
        ClapTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            projection_dim=dim,
            projection_hidden_size=width,
            max_position_embeddings=MAX_TOKENS + tokenizer.pad_token_id + 1,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


class SmallClap(nn.Module):
    """A text tower (transformers) and an audio tower (``MelEncoder``) that end in one space of unit vectors."""

    def __init__(
        self,
        text_encoder: ClapTextModelWithProjection,
        tokenizer: PreTrainedTokenizerFast,
        audio_encoder: MelEncoder,
    ) -> None:
        super().__init__()
        self.text_encoder, self.tokenizer, self.audio_encoder = text_encoder, tokenizer, audio_encoder
        self.rate = SPECS[audio_encoder.config.spec].rate
        self.dim = text_encoder.config.projection_dim
        if audio_encoder.config.dim != self.dim:
            raise ValueError(f"the text tower has dim={self.dim}, the audio tower {audio_encoder.config.dim}")

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to unit vectors (B, D); longer than ``MAX_TOKENS`` tokens is cut."""
        tokens = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(self.text_encoder.device)
        out = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)
        return nnf.normalize(out.text_embeds, dim=-1)

    def embed_audio(self, wave: Tensor, rate: int = 16000) -> Tensor:
        """Waveforms (B, 1, N) to unit vectors (B, D)."""
        if rate != self.rate:
            wave = taf.resample(wave, rate, self.rate)
        return nnf.normalize(self.audio_encoder(wave), dim=-1)

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        """Write ``text_encoder``, ``tokenizer`` and ``audio_encoder`` below ``folder``."""
        from audioldm.nets.folder import save_component

        save_component(self.text_encoder, Path(folder) / "text_encoder", dtype=dtype)
        save_component(self.audio_encoder, Path(folder) / "audio_encoder", dtype=dtype)
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")

    @classmethod
    def load(cls, folder: Path | str) -> "SmallClap":
        """Read what ``save`` wrote."""
        from audioldm.nets.folder import load_component, load_tokenizer

        folder = Path(folder)
        parts = load_component(folder / "text_encoder"), load_component(folder / "audio_encoder")
        return cls(parts[0], load_tokenizer(folder / "tokenizer"), parts[1]).eval()


def build_small_clap(
    tokenizer: PreTrainedTokenizerFast,
    *,
    dim: int = 256,
    width: int = 128,
    layers: int = 2,
    widths: Sequence[int] = (32, 64, 128, 256),
    words: Tensor | None = None,
) -> SmallClap:
    """Both towers, untrained. ``words`` (vocabulary, width) starts the word embeddings from a larger text encoder's."""
    if words is not None and words.shape[1] != width:
        raise AudioLDMError(
            f"The words have {words.shape[1]} values each, the text tower is {width} wide.",
            "Give both the same width (task.clap.width and task.clap.words.width).",
        )
    text = build_text_encoder(tokenizer, width=width, layers=layers, dim=dim)
    if words is not None:
        with torch.no_grad():
            text.get_input_embeddings().weight.copy_(words)
    return SmallClap(text, tokenizer, MelEncoder(widths=tuple(widths), dim=dim))


def train_tokenizer(texts: Sequence[str], *, size: int = 2000) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer for ``texts``: letters, then the most frequent words, in lower case; RoBERTa's specials.

    The same texts give the same vocabulary.   (The library's own trainer breaks ties differently at every run, and a
    resumed training would meet another vocabulary than its checkpoint's.)
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(
        word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    letters = sorted({letter for word in counts for letter in word} | set(ascii_lowercase + digits))
    words = sorted((w for w in counts if len(w) > 1), key=lambda w: (-counts[w], w))
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: i for i, piece in enumerate(pieces[:size])}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    raw.normalizer, raw.pre_tokenizer, raw.decoder = normalizer, splitter, decoders.WordPiece()
    return wrap_tokenizer(raw)


SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def wrap_tokenizer(raw) -> PreTrainedTokenizerFast:  # type: ignore[no-untyped-def]
    """Frame every text as <s> ... </s> and give transformers the names of the special tokens."""
    from tokenizers import processors

    bos, pad, eos, unk, mask = SPECIAL
    raw.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(name, raw.token_to_id(name)) for name in (bos, eos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=bos,
        cls_token=bos,
        pad_token=pad,
        eos_token=eos,
        sep_token=eos,
        unk_token=unk,
        mask_token=mask,
        model_max_length=MAX_TOKENS,
    )


class NoClap(nn.Module):
    """Stands where a model is told words only (Tango) and has no CLAP."""

    audio_encoder = None

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Refuse."""
        raise AudioLDMError("This model has no CLAP.", "Use one that has, such as AudioLDM.")

    def embed_audio(self, wave: Tensor, rate: int = 16000) -> Tensor:
        """Refuse."""
        raise AudioLDMError("This model has no CLAP.", "Use one that has, such as AudioLDM.")

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        """Nothing to write."""
