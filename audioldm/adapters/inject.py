"""Adapters on a net: attached, so that they can learn, or merged into its weights, so that it runs as fast as before.

Either way each weight becomes W + sum of strength * delta(W): every delta starts from the base's own weight, so the
order of adapters does not matter, and their kinds and ranks may differ.   One learns at a time, at full strength.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
class Adapted:
    """Every adapter of a model, and what its nets were without them."""

    applied: list[dict[str, Any]]
    """file, sha256, kind, rank and weight of each, and its word if it is one: what a sidecar shows"""
    weights: dict[str, Tensor]
    vocabulary: Vocabulary | None
    """of the text encoder, where words were added to it"""
    sampling: dict[str, Any]
    """the model's own settings, where adapters brought others"""


class Delta(nn.Module):
    """The parametrization of one weight: the frozen one plus what an adapter adds, whose factors can be trained."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.kind, self.scale = layer.kind, layer.scale
        self.factors = nn.ParameterDict(
            {name: nn.Parameter(value.clone()) for name, value in layer.factors.items()}
        )

    def forward(self, weight: Tensor) -> Tensor:
        change = DELTAS[self.kind](weight, dict(self.factors.items()), self.scale)
        return weight + change.to(weight.dtype)


def attach(net: nn.Module, adapter: Adapter) -> list[nn.Parameter]:
    """Put an adapter on ``net``, all else frozen; returns its parameters.   Raises AudioLDMError as ``check``."""
    check(net, [(adapter, 1.0)])
    net.requires_grad_(False)
    layers, added = layers_of(net), list[nn.Parameter]()
    for name, change in adapter.layers.items():
        delta = Delta(change).to(layers[name].weight.device)  # type: ignore[arg-type]
        parametrize.register_parametrization(layers[name], "weight", delta, unsafe=True)
        added += delta.parameters()
    return added


def learned(net: nn.Module, adapter: Adapter) -> Adapter:
    """``adapter`` with the factors that it has now, attached to ``net``."""
    layers, trained = layers_of(net), {}
    for name, layer in adapter.layers.items():
        factors = layers[name].parametrizations.weight[0].factors  # type: ignore[index, union-attr]
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
