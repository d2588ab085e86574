"""Frozen networks that turn a sound into numbers, by name.   N samples, P patches, D width, K classes."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from audioldm.errors import AudioLDMError


class Embeddings(NamedTuple):
    """One clip: embeddings of its patches (P, D), and class logits (P, K) where the network is a tagger."""

    rows: Tensor
    logits: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """A tagger's class probabilities (P, K); the classes do not exclude one another."""
        assert self.logits is not None, "this embedder is no tagger"
        return self.logits.sigmoid()


class Embedder(Protocol):
    """``front`` names the front end and changes whenever the same wave would give other numbers.

    ``by_patch`` says whether every patch is a row of the Fréchet distance (VGGish) or their mean is (most others).
    Some embedders have more: ``class_names`` (a tagger), ``embed_text`` (text in the same space).
    """

    name: str
    rate: int
    dim: int
    sha256: str
    front: str
    by_patch: bool

    def embed(self, wave: Tensor) -> Embeddings:
        """A mono wave (N,) at ``rate`` Hz."""
        ...


def checked(wave: Tensor) -> Tensor:
    """The wave (N,) as float32 on the CPU.   ValueError for another shape, AudioLDMError for samples not finite."""
    if wave.ndim != 1 or not len(wave):
        raise ValueError(f"wave has shape {tuple(wave.shape)}; give (N,) with N of 1 or more.")
    if bad := int((~wave.isfinite()).sum()):
        what = f"{bad} of {len(wave)} samples are not finite."
        raise AudioLDMError(what, "Check the model that made them.", code=1)
    return wave.detach().cpu().to(torch.float32)


EMBEDDERS = {
    "yamnet": "yamnet.YamNet",
    "vggish": "vggish.VGGish",
    "panns-cnn14-16k": "panns.Panns",
    "panns-cnn14-32k": "panns.Panns32",
    "passt": "passt.Passt",
    "openl3": "openl3.OpenL3",
    "clap": "clap.Clap",
}
"""name -> module and class; a module is imported when it is asked for"""


def load_embedder(name: str, path: str | Path | None = None) -> Embedder:
    """The embedder called ``name``, its weights from ``path`` or where they are looked for.

    AudioLDMError says which file lacks, its hash, and where to put it.
    """
    if name not in EMBEDDERS:
        raise AudioLDMError(f"embedder={name!r} is unknown.", f"Known: {', '.join(EMBEDDERS)}.")
    module, kind = EMBEDDERS[name].split(".")
    return cast(Embedder, getattr(import_module(f"{__name__}.{module}"), kind)(path))
