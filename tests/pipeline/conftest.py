"""The tiny and the embedded model, each loaded once; no test changes them."""

import pytest

from audioldm.pipeline.audioldm import AudioLDM


@pytest.fixture(scope="session")
def pipe(tiny_model):
    return AudioLDM.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def embedded():
    return AudioLDM.from_pretrained()
