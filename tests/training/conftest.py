"""Real modules at toy widths, on synthetic sounds."""

import pytest
import torch

from audioldm.datasets.audio_text import collate
from audioldm.datasets.synthetic import Synthetic
from audioldm.spec import AudioSpec

SPEC = AudioSpec()


@pytest.fixture
def batch():
    torch.manual_seed(0)
    data = Synthetic(SPEC, 0.32, 3, seed=0)
    return collate([data[i] for i in range(3)])


@pytest.fixture
def spec():
    return SPEC
