"""Published weight files: where they are looked for, the hash that they must have, and how they are read."""

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embeddings, checked

LARGEST = 8 * 2**30
"""bytes of a published file"""


@dataclass(frozen=True)
class WeightFile:
    """A published file; ``sha256`` may be the beginning of the digest where only that is published.

    ``blob`` is git's own hash of the content, for a file that is published in a repository and nowhere digested.
    """

    name: str
    sha256: str
    url: str
    blob: str = ""

    def find(self, path: str | Path | None = None) -> Path:
        """``path``, or the file in $AUDIOLDM_WEIGHTS, ``weights`` in our cache, or torch.hub's, with the right hash.

        Raises AudioLDMError without.
        """
        weights = Path(os.environ.get("AUDIOLDM_WEIGHTS") or cache_folder() / "weights")
        place = Path(path) if path else weights / self.name
        fetched = Path(torch.hub.get_dir()) / "checkpoints" / self.name
        if path is None and not place.is_file() and fetched.is_file():
            place = fetched
        if place.is_dir():
            place = place / self.name
        kind, expected = ("git blob", self.blob) if self.blob else ("sha256", self.sha256)
        if not place.is_file():
            raise AudioLDMError(
                f"{self.name} ({kind} {expected}) is not at {place}.",
                f"Get it from {self.url} and put it there, or name it: --embedder NAME=FILE.",
            )
        actual = git_blob(place) if self.blob else digest(place)
        if not actual.startswith(expected):
            raise AudioLDMError(
                f"{place} has {kind} {actual[:16]}..., not {expected[:16]}....",
                f"Get {self.name} again from {self.url}.",
            )
        return place


def cache_folder() -> Path:
    """``audioldm`` below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm"


def package_folder(name: str) -> Path | None:
    """The folder of an installed package, which is not imported; None where it is not installed."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def digest(*paths: Path) -> str:
    """sha256 of a file, or of several one after the other."""
    total = hashlib.sha256()
    for path in paths:
        update(total, path)
    return total.hexdigest()


def update(total: "hashlib._Hash", path: Path) -> None:
    """Go on by a file, in blocks.   Raises AudioLDMError for one that is longer than published weights are."""
    if path.stat().st_size > LARGEST:
        raise AudioLDMError(f"{path} has {path.stat().st_size} bytes.", "Get the published file again.")
    with open(path, "rb") as file:
        while block := file.read(2**20):
            total.update(block)


def git_blob(path: Path) -> str:
    """git's hash of a file: sha1 over "blob", its size, a zero byte and its content."""
    header = f"blob {path.stat().st_size}\0".encode()
    total = hashlib.sha1(header, usedforsecurity=False)
    update(total, path)
    return total.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` file, with or without a ``model`` around them; no pickled code is run.

    PANNs' files also hold their sampler's numpy state, whose constructors are allowed by name and then dropped.
    """
    import numpy as np

    core: Any = getattr(np, "_core").multiarray  # noqa: B009 (numpy declares no such module)
    types = [np.ndarray, np.dtype, np.dtypes.Int64DType, np.dtypes.UInt32DType, np.dtypes.Float64DType]
    old_name = (core._reconstruct, "numpy.core.multiarray._reconstruct")
    with torch.serialization.safe_globals([core._reconstruct, core.scalar, *types, old_name]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("model", content)
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def load_strict(
    net: torch.nn.Module, state: dict[str, Tensor], path: Path, *, unused: tuple[str, ...] = ()
) -> None:
    """Every parameter from the file, and every tensor of the file used but those that begin with ``unused``."""
    state = {key: value for key, value in state.items() if not key.startswith(unused or ("\0",))}
    expected = net.state_dict()
    lacking, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shaped = [key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape]
    if lacking or extra or shaped:
        raise AudioLDMError(
            f"{path} is another network: {len(lacking)} tensors lack ({lacking[:2]}), {len(extra)} are unknown "
            f"({extra[:2]}), {len(shaped)} have other shapes ({shaped[:2]}).",
            "Use the published file.",
        )
    net.load_state_dict(state)


class Network:
    """An embedder that is a torch net with the weights of one published file; ``path`` is the file or its folder.

    A subclass has ``forward``, from a wave (N,) to rows (P, D) and, of a tagger, logits (P, K).
    """

    by_patch = False
    unused: tuple[str, ...] = ()
    """beginnings of tensors' names that the file has and the net does not need"""

    def __init__(self, net: nn.Module, file: WeightFile, path: str | Path | None) -> None:
        place = file.find(path)
        self.net, self.sha256 = net.eval(), digest(place)
        load_strict(self.net, self.read(place), place, unused=self.unused)

    def read(self, path: Path) -> dict[str, Tensor]:
        """The file's tensors under the net's names."""
        return read_state(path)

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        """Rows, and logits where there are any."""
        raise NotImplementedError

    @torch.no_grad()
    def embed(self, wave: Tensor) -> Embeddings:
        """A wave (N,) at ``rate`` Hz."""
        return Embeddings(*self.forward(checked(wave)))
