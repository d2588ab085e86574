"""Texts to the token sequences that a U-Net attends to: T5, and AudioLDM 2's GPT-2 behind CLAP and T5.

B texts, L tokens, D width of CLAP, E of T5, G of GPT-2.   AudioLDM 2: arXiv:2308.05734 sec. 3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audioldm.batch import Condition
from audioldm.nets.clap import TwoTowers, check_texts
from audioldm.nets.folder import save_component

LONGEST = 128  # tokens of a caption, as AudioLDM 2's T5 is used
LENGTH = 8  # vectors that stand for 10 s of sound: AudioMAE's 64 x 8 patches, averaged 8 x 8


class T5TextEncoder(nn.Module):
    """A T5 encoder (``T5EncoderModel``) with its tokenizer; ``longest`` is where a text is cut, in tokens."""

    def __init__(self, model: Any, tokenizer: Any, *, longest: int = LONGEST) -> None:
        super().__init__()
        self.model, self.tokenizer, self.longest = model.eval(), tokenizer, longest
        self.dim: int = model.config.d_model

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """The encoder's last states (L, E) for one text; alone, so that padding changes nothing."""
        check_texts([text])
        tokens = self.tokenizer([text], truncation=True, max_length=self.longest, return_tensors="pt")
        return self.model(**tokens.to(self.model.device)).last_hidden_state[0].float()

    def encode(self, texts: Sequence[str]) -> Condition:
        parts = [self.embed(text) for text in texts]
        tokens = pad_sequence(parts, batch_first=True)
        lengths = torch.tensor([len(part) for part in parts], device=tokens.device)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return Condition(tokens=tokens, mask=(place < lengths[:, None]).long())

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        save_component(self.model, Path(folder) / "text_encoder_2", dtype=dtype)
        self.tokenizer.model_max_length = self.longest
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer_2")


class AudioLDM2TextEncoder(nn.Module):
    """Texts to two sequences: ``length`` vectors that GPT-2 generates (B, 8, G), and T5's tokens (B, L, E).

    ``alone``: every text by itself and the empty one as zeros, as the original does.   Otherwise, as in diffusers,
    texts are padded to the longest before GPT-2 reads them, so that each moves the others.
    """

    def __init__(
        self, clap: TwoTowers, t5: T5TextEncoder, projection: Any, gpt: Any, *, length: int = LENGTH, alone: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        self.clap, self.t5 = clap, t5
        self.projection, self.gpt = projection.eval(), gpt.eval()
        self.length, self.alone = length, alone

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Condition:
        t5, reader = self.t5.encode(texts), self.t5.tokenizer
        vectors = torch.cat([self.clap.embed_text([text]) for text in texts])
        if self.alone:
            rows: list[Any] = [t5.rows(slice(i, i + 1)).trimmed() for i in range(len(texts))]
            pairs = zip(vectors, rows, strict=True)
            parts = [self.generate(vector[None], row.tokens, row.mask) for vector, row in pairs]
            first = torch.cat([part * (text != "") for part, text in zip(parts, texts, strict=True)])
        else:  # T5's states of the padding, too, which GPT-2 masks but counts
            how = {"padding": True, "truncation": True, "max_length": self.t5.longest, "return_tensors": "pt"}
            tokens = reader(list(texts), **how).to(self.t5.model.device)
            first = self.generate(vectors, self.t5.model(**tokens).last_hidden_state, tokens.attention_mask)
        return Condition(None, first, first.new_ones(first.shape[:2]).long(), t5.tokens, t5.mask)

    def generate(self, vectors: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """CLAP's vectors (B, D), T5's tokens (B, L, E) and their mask to what GPT-2 appends (B, ``length``, G)."""
        projected = self.projection(
            hidden_states=vectors[:, None], hidden_states_1=tokens, attention_mask=mask.new_ones(len(mask), 1),
            attention_mask_1=mask,
        )  # fmt: skip
        x, attention = projected.hidden_states, projected.attention_mask
        for _ in range(self.length):
            last = self.gpt(inputs_embeds=x, attention_mask=attention).last_hidden_state[:, -1:]
            x = torch.cat([x, last], dim=1)
            attention = torch.cat([attention, attention.new_ones(len(attention), 1)], dim=1)
        return x[:, -self.length :]

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        self.t5.save(folder, dtype=dtype)
        save_component(self.projection, Path(folder) / "projection_model", dtype=dtype)
        self.gpt.config.max_new_tokens = self.length
        save_component(self.gpt, Path(folder) / "language_model", dtype=dtype)
