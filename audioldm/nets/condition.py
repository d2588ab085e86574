"""From prompts or sounds to the Condition that a U-Net is given, and its absence."""

import torch
from torch import Tensor

from audioldm.batch import Condition


def drop_condition(
    condition: Condition, null: Condition, p: float, generator: torch.Generator | None
) -> Condition:
    """Replace each row by ``null`` (one row) with probability ``p``, once per sample.   CFG (arXiv:2207.12598) alg. 1.

    Only a training step calls this: nothing is ever dropped while generating or validating.
    """
    rows = next(part for part in (condition.film, condition.tokens) if part is not None)
    drop = uniform(len(rows), generator).to(rows.device) < p

    def choose(kept: Tensor | None, empty: Tensor | None) -> Tensor | None:
        if kept is None or empty is None:
            return kept
        return torch.where(drop.view(-1, *[1] * (kept.dim() - 1)), empty.to(kept), kept)

    return Condition(*map(choose, condition.parts(), null.parts()))


def mix_modalities(
    text: Tensor, audio: Tensor, text_prob: float, generator: torch.Generator | None
) -> Tensor:
    """Per sample the text embedding with probability ``text_prob``, else the audio one; all (B, D).

    0 is the paper's way (train on sound, prompt with text: arXiv:2301.12503 sec. 3.1), 1 is text only.
    """
    pick = uniform(len(text), generator).to(text.device) < text_prob
    return torch.where(pick[:, None], text, audio)


def uniform(count: int, generator: torch.Generator | None) -> Tensor:
    """(count,) numbers in [0, 1) on the generator's own device."""
    return torch.rand(count, generator=generator, device=None if generator is None else generator.device)
