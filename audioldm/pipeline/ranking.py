"""Best of several: which sound is nearest to what was asked for.   B batch, N samples, D width of CLAP's space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.pipeline.mixing import clap_of

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM


@torch.no_grad()
def clap_scores(pipe: AudioLDM, waves: Tensor, asked: Tensor) -> Tensor:
    """Cosines (B,) of CLAP's embeddings of ``waves`` (B, N) and ``asked`` (B, D).   AudioLDM (arXiv:2301.12503)."""
    return nnf.cosine_similarity(clap_of(pipe, waves), asked.to(pipe.device).float(), dim=-1)
