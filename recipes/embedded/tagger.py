"""YAMNet on a GPU: tags of a batch of sounds of one length.   B clips, N samples, P patches."""

from pathlib import Path

import torch
from torch import Tensor

from audioldm.evaluation.embedders import yamnet


class Tagger:
    """Waves (B, N) at 16 kHz to embeddings (B, P, 1024) and logits (B, P, 521)."""

    def __init__(self, archive: Path, device: torch.device | str) -> None:
        self.net = yamnet.Net(archive).to(device)

    def __call__(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits."""
        patches = yamnet.patches(wave)
        embeddings, logits = self.net(patches.flatten(0, 1))
        return embeddings.unflatten(0, patches.shape[:2]), logits.unflatten(0, patches.shape[:2])
