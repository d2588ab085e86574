"""An adapter as a value (which layers of a net it changes, by which factors), and its way onto the net.

It is attached, so that it can learn (one at a time, at full strength), or merged into the weights with others, so that
the net runs as fast as before.   Each weight becomes W + sum of strength * delta(W): every delta starts from the base's
own weight, so the order of adapters does not matter, and their kinds and ranks may differ.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from audioldm.adapters.delta import DELTAS, STARTS
from audioldm.adapters.words import Vocabulary
from audioldm.errors import AudioLDMError, AudioLDMWarning

ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "time_emb_proj", "class_embedding")
"""Every linear layer on the sound or the condition; a FiLM net is conditioned through the last two."""
CONVOLUTIONS = ("proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "*samplers.0.conv")


def layers_of(net: nn.Module) -> dict[str, nn.Module]:
    """Every layer of ``net`` with a weight that can be adapted, by name."""
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, ADAPTABLE)}


def weights_of(net: nn.Module) -> dict[str, Tensor]:
    """The weight of each of ``layers_of``."""
    return {name: layer.weight for name, layer in layers_of(net).items()}  # type: ignore[misc]


def matches(name: str, pattern: str) -> bool:
    """Whether ``pattern`` is the name's whole or its end, from a dot on; * and ? stand for anything.

    >>> matches("mid.attn1.to_q", "to_q"), matches("mid.attn1.to_q", "attn?.to_*"), matches("into_q", "to_q")
    (True, True, False)
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def find(net: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the layers that ``patterns`` match, in order.   Raises AudioLDMError for one that matches nothing."""
    names, wanted = list(layers_of(net)), set[str]()
    for pattern in patterns:
        hits = [name for name in names if matches(name, pattern)]
        if not hits:
            ends = sorted({name.split(".", i)[-1] for name in names for i in range(name.count(".") + 1)})
            near = get_close_matches(pattern, ends, n=5, cutoff=0.5)
            hint = f"Near it: {', '.join(near)}." if near else f"Such as {names[0]}."
            raise AudioLDMError(f"The target {pattern!r} matches no layer with weights.", hint)
        wanted.update(hits)
    return [name for name in names if name in wanted]


def defaults(net: nn.Module, *, convolutions: bool) -> tuple[str, ...]:
    """``LINEAR``, with ``CONVOLUTIONS`` if asked, as far as ``net`` has them."""
    names, wanted = list(layers_of(net)), (*LINEAR, *CONVOLUTIONS) if convolutions else LINEAR
    return tuple(pattern for pattern in wanted if any(matches(name, pattern) for name in names))


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
    net: nn.Module, kind: str, *, rank: int, targets: Sequence[str], generator: Generator, alpha: float | None = None
) -> Adapter:  # fmt: skip
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
        weight = weights[name].detach().cpu().float()
        most = min(rank, len(weight), weight[0].numel())
        small += [f"{name} ({most})"] if most < rank else []
        layers[name] = Layer(kind, STARTS[kind](weight, most, generator), alpha / rank)
    if small and kind != "lokr":  # which takes the rank that its own halves can have
        why = f"rank={rank} is more than {len(small)} of {len(layers)} layers can have, such as {small[0]}"
        warnings.warn(f"{why}; they get the most that they can.", AudioLDMWarning, stacklevel=2)
    return Adapter(kind, layers, rank, alpha, tuple(targets))


Weighted = tuple[Adapter, float]  # an adapter and its strength


@dataclass(frozen=True)
class Adapted:
    """Every adapter of a model, and what its nets were without them."""

    applied: list[dict[str, Any]]
    """file, sha256, kind, rank and weight of each, and its word if it is one: what a sidecar shows"""
    weights: dict[str, Tensor]
    vocabulary: Vocabulary | None  # of the text encoder, where words were added to it
    sampling: dict[str, Any]  # the model's own settings, where adapters brought others


class Delta(nn.Module):
    """The parametrization of one weight: the frozen one plus what an adapter adds, whose factors can be trained."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.kind, self.scale = layer.kind, layer.scale
        # half precision, as a file may have it, is too coarse to learn in
        kinds = {name: torch.promote_types(v.dtype, torch.float32) for name, v in layer.factors.items()}
        factors = {name: nn.Parameter(v.to(kinds[name], copy=True)) for name, v in layer.factors.items()}
        self.factors = nn.ParameterDict(factors)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + DELTAS[self.kind](weight, dict(self.factors.items()), self.scale).to(weight.dtype)


def attach(net: nn.Module, adapter: Adapter) -> list[nn.Parameter]:
    """Put an adapter on ``net``, all else frozen; returns its parameters.   Raises AudioLDMError as ``check_fit``."""
    check_fit(net, [(adapter, 1.0)])
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
    """Write adapters into ``net``, summed in float32; returns the weights of before.   Raises as ``check_fit``."""
    check_fit(net, weighted)
    before = {}
    for name, weight in weights_of(net).items():
        if changes := [(adapter.layers[name], s) for adapter, s in weighted if name in adapter.layers]:
            before[name] = weight.detach().clone()
            exact = before[name].float()
            nothing = torch.zeros_like(exact)
            weight.copy_(exact + sum((s * c.delta(exact).float() for c, s in changes), nothing))
    return before


@torch.no_grad()
def unmerge(net: nn.Module, before: dict[str, Tensor]) -> None:
    """Put back the weights that ``merge`` returned, bit for bit."""
    for name, weight in weights_of(net).items():
        if name in before:
            weight.copy_(before[name])


def check_fit(net: nn.Module, weighted: Sequence[Weighted]) -> None:
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
