"""Published weight files: where they are looked for, and the hash that they must have."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audioldm.errors import AudioLDMError


@dataclass(frozen=True)
class WeightFile:
    """A published file; ``sha256`` may be the beginning of the digest where only that is published.

    ``blob`` is git's own hash of the content, for a file that is published in a repository and nowhere digested.
    """

    name: str
    sha256: str
    url: str
    blob: str = ""

    @property
    def hash(self) -> str:
        """What the file must have, as it is told.

        >>> WeightFile("a.pth", "0123", "https://x").hash
        'sha256 0123'
        """
        return f"git blob {self.blob}" if self.blob else f"sha256 {self.sha256}"

    def find(self, path: str | Path | None = None) -> Path:
        """``path``, or the file in the weights folder or torch.hub's, with the right hash; AudioLDMError without."""
        place = Path(path) if path else weights_folder() / self.name
        fetched = Path(torch.hub.get_dir()) / "checkpoints" / self.name
        if path is None and not place.is_file() and fetched.is_file():
            place = fetched
        if place.is_dir():
            place = place / self.name
        if not place.is_file():
            raise AudioLDMError(
                f"{self.name} ({self.hash}) is not at {place}.",
                f"Get it from {self.url} and put it there, or name it: --embedder NAME=FILE.",
            )
        self.check(place)
        return place

    def check(self, place: Path) -> None:
        """Raise AudioLDMError where the content of ``place`` is not the published one."""
        kind, wanted = ("git blob", self.blob) if self.blob else ("sha256", self.sha256)
        found = blob(place) if self.blob else digest(place)
        if not found.startswith(wanted):
            raise AudioLDMError(
                f"{place} has {kind} {found[:16]}..., not {wanted[:16]}....",
                f"Get {self.name} again from {self.url}.",
            )


def weights_folder() -> Path:
    """$AUDIOLDM_WEIGHTS, or ``audioldm/weights`` in the user's cache."""
    own = os.environ.get("AUDIOLDM_WEIGHTS")
    return Path(own) if own else cache_folder() / "weights"


def cache_folder() -> Path:
    """``audioldm`` below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm"


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blob(path: Path) -> str:
    """git's hash of a file: sha1 over "blob", its size, a zero byte and its content."""
    found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` file, with or without a ``model`` around them; no pickled code is run.

    PANNs' files also hold their sampler's numpy state, whose constructors are allowed by name and then dropped.
    """
    import numpy as np

    core = np._core.multiarray
    allowed = [
        core._reconstruct,
        core.scalar,
        np.ndarray,
        np.dtype,
        np.dtypes.Int64DType,
        np.dtypes.UInt32DType,
    ]
    with torch.serialization.safe_globals(
        [*allowed, np.dtypes.Float64DType, (core._reconstruct, "numpy.core.multiarray._reconstruct")]
    ):
        content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("model", content)
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def load_strict(
    net: torch.nn.Module, state: dict[str, Tensor], path: Path, *, unused: tuple[str, ...] = ()
) -> None:
    """Every parameter from the file, and every tensor of the file used but those that begin with ``unused``."""
    kept = {key: value for key, value in state.items() if not key.startswith(unused or ("\0",))}
    wanted = net.state_dict()
    lacking, extra = sorted(wanted.keys() - kept.keys()), sorted(kept.keys() - wanted.keys())
    shaped = [key for key in wanted.keys() & kept.keys() if wanted[key].shape != kept[key].shape]
    if lacking or extra or shaped:
        raise AudioLDMError(
            f"{path} is another network: {len(lacking)} tensors lack ({lacking[:2]}), {len(extra)} are unknown "
            f"({extra[:2]}), {len(shaped)} have other shapes ({shaped[:2]}).",
            "Use the published file.",
        )
    net.load_state_dict(kept)
