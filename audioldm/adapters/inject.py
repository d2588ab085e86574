"""Adapters on a net: attached, so that they can learn, or merged into its weights, so that it runs as fast as before.

Either way each weight becomes W + sum of strength * delta(W): every delta starts from the base's own weight, so the
order of adapters does not matter, and their kinds and ranks may differ.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from audioldm.adapters.adapter import Adapter, Layer, layers_of, weights_of
from audioldm.adapters.delta import DELTAS
from audioldm.adapters.words import Vocabulary
from audioldm.errors import AudioLDMError

Weighted = tuple[Adapter, float]
"""an adapter and its strength"""


@dataclass(frozen=True)
class Applied:
    file: str
    sha256: str
    kind: str
    rank: int
    weight: float
    word: str | None = None


@dataclass(frozen=True)
class Adapted:
    """Every adapter of a model, and what its nets were without them."""

    applied: tuple[Applied, ...]
    weights: dict[str, Tensor]
    vocabulary: Vocabulary | None
    """of the text encoder, where words were added to it"""
    sampling: dict[str, Any]
    """the model's own settings, where adapters brought others"""

    def settings(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in asdict(one).items() if v is not None} for one in self.applied]


class Delta(nn.Module):
    """What one adapter adds to one weight; its factors can be trained."""

    def __init__(self, layer: Layer, strength: float) -> None:
        super().__init__()
        self.kind, self.scale, self.strength = layer.kind, layer.scale, strength
        self.factors = nn.ParameterDict(
            {name: nn.Parameter(value.clone()) for name, value in layer.factors.items()}
        )

    def forward(self, weight: Tensor) -> Tensor:
        return self.strength * DELTAS[self.kind](weight, dict(self.factors.items()), self.scale)


class Stack(nn.Module):
    """The parametrization of one weight: the frozen one and what each adapter adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.deltas = nn.ModuleList()

    def forward(self, weight: Tensor) -> Tensor:
        out = weight
        for delta in self.deltas:
            out = out + delta(weight).to(weight.dtype)
        return out


def attach(net: nn.Module, weighted: Sequence[Weighted]) -> list[nn.Parameter]:
    """Put adapters on ``net``, all else frozen; returns their parameters.   Raises AudioLDMError as ``check``."""
    check(net, weighted)
    net.requires_grad_(False)
    layers, added = layers_of(net), []
    for adapter, strength in weighted:
        for name, change in adapter.layers.items():
            layer = layers[name]
            if not parametrize.is_parametrized(layer, "weight"):
                parametrize.register_parametrization(layer, "weight", Stack(), unsafe=True)
            delta = Delta(change, strength).to(layer.parametrizations.weight.original.device)  # type: ignore[union-attr, arg-type]
            layer.parametrizations.weight[0].deltas.append(delta)  # type: ignore[index, union-attr]
            added += list(delta.parameters())
    return added


def detach(net: nn.Module) -> None:
    """Take every attached adapter off; the weights are those of before."""
    for layer in layers_of(net).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def learned(net: nn.Module, adapter: Adapter) -> Adapter:
    """``adapter`` with the factors that it has now, as the only one attached to ``net``."""
    layers = layers_of(net)
    trained = {}
    for name, layer in adapter.layers.items():
        factors = layers[name].parametrizations.weight[0].deltas[0].factors  # type: ignore[index, union-attr]
        trained[name] = replace(layer, factors={key: value.detach().cpu() for key, value in factors.items()})
    return replace(adapter, layers=trained)


@torch.no_grad()
def merge(net: nn.Module, weighted: Sequence[Weighted]) -> dict[str, Tensor]:
    """Write adapters into the weights of ``net``; returns the weights that were there, for ``unmerge``.

    Sums are made in float32 and rounded once to the net's type.   Raises AudioLDMError as ``attach`` does.
    """
    check(net, weighted)
    weights, before = weights_of(net), {}
    for name in sorted({name for adapter, _ in weighted for name in adapter.layers}):
        weight = weights[name]
        before[name] = weight.detach().clone()
        exact = before[name].float()
        changes = [s * a.layers[name].delta(exact).float() for a, s in weighted if name in a.layers]
        weight.copy_(exact + sum(changes, torch.zeros_like(exact)))
    return before


@torch.no_grad()
def unmerge(net: nn.Module, before: dict[str, Tensor]) -> None:
    """Put back the weights that ``merge`` returned, bit for bit."""
    weights = weights_of(net)
    for name, weight in before.items():
        weights[name].copy_(weight)


def check(net: nn.Module, weighted: Sequence[Weighted]) -> None:
    """Raise AudioLDMError where an adapter does not fit ``net``; nothing is changed by then."""
    weights, use = weights_of(net), "Use the model that it was trained on."
    for name, layer in ((name, layer) for adapter, _ in weighted for name, layer in adapter.layers.items()):
        if name not in weights:
            raise AudioLDMError(f"This model has no layer {name!r}, which the adapter changes.", use)
        weight = torch.empty(weights[name].shape, device="meta")
        try:
            layer.delta(weight)
        except (ValueError, RuntimeError, KeyError, IndexError, TypeError):
            why = f"The adapter does not fit {name!r}, whose weight has the shape {tuple(weight.shape)}."
            raise AudioLDMError(why, use) from None
