"""Adapters on a whole pipeline: which files, how strongly, and the way back to the model itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from audioldm.adapters import inject
from audioldm.adapters.adapter import Adapter, AdapterWarning
from audioldm.adapters.files import read
from audioldm.adapters.words import Vocabulary, Words, merge_words, unmerge_words
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap
from audioldm.nets.folder import sha256

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

Named = str | Path | tuple[str | Path, float]
"""FILE[:WEIGHT], or a file and its weight"""


@dataclass(frozen=True)
class Applied:
    """One adapter that a pipeline runs with."""

    file: str
    sha256: str
    kind: str
    rank: int
    weight: float
    word: str | None = None


@dataclass(frozen=True)
class Adapted:
    """Every adapter of a pipeline, and what its nets were without them."""

    applied: tuple[Applied, ...]
    weights: dict[str, Tensor]
    vocabulary: Vocabulary | None
    """of the text encoder, where words were added to it"""

    def settings(self) -> list[dict[str, Any]]:
        """What a sidecar tells of them."""
        return [{k: v for k, v in asdict(one).items() if v is not None} for one in self.applied]


def parse(named: Named) -> tuple[Path, float]:
    """The file and the weight behind its last colon, 1 if there is none.

    >>> parse("mine.safetensors:0.8"), parse(("mine.safetensors", 2)), parse("C:/mine.safetensors")[1]
    ((PosixPath('mine.safetensors'), 0.8), (PosixPath('mine.safetensors'), 2.0), 1.0)
    """
    if isinstance(named, tuple):
        return Path(named[0]), float(named[1])
    name, colon, tail = str(named).rpartition(":")
    try:
        weight = float(tail) if colon else 1.0
    except ValueError:
        weight, colon = 1.0, ""
    if not math.isfinite(weight):
        raise AudioLDMError(f"adapter={named}: {tail} is no weight.", "Use a number such as 0.8.")
    return Path(name if colon else named), weight


def adapt(pipe: AudioLDM, named: Sequence[Named]) -> None:
    """Run ``pipe`` with these adapters and no others; every weight becomes W + sum of weight * delta(W).

    They are merged, so nothing runs slower; none at all is the model itself again, bit for bit.   Warns where one was
    trained on other weights.   Raises AudioLDMError where one does not fit; the pipeline is then without adapters.
    """
    release(pipe)
    wanted = [parse(one) for one in named]
    found = [(read(path, pipe.unet), weight) for path, weight in wanted]
    applied = tuple(
        Applied(str(path), sha256(path), one.kind, rank_of(one), weight, getattr(one, "word", None))
        for (path, _), (one, weight) in zip(wanted, found, strict=True)
    )
    for one, (adapter, _) in zip(applied, found, strict=True):
        check_base(pipe, one, adapter)
    words = [one for one, _ in found if isinstance(one, Words)]
    changes = [(one, weight) for one, weight in found if isinstance(one, Adapter)]
    inject.check(pipe.unet, changes)
    vocabulary = merge_words(pipe.clap, words) if words else None
    pipe.adapted = Adapted(applied, inject.merge(pipe.unet, changes), vocabulary) if applied else None
    pipe._engine = None  # compiled code may hold the weights of before


def release(pipe: AudioLDM) -> None:
    """Take every adapter off ``pipe``."""
    if pipe.adapted is not None:
        inject.unmerge(pipe.unet, pipe.adapted.weights)
        if pipe.adapted.vocabulary is not None:
            unmerge_words(pipe.clap, pipe.adapted.vocabulary)
        pipe.adapted, pipe._engine = None, None


def rank_of(adapter: Adapter | Words) -> int:
    """The rank, or how many rows a word has."""
    return len(adapter.rows) if isinstance(adapter, Words) else adapter.rank


def check_base(pipe: AudioLDM, applied: Applied, adapter: Adapter | Words) -> None:
    """Refuse what cannot be, and warn where the adapter was trained on other weights than the pipeline's."""
    if isinstance(adapter, Words) and applied.weight != 1:
        raise AudioLDMError(
            f"adapter={applied.file}:{applied.weight:g}: a word has no weight.",
            f"Leave it out: {applied.file}.",
        )
    if isinstance(adapter, Words) and isinstance(pipe.clap, NoClap):
        raise AudioLDMError(
            f"adapter={applied.file} is a word of CLAP, and {pipe.name} has no CLAP.", "Leave it out."
        )
    if adapter.base and not adapter.base.keys() & pipe.hashes.keys():
        warnings.warn(
            f"{applied.file} does not say whether it was trained on {pipe.name}.",
            AdapterWarning,
            stacklevel=4,
        )
    for part, digest in adapter.base.items():
        if pipe.hashes.get(part, digest) != digest:
            warnings.warn(
                f"{applied.file} was trained on another {part} ({digest[:12]}...) than that of {pipe.name} "
                f"({pipe.hashes[part][:12]}...); it may sound wrong.",
                AdapterWarning,
                stacklevel=4,
            )
