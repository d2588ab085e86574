"""Which layers of a net an adapter is for: patterns, and what to say where one matches nothing."""

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor, nn

from audioldm.errors import AudioLDMError

ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
LINEAR = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "time_emb_proj", "class_embedding")
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
    names = list(layers_of(net))
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            near = near_misses(names, pattern)
            hint = f"Near it: {', '.join(near)}." if near else f"Such as {names[0]}."
            raise AudioLDMError(f"The target {pattern!r} matches no layer with weights.", hint)
    return [name for name in names if any(matches(name, pattern) for pattern in patterns)]


def near_misses(names: Sequence[str], pattern: str) -> list[str]:
    """Ends of ``names`` that look most like ``pattern``, nearest first."""
    ends = {".".join(parts[i:]) for parts in (name.split(".") for name in names) for i in range(len(parts))}
    return get_close_matches(pattern, sorted(end for end in ends if not end.isdigit()), n=5, cutoff=0.5)


def defaults(net: nn.Module, *, convolutions: bool) -> tuple[str, ...]:
    """``LINEAR``, with ``CONVOLUTIONS`` if asked, as far as ``net`` has them."""
    names = list(layers_of(net))
    wanted = (*LINEAR, *CONVOLUTIONS) if convolutions else LINEAR
    return tuple(pattern for pattern in wanted if any(matches(name, pattern) for name in names))
