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
    return choose_rows(drop, null, condition)


def choose_rows(pick: Tensor, chosen: Condition, other: Condition) -> Condition:
    """Row i of ``chosen`` (or its only row) where ``pick`` (B,) is true, else of ``other``."""

    def choose(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        if a is None or b is None:
            return b
        return torch.where(pick.view(-1, *[1] * (b.dim() - 1)), a.to(b), b)

    return Condition(*map(choose, chosen.parts(), other.parts()))


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
