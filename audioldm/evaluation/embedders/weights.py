"""Published weight files: where they are looked for, the hash that they must have, and the nets that they are of."""

import hashlib
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embeddings, checked

LARGEST = 8 * 2**30
"""bytes of a published file"""


@dataclass(frozen=True)
class WeightFile:
    """A published file; ``digest`` begins its sha256, or is "git blob" and git's hash where no other is published."""

    name: str
    digest: str
    url: str

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
        *blob, expected = self.digest.rsplit(" ", 1)
        kind = "git blob" if blob else "sha256"
        if not place.is_file():
            raise AudioLDMError(
                f"{self.name} ({kind} {expected}) is not at {place}.",
                f"Get it from {self.url} and put it there, or name it: --embedder NAME=FILE.",
            )
        actual = git_blob(place) if blob else digest(place)
        if not actual.startswith(expected):
            raise AudioLDMError(
                f"{place} has {kind} {actual[:16]}..., not {expected[:16]}....",
                f"Get {self.name} again from {self.url}.",
            )
        return place


def cache_folder() -> Path:
    """``audioldm`` below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm"


def package_folder(name: str, install: str = 'pip install "audioldm[eval]"') -> Path:
    """The folder of an installed package, which is not imported.   Raises AudioLDMError where it is not installed."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise AudioLDMError(f"The package {name} is not installed.", f"Run: {install}")
    return Path(next(iter(spec.submodule_search_locations)))


def digest(*paths: Path, kind: str = "sha256", begin: bytes = b"") -> str:
    """Hash of ``begin`` and the files after it.   Raises AudioLDMError for one longer than published weights are."""
    total = hashlib.new(kind, begin, usedforsecurity=False)
    for path in paths:
        if (size := path.stat().st_size) > LARGEST:
            raise AudioLDMError(f"{path} has {size} bytes.", "Get the published file again.")
        with path.open("rb") as file:
            while block := file.read(2**20):
                total.update(block)
    return total.hexdigest()


def git_blob(path: Path) -> str:
    """git's hash of a file: sha1 over "blob", its size, a zero byte and its content."""
    return digest(path, kind="sha1", begin=f"blob {path.stat().st_size}\0".encode())


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


class Network(nn.Module):
    """An embedder with the layers of one published file, under its names.

    ``forward`` takes a wave (N,) at ``rate`` Hz to rows (P, D) and, of a tagger, logits (P, K).
    """

    name: str
    rate: int
    dim: int
    front: str
    by_patch = False
    file: WeightFile
    sha256 = ""
    unused: ClassVar[tuple[str, ...]] = ()
    """beginnings of tensors' names that the file has and the net does not need"""

    def load(self, path: str | Path | None = None) -> Self:
        """With the file's weights; ``path`` is the file or its folder.   Raises AudioLDMError."""
        place = self.file.find(path)
        self.sha256 = digest(place)
        state = {key: value for key, value in self.read(place).items() if not key.startswith(self.unused)}
        self.load_state_dict(state, assign=True)
        return self.eval()

    def read(self, path: Path) -> dict[str, Tensor]:
        """The file's tensors under the net's names."""
        return read_state(path)

    @torch.no_grad()
    def embed(self, wave: Tensor) -> Embeddings:
        """A wave (N,) at ``rate`` Hz."""
        return Embeddings(*self(checked(wave)))
