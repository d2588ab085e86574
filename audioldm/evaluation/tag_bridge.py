"""Sound against words by two networks trained on neither pairing: caption to AudioSet's classes by MiniLM, times tags.

n clips, q captions, K = 521 classes.   No part of it conditions or trains a model here except as a teacher of the small
CLAP's towers one by one (YAMNet for sound, MiniLM for text), so it does not grade its own pairing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from audioldm.nets.minilm import minilm_embeddings

SHARPNESS = 50.0
"""of the softmax over classes; chosen with the template and the maximum over patches on real train and val clips"""


class TagBridge:
    """Captions to weights over the tagger's classes; a clip's score is the weighted mean of its tags."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.classes = sentence_vectors([f"the sound of {name.lower()}" for name in class_names])

    def table(self, captions: Sequence[str]) -> Tensor:
        """Weights (q, K) that sum to 1: softmax of the cosine between caption and class name."""
        return (SHARPNESS * sentence_vectors(captions) @ self.classes.T).softmax(dim=1)

    def scores(self, captions: Sequence[str], tags: Tensor) -> Tensor:
        """Every caption against every clip's largest tags (n, K): (q, n), each in [0, 1]."""
        return self.table(captions) @ tags.T


def sentence_vectors(texts: Sequence[str]) -> Tensor:
    """MiniLM's unit vectors (n, 384), in order."""
    vectors = minilm_embeddings(texts)
    return torch.stack([vectors[text] for text in texts])
