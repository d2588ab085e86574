"""Names of modules by table, both ways: every key of a checkpoint is translated, left out by name, or an error.

A table maps the original's module paths to ours.   ``*`` stands for a number, ``**`` for the rest of a path; both sides
have the same ones in the same order.   A key is a module's path, a dot, and the name of one of its tensors.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count as integers

from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.nets.folder import State

Names = Mapping[str, str]


def rename(
    state: Mapping[str, Tensor], names: Names, *, part: str, prefix: str = "", drop: Sequence[str] = ()
) -> State:
    """Every key of ``state`` by the table; keys that a pattern in ``drop`` matches whole are left out.

    ``prefix`` is what was taken off the keys before, so that messages have the names of the file.   Raises
    AudioLDMError where the table does not know a key, or two keys become one.

    >>> from torch import zeros
    >>> list(rename({"mid.attn_1.q.bias": zeros(1)}, {"mid.attn_*.q": "mid.attentions.*.to_q"}, part="VAE"))
    ['mid.attentions.1.to_q.bias']
    """
    renamed: State = {}
    for key, value in state.items():
        if any(re.fullmatch(pattern, key) for pattern in drop):
            continue
        path, _, leaf = key.rpartition(".")
        new = translate(path, names)
        if new is None:
            raise unexplained(prefix + key)
        new = f"{new}.{leaf}"
        if new in renamed:
            raise AudioLDMError(
                f"The {part} has {prefix + key!r} twice under different names.", "It is damaged."
            )
        renamed[new] = value
    return renamed


def translate(path: str, names: Names) -> str | None:
    """A module's path by the table, or None."""
    if path in names:
        return names[path]
    for theirs, ours in names.items():
        if "*" in theirs and (match := compiled(theirs).fullmatch(path)):
            groups = iter(match.groups())
            return re.sub(r"\*\*?", lambda _: next(groups), ours)  # noqa: B023
    return None


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A path of the table as a regular expression."""
    return re.compile(re.escape(pattern).replace(r"\*\*", "(.+)").replace(r"\*", r"(\d+)"))


def reverse(names: Names) -> dict[str, str]:
    """The table from our names to the original's."""
    return {ours: theirs for theirs, ours in names.items()}


def unexplained(key: str) -> AudioLDMError:
    """The error for a key that no table knows."""
    return AudioLDMError(
        f"The checkpoint has a key that no rule explains: {key!r}.",
        "This is not one of the known checkpoints; please report the key.",
    )


def below(state: Mapping[str, Tensor], prefix: str) -> State:
    """The keys that begin with ``prefix``, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers from 0 on follow ``prefix`` in the keys.

    >>> count(dict.fromkeys(["layers.0.w", "layers.0.b", "layers.1.w"]), "layers.")
    2
    """
    keys = {key[len(prefix) :].partition(".")[0] for key in state if key.startswith(prefix)}
    return next(n for n in integers() if str(n) not in keys)


def need(state: Mapping[str, Tensor], key: str, dims: int = 0, *, part: str, prefix: str = "") -> Tensor:
    """One tensor from which a shape is read, of ``dims`` dimensions unless 0.   Raises AudioLDMError."""
    if key not in state:
        raise AudioLDMError(
            f"The {part} lacks {prefix + key!r}.", "The file is incomplete or of another kind."
        )
    if state[key].dim() != dims > 0 or 0 in state[key].shape:
        shape = tuple(state[key].shape)
        raise AudioLDMError(f"The {part} has {prefix + key!r} of shape {shape}.", "The file is damaged.")
    return state[key]
