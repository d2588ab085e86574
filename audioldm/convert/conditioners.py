"""What a latent diffusion checkpoint tells its U-Net with: CLAP, T5, AudioLDM 2's generator, or something unknown."""

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from audioldm.convert import clap, generator, t5
from audioldm.convert.rules import State, below
from audioldm.errors import AudioLDMError

FRONT_END = re.compile(r"mel_transform\..+|unconditional_token|empty_(text_embed|hidden_state_cfg)")
"""Buffers of the wrappers: CLAP's mel filters, and embeddings of the empty prompt, which are computed anew."""
AUDIOMAE = "audiomae."
"""What AudioLDM 2's generator learned to imitate; it is not needed to generate."""


@dataclass
class Conditioners:
    """Text encoders in today's names; what the file does not hold is None or empty."""

    clap: State = field(default_factory=dict)
    clap_config: dict[str, Any] | None = None
    words: State = field(default_factory=dict)
    words_config: dict[str, Any] | None = None
    """T5's encoder"""
    projection: State = field(default_factory=dict)
    projection_config: dict[str, Any] | None = None
    language: State = field(default_factory=dict)
    language_config: dict[str, Any] | None = None
    """AudioLDM 2's generator: the layers before GPT-2, and GPT-2"""
    unread: list[str] = field(default_factory=list)
    """the first key of every conditioner that is none of these"""


def add_conditioners(found: Conditioners, state: State, score: State) -> None:
    """Every conditioner, and CLAP from where it is kept for scoring if it conditions nothing."""
    for prefix in prefixes(state):
        add_conditioner(found, below(state, prefix), prefix)
    spare = below(score, "model.")
    if strange := sorted(k for k in score if not k.startswith("model.") and not FRONT_END.fullmatch(k)):
        raise unexplained("clap." + strange[0])
    if not found.clap and clap.is_clap(spare):
        add_clap(found, spare, "clap.model.")


def prefixes(state: State) -> list[str]:
    """The prefix of every conditioner: one without a number in AudioLDM, a list in its successors."""
    matches = (re.match(r"cond_stage_model(?:\.|s\.\d+\.)", key) for key in state)
    return sorted({match[0] for match in matches if match})


def add_conditioner(found: Conditioners, state: State, prefix: str) -> None:
    """Find out what one conditioner is and translate it."""
    part = {k: v for k, v in state.items() if not FRONT_END.fullmatch(k)}
    inner = below(part, "model.")
    if clap.is_clap(inner) or t5.is_t5(inner):
        if strange := sorted(k for k in part if not k.startswith("model.")):
            raise unexplained(prefix + strange[0])
        (add_clap if clap.is_clap(inner) else add_words)(found, inner, prefix + "model.")
    elif generator.is_generator(part):
        add_generator(found, part, prefix)
    elif part and not all(key.startswith(AUDIOMAE) for key in part):
        found.unread.append(prefix + min(part))


def add_clap(found: Conditioners, state: State, prefix: str) -> None:
    """Translate a CLAP."""
    found.clap, found.clap_config = clap.convert(state, prefix=prefix), clap.clap_config(state)


def add_words(found: Conditioners, state: State, prefix: str) -> None:
    """Translate a T5; AudioLDM 2 holds it twice, for the U-Net and for GPT-2, frozen and alike."""
    words = t5.convert(state, prefix=prefix)
    if found.words and not (
        words.keys() == found.words.keys() and all(torch.equal(v, found.words[k]) for k, v in words.items())
    ):
        raise AudioLDMError(
            f"The checkpoint has two T5 encoders that differ, the second below {prefix!r}.",
            "Both are frozen in AudioLDM 2: this is not one of its files.",
        )
    found.words, found.words_config = words, t5.t5_config(state)


def add_generator(found: Conditioners, state: State, prefix: str) -> None:
    """Translate AudioLDM 2's generator and the conditioners inside it."""
    if strange := sorted(k for k in state if not generator.OWN.fullmatch(k)):
        raise unexplained(prefix + strange[0])
    found.projection = generator.projection(state, prefix=prefix)
    found.projection_config = generator.projection_config(state)
    found.language = generator.gpt(state, prefix=prefix)
    found.language_config = generator.gpt_config(below(state, "model."))
    nested = sorted({m[0] for m in (re.match(r"cond_stage_models\.\d+\.", k) for k in state) if m})
    for inner in nested:
        add_conditioner(found, below(state, inner), prefix + inner)


def unexplained(key: str) -> AudioLDMError:
    """The error for a key that is none of the known ones."""
    return AudioLDMError(
        f"The checkpoint has a key that no rule explains: {key!r}.",
        "This is not one of the known checkpoints; please report the key.",
    )
