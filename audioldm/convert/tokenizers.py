"""Tokenizers, which checkpoints lack: from a named folder, from beside the file, or from the hub."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from audioldm.convert.folder import load_any_tokenizer, load_t5_tokenizer
from audioldm.errors import AudioLDMError

ROBERTA, T5 = "FacebookAI/roberta-base", "google/flan-t5-large"
INSIDE = "tokenizer_2"
"""Folder of T5's tokenizer, beside a checkpoint or inside the folder of RoBERTa's; as diffusers names it."""


def roberta(path: Path, named: Path | None, vocabulary: int) -> PreTrainedTokenizerBase:
    """RoBERTa's, for the CLAP of ``path``: the ``named`` folder, ``tokenizer`` beside the file, or the hub's."""
    beside = path.parent / "tokenizer"
    folder = check_folder(named) or (beside if beside.is_dir() else None)
    if folder is None:
        from audioldm.convert.hub import fetch

        folder = fetch(ROBERTA, ("vocab.json", "merges.txt"), instead=beside).folder
    return check_vocabulary(load_any_tokenizer(folder), vocabulary, path, ROBERTA)


def t5(path: Path, named: Path | None, vocabulary: int, *, only: bool) -> PreTrainedTokenizerBase:
    """T5's: ``tokenizer_2`` in the ``named`` folder (itself where T5 is the ``only`` one) or beside, or the hub's."""
    beside = path.parent / INSIDE
    places = [beside]
    if (given := check_folder(named)) is not None:
        places = [given / INSIDE, *([given] if only else []), beside]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        from audioldm.convert.hub import fetch

        folder = fetch(T5, ("tokenizer.json", "tokenizer_config.json"), instead=beside).folder
    return check_vocabulary(load_t5_tokenizer(folder), vocabulary, path, T5)


def check_folder(named: Path | None) -> Path | None:
    """The folder that the user named; AudioLDMError if it is none."""
    if named is not None and not Path(named).is_dir():
        raise AudioLDMError(
            f"tokenizer={named} is no folder.", "Name one with vocab.json, or T5's tokenizer.json."
        )
    return None if named is None else Path(named)


def check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, vocabulary: int, path: Path, name: str
) -> PreTrainedTokenizerBase:
    """A tokenizer of another vocabulary would give other words."""
    if len(tokenizer) > vocabulary:
        raise AudioLDMError(
            f"The tokenizer has {len(tokenizer)} entries, the text tower of {path} {vocabulary}.",
            f"Use the tokenizer of {name}.",
        )
    return tokenizer
