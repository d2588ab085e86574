"""A named choice with the one line and the paper that a listing shows, and options written behind its name.

A choice is ``NAME`` or ``NAME:OPTION=NUMBER,...``, such as ``ddim:eta=1`` or ``karras:rho=5``.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter, signature
from math import inf, isfinite, nan
from typing import Any

from audioldm.errors import AudioLDMError


@dataclass(frozen=True)
class Entry:
    """A function under a name; calling the entry calls the function.

    >>> Entry(abs, "Absolute value.", "school")(-2)
    2
    """

    run: Callable[..., Any]
    line: str
    paper: str
    stochastic: bool = False
    calls: str = "1"
    """denoiser calls per step"""
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """lowest and highest value of an option; 0 or more where nothing is said"""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.run(*args, **kwargs)

    def options(self) -> dict[str, float]:
        """The numbers that may be written behind the name, with their defaults: keyword-only, a number as default."""
        return {
            name: option.default
            for name, option in signature(self.run).parameters.items()
            if option.kind is Parameter.KEYWORD_ONLY and isinstance(option.default, int | float)
        }


def choose(table: Mapping[str, Entry], choice: str, what: str) -> Callable[..., Any]:
    """The function that ``choice`` names, with its options filled in; AudioLDMError says what is wrong with it.

    >>> choose({"power": Entry(lambda x, *, n=2: x**n, "A power.", "school")}, "power:n=3", "function")(2)
    8
    """
    name, colon, rest = choice.partition(":")
    if name not in table:
        raise AudioLDMError(f"{what}={name!r} is unknown.", f"Known: {', '.join(sorted(table))}.")
    entry = table[name]
    options = {}
    for part in rest.split(",") if colon else []:
        key, _, text = part.partition("=")
        options[key.strip()] = number(entry, key.strip(), text, f"{what}={choice}")
    return partial(entry.run, **options)


def number(entry: Entry, key: str, text: str, place: str) -> float:
    """One option's value, a whole number where its default is one."""
    options = entry.options()
    if key not in options:
        known = f"Options: {', '.join(options)}." if options else "It takes none."
        raise AudioLDMError(f"{place}: there is no option {key!r}.", known)
    low, high = entry.limits.get(key, (0, inf))
    most = high if isfinite(high) or options[key] == inf else sys.float_info.max
    try:
        value = type(options[key])(text)
    except ValueError:
        value = nan
    if not low <= value <= most:
        raise AudioLDMError(f"{place}: {key}={text!r} cannot be.", f"Give {wanted(options[key], low, high)}.")
    return value


def wanted(default: float, low: float, high: float) -> str:
    """What numbers an option takes, in words."""
    kind = "a whole number" if isinstance(default, int) else "a number"
    return f"{kind}, {low:g} to {high:g}" if isfinite(high) else f"{kind}, {low:g} or more"
