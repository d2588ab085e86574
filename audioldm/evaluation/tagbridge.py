"""A judge of sound against words that was trained on neither: caption to AudioSet's class names by MiniLM, times tags.

n clips, q captions, K = 521 classes.   No part of it conditions or trains a model here except as a teacher of the
small CLAP's towers one by one (YAMNet hears, MiniLM reads), so it does not grade its own pairing.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from audioldm.nets.minilm import minilm_embeddings

SHARPNESS = 50.0
"""of the softmax over classes; chosen with the template and the maximum over patches on real train and val clips"""
TEMPLATE = "the sound of {}"


class TagBridge:
    """Captions to weights over the tagger's classes; a clip's score is the weighted mean of its tags."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.phrases = [TEMPLATE.format(name.lower()) for name in class_names]
        found = minilm_embeddings(self.phrases)
        self.classes = torch.stack([found[phrase] for phrase in self.phrases])

    def table(self, captions: Sequence[str]) -> Tensor:
        """Weights (q, K) that sum to 1: softmax of the cosine between caption and class name."""
        found = minilm_embeddings(captions)
        words = torch.stack([found[caption] for caption in captions])
        return (SHARPNESS * words @ self.classes.T).softmax(dim=1)

    def scores(self, captions: Sequence[str], tags: Tensor) -> Tensor:
        """Every caption against every clip's largest tags (n, K): (q, n), each in [0, 1]."""
        return self.table(captions) @ tags.T


@lru_cache(maxsize=4)
def bridge_to(class_names: tuple[str, ...]) -> TagBridge:
    """The bridge to a tagger's classes, made once."""
    return TagBridge(class_names)
