"""A T5 encoder's sequences, for U-Nets that attend to words.   L tokens, E width.   transformers' own classes."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel
from transformers.utils import cached_file

from audioldm.errors import AudioLDMError

LONGEST = 128
"""tokens of a caption, as AudioLDM 2's T5 is used"""


class T5Text:
    """Texts to token sequences (L, E); a folder or a name on the hub (`google/flan-t5-large`)."""

    def __init__(self, name: str | Path, device: str = "cpu") -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
            self.model = T5EncoderModel.from_pretrained(name).eval().to(device)
            self.weights = Path(cached_file(name, "model.safetensors"))
        except (OSError, ValueError) as error:
            raise AudioLDMError(
                f"{name} is no T5 that can be loaded: {error}".splitlines()[0],
                "Name a folder with model.safetensors.",
            ) from error

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """The encoder's last states (L, E) for one text, on the CPU; alone, so that padding changes nothing."""
        tokens = self.tokenizer([text], truncation=True, max_length=LONGEST, return_tensors="pt")
        return self.model(**tokens.to(self.model.device)).last_hidden_state[0].cpu()
