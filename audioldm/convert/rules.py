"""Key names by table: every key of a checkpoint is renamed by one named rule, dropped by one, or an error.

A state is ``dict[str, Tensor]``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from audioldm.errors import AudioLDMError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """Keys that match ``pattern`` whole become ``name`` (with the pattern's groups), or are left out where it is None.

    ``why`` says what the keys are; it is what makes leaving one out a decision and not an accident.
    """

    pattern: str
    name: str | None
    why: str = ""


def drop(pattern: str, why: str) -> Rule:
    """A rule that leaves keys out."""
    return Rule(pattern, None, why)


def rename_key(key: str, rules: Sequence[Rule]) -> str | None:
    """The new name by the first rule that matches, None where that rule leaves the key out; KeyError if none does.

    >>> rename_key("mid.attn_1.q.bias", [Rule(r"(.+)\\.q\\.(.+)", r"\\1.to_q.\\2")])
    'mid.attn_1.to_q.bias'
    """
    for rule in rules:
        if match := re.fullmatch(rule.pattern, key):
            return None if rule.name is None else match.expand(rule.name)
    raise KeyError(key)


def rename(state: State, rules: Sequence[Rule], *, part: str, prefix: str = "") -> State:
    """Every key of ``state`` by ``rules``.   AudioLDMError where no rule explains a key, or two keys become one.

    ``prefix`` is what was taken off the keys before, so that the message has the name that is in the file.
    """
    renamed: State = {}
    for key, value in state.items():
        try:
            new = rename_key(key, rules)
        except KeyError:
            raise AudioLDMError(
                f"The {part} has a key that no rule explains: {prefix + key!r}, shape {tuple(value.shape)}.",
                "This is not one of the known checkpoints; please report the key.",
            ) from None
        if new is None:
            continue
        if new in renamed:
            raise AudioLDMError(
                f"The {part} has {prefix + key!r} twice under different names.", "The file is damaged."
            )
        renamed[new] = value
    return renamed


def below(state: State, prefix: str) -> State:
    """The keys that begin with ``prefix``, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def count(state: State, pattern: str) -> int:
    """How many different numbers stand in the group of ``pattern`` at the beginning of a key.

    >>> count(dict.fromkeys(["layers.0.w", "layers.0.b", "layers.1.w"]), r"layers\\.(\\d+)")
    2
    """
    return len({match.group(1) for key in state if (match := re.match(pattern, key))})


def need(state: State, key: str, *, part: str, prefix: str = "") -> Tensor:
    """One tensor from which a shape is read, or the error that says that it is missing."""
    if key not in state:
        raise AudioLDMError(
            f"The {part} lacks {prefix + key!r}.", "The file is incomplete or of another kind."
        )
    return state[key]
