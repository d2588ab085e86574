"""What the U-Net is told beyond one prompt: a sound, a sound and words, or a place between two prompts.

B batch, D width of CLAP's space, where text and sound are unit vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError
from audioldm.signal.level import normalise_peak

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """The unit vectors (B, D) at ``share`` of the great circle from ``start`` to ``end``.   Shoemake 1985 sec. 3.3.

    Along it every prompt is as strong as at its ends; on the chord it would be weaker in the middle.

    >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    tensor([[0.7071, 0.7071]])
    """
    start, end = nnf.normalize(start, dim=-1), nnf.normalize(end, dim=-1)
    aside = end - (start * end).sum(-1, keepdim=True) * start
    length = aside.norm(dim=-1, keepdim=True)
    angle = torch.atan2(length, (start * end).sum(-1, keepdim=True))
    return (share * angle).cos() * start + (share * angle).sin() * aside / length.clamp(min=1e-12)


@torch.no_grad()
def clap_of(pipe: AudioLDM, waves: Tensor) -> Tensor:
    """CLAP's embeddings (B, D) of ``waves`` (B, N), each brought to the level that it was trained at."""
    return pipe.clap.embed_audio(normalise_peak(waves.float().to(pipe.device))[:, None], pipe.spec.rate)


def check_can_hear(pipe: AudioLDM, option: str) -> None:
    """Raise AudioLDMError unless the model's CLAP has an audio tower."""
    if getattr(pipe.clap, "audio_encoder", None) is None:
        raise AudioLDMError(
            f"{option} needs a CLAP that hears, and {pipe.name} has its text tower only.",
            "Use the original .ckpt, which has both towers, or a folder exported from it.",
        )


def between(pipe: AudioLDM, told: Condition, other: Tensor, share: float) -> Condition:
    """``told`` with its vector moved by ``share`` of the way to ``other`` (B, D).   0 is ``told`` itself."""
    if told.film is None or told.tokens is not None:
        raise AudioLDMError(
            f"{pipe.name} reads words one by one, which cannot be mixed.",
            "Use a model that is told a CLAP vector.",
        )
    return told if share == 0 else replace(told, film=slerp(told.film, other.to(told.film), share))


def together(pipe: AudioLDM, prompts: Sequence[str | Condition]) -> Condition:
    """Prompts and ready conditions (of one row) together, one row each."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) == len(prompts):
        return pipe.encode_text(texts)
    rows = [pipe.encode_text([prompt]) if isinstance(prompt, str) else prompt for prompt in prompts]
    first = next((part for part in rows[0].parts() if part is not None), None)
    return reduce(Condition.joined, [row if first is None else row.to(first.device) for row in rows])
