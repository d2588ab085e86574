"""Networks that turn a sound into numbers, and files of their weights.   N samples, P patches, D width, K classes."""

import hashlib
import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.errors import AudioLDMError
from audioldm.paths import cache_folder, sha256


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


def find_weights(url: str, digest: str, path: str | Path | None = None) -> Path:
    """The published file of ``url``: ``path`` or in it, else in $AUDIOLDM_WEIGHTS, ``weights`` of our cache, torch.hub.

    ``digest`` begins its sha256, or is "git blob" and git's hash where no other is published.   Raises AudioLDMError
    for a file that is not there, or has another hash.
    """
    name = url.rpartition("/")[2]
    weights = Path(os.environ.get("AUDIOLDM_WEIGHTS") or cache_folder() / "weights")
    places = [Path(path)] if path else [weights / name, Path(torch.hub.get_dir(), "checkpoints", name)]
    place = next(filter(Path.is_file, places), places[0])
    if place.is_dir():
        place = place / name
    *blob, expected = digest.rsplit(" ", 1)
    [kind] = blob or ["sha256"]
    if not place.is_file():
        hint = f"Get it from {url} and put it there, or name it: --embedder NAME=FILE."
        raise AudioLDMError(f"{name} ({kind} {expected}) is not at {place}.", hint)
    actual = sha256(place)
    if blob:
        start = b"blob %d\0" % place.stat().st_size
        with place.open("rb") as file:
            hashed = hashlib.file_digest(file, lambda: hashlib.sha1(start, usedforsecurity=False))
        actual = hashed.hexdigest()
    if not actual.startswith(expected):
        what = f"{place} has {kind} {actual[:16]}..., not {expected[:16]}...."
        raise AudioLDMError(what, f"Get {name} again from {url}.")
    return place


def package_folder(name: str) -> Path:
    """The folder of an installed package, which is not imported.   Raises AudioLDMError where it is not installed."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise AudioLDMError(f"The package {name} is not installed.", 'Run: pip install "audioldm[eval]"')
    return Path(next(iter(spec.submodule_search_locations)))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` file, with or without a ``model`` around them; no pickled code is run.

    PANNs' files also hold their sampler's numpy state, whose constructors are allowed by name and then dropped.
    """
    core: Any = getattr(np, "_core").multiarray  # noqa: B009 (numpy declares no such module)
    types = [np.ndarray, np.dtype, np.dtypes.Int64DType, np.dtypes.UInt32DType, np.dtypes.Float64DType]
    old_name = (core._reconstruct, "numpy.core.multiarray._reconstruct")
    with torch.serialization.safe_globals([core._reconstruct, core.scalar, *types, old_name]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    return {key: v for key, v in content.get("model", content).items() if isinstance(v, Tensor)}


class Network:
    """An embedder that is a function of a wave and of one published file's tensors, by the names that they have there.

    ``forward`` takes a wave (N,) at ``rate`` Hz to rows (P, D) and, of a tagger, logits (P, K); raises AudioLDMError.
    """

    name: str
    rate: int
    dim: int
    front: str
    by_patch = False
    url: str
    digest: str

    def __init__(self, path: str | Path | None = None) -> None:
        place = find_weights(self.url, self.digest, path)
        self.sha256, self.tensors = sha256(place), read_state(place)

    def conv(self, x: Tensor, name: str) -> Tensor:
        return nnf.conv2d(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"), padding="same")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return nnf.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def norm(self, x: Tensor, name: str, eps: float = 1e-3) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (self.tensors[f"{name}.{part}"] for part in parts)
        return nnf.batch_norm(x, mean, variance, weight, bias, eps=eps)

    def forward(self, wave: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError

    @torch.no_grad()
    def embed(self, wave: Tensor) -> Embeddings:
        """A wave (N,) at ``rate`` Hz."""
        return Embeddings(*self.forward(checked(wave)))


EMBEDDERS = {  # name -> module and class; a module is imported when it is asked for
    "yamnet": "yamnet.YamNet", "vggish": "vggish.VGGish", "panns-cnn14-16k": "panns.Panns",
    "panns-cnn14-32k": "panns.Panns32", "passt": "passt.Passt", "openl3": "openl3.OpenL3", "clap": "clap.Clap",
}  # fmt: skip


def load_embedder(name: str, path: str | Path | None = None) -> Embedder:
    """The embedder called ``name``; AudioLDMError says which file of weights lacks, its hash, where to put it."""
    if name not in EMBEDDERS:
        raise AudioLDMError(f"embedder={name!r} is unknown.", f"Known: {', '.join(EMBEDDERS)}.")
    module, kind = EMBEDDERS[name].split(".")
    return cast(Embedder, getattr(import_module(f"{__name__}.{module}"), kind)(path))
