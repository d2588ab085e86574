"""A T5 encoder's sequences, for U-Nets that attend to words; transformers' classes.   B texts, L tokens, E width."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import cached_file

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError

LONGEST = 128
"""tokens of a caption, as AudioLDM 2's T5 is used"""


class T5Text(nn.Module):
    """Texts to token sequences; ``longest`` is where a text is cut, in tokens."""

    def __init__(
        self, model: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, *, longest: int = LONGEST
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.longest = model.eval(), tokenizer, longest
        self.dim = model.config.d_model

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "T5Text":
        """A folder, or a name on the hub (`google/flan-t5-large`).   AudioLDMError where there is none."""
        try:
            return cls(T5EncoderModel.from_pretrained(name), AutoTokenizer.from_pretrained(name))
        except (OSError, ValueError) as error:
            raise AudioLDMError(
                f"{name} is no T5 that can be loaded: {error}".splitlines()[0],
                "Name a folder with model.safetensors.",
            ) from error

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """The encoder's last states (L, E) for one text; alone, so that padding changes nothing."""
        tokens = self.tokenizer([text], truncation=True, max_length=self.longest, return_tensors="pt")
        return self.model(**tokens.to(self.model.device)).last_hidden_state[0]

    def tell(self, texts: Sequence[str]) -> Condition:
        """Tokens (B, L, E) and their mask, filled up with zeros to the longest text."""
        parts = [self.embed(text) for text in texts]
        masks = [part.new_ones(len(part), dtype=torch.long) for part in parts]
        return Condition(
            tokens=pad_sequence(parts, batch_first=True), mask=pad_sequence(masks, batch_first=True)
        )

    def save(self, folder: Path | str, *, dtype: torch.dtype | None = None) -> None:
        """Write ``text_encoder_2`` and ``tokenizer_2``, as diffusers names them, below ``folder``."""
        from audioldm.nets.folder import save_component

        save_component(self.model, Path(folder) / "text_encoder_2", dtype=dtype)
        self.tokenizer.model_max_length = self.longest
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer_2")


def weights_of(name: str | Path) -> Path:
    """The weight file that ``T5Text.from_pretrained`` reads."""
    return Path(cached_file(name, "model.safetensors"))
