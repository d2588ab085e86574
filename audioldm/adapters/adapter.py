"""An adapter as a value: the factors of every layer that it changes, and what is known of it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Generator, Tensor, nn

from audioldm.adapters.delta import DELTAS, STARTS
from audioldm.adapters.targets import find, weights_of
from audioldm.errors import AudioLDMError, AudioLDMWarning


class AdapterWarning(AudioLDMWarning):
    """Something about an adapter that does not stop the work and may spoil it."""


@dataclass(frozen=True)
class Layer:
    """The change of one weight: scale * what the factors give."""

    kind: str
    factors: dict[str, Tensor]
    scale: float

    def delta(self, weight: Tensor) -> Tensor:
        """The change, of the shape of ``weight``; computed in its type or the factors' own, whichever is finer."""
        dtype = reduce(torch.promote_types, (v.dtype for v in self.factors.values()), weight.dtype)
        factors = {name: value.to(weight.device, dtype) for name, value in self.factors.items()}
        return DELTAS[self.kind](weight.to(dtype), factors, self.scale)


@dataclass(frozen=True)
class Adapter:
    """A kind, its rank and strength, and the layers of one U-Net that it is for."""

    kind: str
    layers: dict[str, Layer]
    rank: int
    alpha: float
    targets: tuple[str, ...] = ()
    base: dict[str, str] = field(default_factory=dict)
    """sha256 of the weights that it was trained on, by part"""
    about: dict[str, str] = field(default_factory=dict)
    """what a user wants to know: prompt, recipe, number of clips"""

    @property
    def parameters(self) -> int:
        return sum(value.numel() for layer in self.layers.values() for value in layer.factors.values())


def start(
    net: nn.Module,
    kind: str,
    *,
    rank: int,
    targets: Sequence[str],
    generator: Generator,
    alpha: float | None = None,
) -> Adapter:
    """A new adapter of ``net`` that changes nothing yet; ``alpha`` None is ``rank``, a scale of 1.

    A layer smaller than ``rank`` gets the rank that it can have, and keeps the scale alpha / rank; that is warned of.
    Raises AudioLDMError for an unknown kind, a rank below 1, or a target that matches nothing.
    """
    if kind not in DELTAS:
        raise AudioLDMError(f"kind={kind!r} is no adapter.", f"Known: {', '.join(DELTAS)}.")
    if rank < 1:
        raise AudioLDMError(f"rank={rank} is not a rank.", "Use 1 or more.")
    alpha, weights = float(rank if alpha is None else alpha), weights_of(net)
    layers, small = {}, []
    for name in find(net, targets):
        weight = weights[name]
        most = min(len(weight), weight[0].numel())
        if most < rank:
            small.append(f"{name} ({most})")
        factors = STARTS[kind](weight.detach().cpu().float(), min(rank, most), generator)
        layers[name] = Layer(kind, factors, alpha / rank)
    if small and kind != "lokr":  # which takes the rank that its own halves can have
        why = f"rank={rank} is more than {len(small)} of {len(layers)} layers can have, such as {small[0]}"
        warnings.warn(f"{why}; they get the most that they can.", AdapterWarning, stacklevel=2)
    return Adapter(kind, layers, rank, alpha, tuple(targets))
