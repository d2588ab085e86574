"""What the evaluator asks of an embedder.   N samples, P patches, D width, K classes."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Embeddings(NamedTuple):
    """One clip: embeddings of its patches (P, D), and class logits (P, K) where the network is a tagger."""

    rows: Tensor
    logits: Tensor | None = None


class Embedder(Protocol):
    """A frozen network.   ``front`` names its front end and changes whenever the same wave would give other numbers.

    ``by_patch`` tells whether every patch is a row of the Fréchet distance (VGGish) or their mean is (the others).
    """

    @property
    def name(self) -> str: ...
    @property
    def rate(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def front(self) -> str: ...
    @property
    def by_patch(self) -> bool: ...

    def listen(self, wave: Tensor) -> Embeddings:
        """A mono wave (N,) at ``rate`` Hz."""
        ...


class Texts(Protocol):
    """An embedder that reads, too: its rows and these vectors share a space."""

    def read(self, captions: list[str]) -> Tensor:
        """Unit vectors (q, D)."""
        ...
