"""AudioLDM 2's language of audio: GPT-2 goes on from what CLAP and T5 say.   arXiv:2308.05734 sec. 3.

B texts, L tokens, D width of CLAP, E of T5, G of GPT-2.   diffusers' AudioLDM2ProjectionModel, transformers' GPT2Model.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AudioLDM2ProjectionModel
from torch import Tensor, nn
from transformers import GPT2Model

from audioldm.batch import Condition
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.t5 import T5Text

LENGTH = 8
"""vectors that stand for 10 s of sound: AudioMAE's 64 x 8 patches, averaged 8 x 8"""


class GeneratedText(nn.Module):
    """Texts to two sequences: ``LENGTH`` vectors that GPT-2 makes up (B, 8, G), and T5's tokens (B, L, E).

    ``alone``: every text by itself and the empty one as zeros, as the original trains and generates.   Otherwise as
    diffusers' pipeline does: texts are filled up to the longest before GPT-2 reads them, so that each moves the others,
    and GPT-2 goes on from the empty one too.
    """

    def __init__(
        self,
        clap: PretrainedClap,
        t5: T5Text,
        projection: AudioLDM2ProjectionModel,
        gpt: GPT2Model,
        *,
        length: int = LENGTH,
        alone: bool = True,
    ) -> None:
        super().__init__()
        self.clap, self.t5 = clap, t5
        self.projection, self.gpt = projection.eval(), gpt.eval()
        self.length, self.alone = length, alone

    @torch.no_grad()
    def tell(self, texts: Sequence[str]) -> Condition:
        """Both sequences with their masks."""
        words = self.t5.tell(texts)
        if words.tokens is None or words.mask is None:
            raise ValueError("T5 gave no tokens")
        vectors = torch.cat([self.clap.embed_text([text]) for text in texts])
        if self.alone:
            rows = [words.rows(slice(i, i + 1)).trimmed() for i in range(len(texts))]
            made = [
                self.go_on(vectors[i : i + 1], row.tokens, row.mask) * (texts[i] != "")
                for i, row in enumerate(rows)
            ]
            first = torch.cat(made)
        else:
            first = self.go_on(vectors, *self.filled(texts))
        return Condition(None, first, first.new_ones(first.shape[:2]).long(), words.tokens, words.mask)

    def filled(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """T5's states (B, L, E) with those of the filling, which GPT-2 passes over but counts, and the mask (B, L)."""
        t5 = self.t5
        read = t5.tokenizer(
            list(texts), padding=True, truncation=True, max_length=t5.longest, return_tensors="pt"
        ).to(t5.model.device)
        return t5.model(**read).last_hidden_state, read.attention_mask

    def go_on(self, vectors: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """CLAP's vectors (B, D), T5's tokens (B, L, E) and their mask to what GPT-2 appends (B, ``length``, G)."""
        read = self.projection(
            hidden_states=vectors[:, None],
            hidden_states_1=tokens,
            attention_mask=mask.new_ones(len(mask), 1),
            attention_mask_1=mask,
        )
        x, seen = read.hidden_states, read.attention_mask
        for _ in range(self.length):
            made = self.gpt(inputs_embeds=x, attention_mask=seen).last_hidden_state[:, -1:]
            x, seen = torch.cat([x, made], dim=1), torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
        return x[:, -self.length :]

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        """Write ``text_encoder_2``, ``tokenizer_2``, ``projection_model`` ``language_model``; CLAP writes itself."""
        from audioldm.nets.folder import save_component

        self.t5.save(folder, dtype=dtype)
        save_component(self.projection, Path(folder) / "projection_model", dtype=dtype)
        self.gpt.config.max_new_tokens = self.length
        save_component(self.gpt, Path(folder) / "language_model", dtype=dtype)
