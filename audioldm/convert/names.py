"""Names of modules by table, both ways: every key of a checkpoint is translated, left out by name, or an error.

In a table ``*`` stands for a number, ``**`` for the rest of a path, the same ones in the same order on both sides.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State


class Net(NamedTuple):
    """A net of a file: its weights in today's names, what builds it, and with which arguments."""

    state: State
    make: Callable[..., Any]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Shapes:
    """Tensors from which a net's shape is read; messages have the names of the file, with its ``prefix``."""

    state: Mapping[str, Tensor]
    part: str
    prefix: str = ""

    def tensor(self, key: str, dims: int = 0) -> Tensor:
        """One tensor, of ``dims`` dimensions unless 0.   Raises AudioLDMError."""
        what, value = f"The {self.part} %s {self.prefix + key!r}", self.state.get(key)
        if value is None:
            raise AudioLDMError(f"{what % 'lacks'}.", "The file is incomplete or of another kind.")
        if value.dim() != dims > 0 or 0 in value.shape:
            raise AudioLDMError(f"{what % 'has'} of shape {tuple(value.shape)}.", "The file is damaged.")
        return value

    def size(self, key: str, dims: int = 2, axis: int = 0) -> int:
        """The size of one tensor of ``dims`` dimensions along ``axis``."""
        return int(self.tensor(key, dims).shape[axis])

    def count(self, prefix: str) -> int:
        """How many numbers from 0 on follow ``prefix`` in the keys."""
        keys = {key[len(prefix) :].partition(".")[0] for key in self.state if key.startswith(prefix)}
        return next(n for n in count() if str(n) not in keys)


def rename(
    state: Mapping[str, Tensor], names: Mapping[str, str], *, part: str, prefix: str = "", drop: str = "",
    back: bool = False,
) -> State:  # fmt: skip
    """Every key of ``state`` by the table, or ``back`` by it, but what the pattern ``drop`` matches whole.

    ``prefix`` was taken off the keys before.   AudioLDMError where a key is unknown, or two become one.

    >>> from torch import zeros
    >>> list(rename({"mid.attn_1.q.bias": zeros(1)}, {"mid.attn_*.q": "mid.attentions.*.to_q"}, part="VAE"))
    ['mid.attentions.1.to_q.bias']
    """
    rules, renamed = list[tuple[re.Pattern[str], str]](), State()
    for theirs, ours in names.items():
        old, new = (ours, theirs) if back else (theirs, ours)
        pattern = re.escape(old).replace(r"\*\*", "(.+)").replace(r"\*", r"(\d+)")
        rules.append((re.compile(pattern), re.sub(r"\*\*?", "{}", new)))
    for key, value in state.items():
        if re.fullmatch(drop, key):
            continue
        path, _, leaf = key.rpartition(".")
        matches = (new.format(*match.groups()) for rule, new in rules if (match := rule.fullmatch(path)))
        if not (name := next(matches, "")):
            raise unexplained(prefix + key)
        if f"{name}.{leaf}" in renamed:
            raise AudioLDMError(f"The {part} has {prefix + key!r} under two names.", "It is damaged.")
        renamed[f"{name}.{leaf}"] = value
    return renamed


def unexplained(key: str) -> AudioLDMError:
    hint = "This is not one of the known checkpoints; please report the key."
    return AudioLDMError(f"The checkpoint has a key that no rule explains: {key!r}.", hint)


def below(state: Mapping[str, Tensor], prefix: str) -> State:
    """The keys that begin with ``prefix``, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def prefixes(state: Mapping[str, Tensor], pattern: str) -> list[str]:
    """What a pattern matches at the beginning of the keys, each once, sorted."""
    return sorted({match[0] for match in (re.match(pattern, key) for key in state) if match})
