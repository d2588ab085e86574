"""New words of a text encoder: Textual Inversion, Gal et al. 2022 (arXiv:2208.01618) sec. 3.

What is learned are rows of the embedding table, one or a few for a placeholder such as <mine>; nothing else changes.
V vocabulary, n rows of a word, E width of the table.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken, normalizers
from torch import Tensor, nn
from torch.nn.utils import parametrize

from audioldm.errors import AudioLDMError


@dataclass(frozen=True)
class Words:
    """A placeholder and the rows (n, E) that it stands for."""

    word: str
    rows: Tensor
    base: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    kind: str = "textual_inversion"

    @property
    def parameters(self) -> int:
        return self.rows.numel()


class Appended(nn.Module):
    """The parametrization of an embedding table: the frozen rows, then the new ones, which can be trained."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows.clone())

    def forward(self, table: Tensor) -> Tensor:
        return torch.cat([table, self.rows.to(table.dtype)])


def check_word(word: str) -> None:
    """Raise AudioLDMError unless ``word`` is a placeholder: <letters-and-digits>."""
    if not re.fullmatch(r"<[a-z0-9_-]+>", word):
        raise AudioLDMError(f"word={word!r} is no placeholder.", "Use small letters in brackets: <mine>.")


def with_words(tokenizer: Any, word: str, count: int) -> Any:
    """A copy of the tokenizer that reads <mine> as ``count`` new tokens <mine-0> ..., also when it is saved."""
    check_word(word)
    names, new = [f"{word[:-1]}-{i}>" for i in range(count)], copy.deepcopy(tokenizer)
    if names[0] in new.get_vocab():
        raise AudioLDMError(f"The model knows the word {word} already.", "Choose another word.")
    raw = new.backend_tokenizer
    before = [raw.normalizer] if raw.normalizer else []
    raw.normalizer = normalizers.Sequence([normalizers.Replace(word, " ".join(names)), *before])
    new.add_tokens([AddedToken(name, normalized=True) for name in names])
    return new


def start_rows(clap: Any, like: str, count: int) -> Tensor:
    """The rows (count, E) to begin at: the mean of the words of ``like``, slightly apart where there are several."""
    table = clap.text_encoder.get_input_embeddings().weight.detach().float()
    ids = clap.tokenizer(like, add_special_tokens=False).input_ids
    if not ids:
        raise AudioLDMError(f"start={like!r} has no words.", "Give a word near the sound, such as sound.")
    apart = 0.1 * table.std() * torch.randn(count, table.shape[1], generator=torch.Generator().manual_seed(0))
    return table[ids].mean(0) + apart * (count > 1)


def attach_words(clap: Any, words: Words) -> list[nn.Parameter]:
    """Give ``clap`` the words so that their rows can learn; everything else of its text tower is frozen."""
    table = read_as_tokens(clap, words)
    clap.text_encoder.requires_grad_(False)
    added = Appended(words.rows)
    parametrize.register_parametrization(table, "weight", added.to(table.weight.device), unsafe=True)
    return [added.rows]


class Vocabulary(NamedTuple):
    """A text tower's tokenizer and table as they were, to be put back."""

    tokenizer: Any
    table: nn.Embedding


@torch.no_grad()
def merge_words(clap: Any, additions: Sequence[Words]) -> Vocabulary:
    """Write words into tokenizer and table of ``clap``; returns what was there, for ``unmerge_words``."""
    before = Vocabulary(clap.tokenizer, clap.text_encoder.get_input_embeddings())
    try:
        for words in additions:
            table = read_as_tokens(clap, words)
            rows = torch.cat([table.weight, words.rows.to(table.weight)])
            set_table(clap, nn.Embedding.from_pretrained(rows, freeze=True, padding_idx=table.padding_idx))
    except AudioLDMError:
        unmerge_words(clap, before)
        raise
    return before


def unmerge_words(clap: Any, before: Vocabulary) -> None:
    """The tokenizer and the table of before."""
    clap.tokenizer = before.tokenizer
    set_table(clap, before.table.to(clap.text_encoder.device))


def set_table(clap: Any, table: nn.Embedding) -> None:
    clap.text_encoder.set_input_embeddings(table)
    clap.text_encoder.config.vocab_size = len(table.weight)


def read_as_tokens(clap: Any, words: Words) -> nn.Embedding:
    """Let the tokenizer know the words; the table of ``clap``, which their rows can follow.   Raises AudioLDMError."""
    table = clap.text_encoder.get_input_embeddings()
    known, width = table.weight.shape
    if words.rows.dim() != 2 or words.rows.shape[1] != width:
        what = f"The word {words.word} is of width {words.rows.shape[-1]}, the model's words {width}."
        raise AudioLDMError(what, "Use the model that it was trained on.")
    if len(clap.tokenizer) != known:
        what = f"The tokenizer has {len(clap.tokenizer)} words, the text tower {known}."
        raise AudioLDMError(what, "New words need a model whose two agree.")
    clap.tokenizer = with_words(clap.tokenizer, words.word, len(words.rows))
    return table
