"""A named choice, its options written behind its name: ``ddim:eta=1``, ``karras:rho=5``."""

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

    >>> Entry(abs)(-2), Entry(abs, "Absolute value.   School.").paper
    (2, 'School')
    """

    run: Callable[..., Any]
    about: str = ""
    """a line for listings, three spaces, the paper; else the first line of the function's docstring"""
    stochastic: bool = False
    calls: str = "1"
    """denoiser calls per step"""
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """lowest and highest value of an option; 0 or more where nothing is said"""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    @property
    def line(self) -> str:
        return (self.about or self.run.__doc__ or "").split("\n")[0].split("   ")[0]

    @property
    def paper(self) -> str:
        return (self.about or self.run.__doc__ or "").split("\n")[0].split("   ")[1].removesuffix(".")

    def options(self) -> dict[str, float]:
        """The numbers that may be written behind the name, with their defaults: keyword-only, a number as default."""
        return {
            name: option.default
            for name, option in signature(self.run).parameters.items()
            if option.kind is Parameter.KEYWORD_ONLY and isinstance(option.default, int | float)
        }


def choose(table: Mapping[str, Entry], choice: str, what: str) -> Callable[..., Any]:
    """The function that ``choice`` names, with its options filled in; AudioLDMError says what is wrong with it."""
    name, colon, rest = choice.partition(":")
    if name not in table:
        raise AudioLDMError(f"{what}={name!r} is unknown.", f"Known: {', '.join(sorted(table))}.")
    options = {}
    for part in rest.split(",") if colon else []:
        key, _, text = part.partition("=")
        options[key.strip()] = number(table[name], key.strip(), text, f"{what}={choice}")
    return partial(table[name].run, **options)


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
        kind = "a whole number" if isinstance(options[key], int) else "a number"
        wanted = f"{kind}, {low:g} to {high:g}" if isfinite(high) else f"{kind}, {low:g} or more"
        raise AudioLDMError(f"{place}: {key}={text!r} cannot be.", f"Give {wanted}.")
    return value
