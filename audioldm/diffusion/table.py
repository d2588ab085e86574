"""A named choice, its options written behind its name: ``ddim:eta=1``, ``karras:rho=5``."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, signature
from math import inf, isfinite, nan
from typing import Any, NamedTuple

from audioldm.errors import AudioLDMError

LIMITS = {
    "eta": (0, 1), "large": (0, 1), "phi": (0, 1), "order": (1, 3), "offset": (0, 1), "rho": (1, 100),
    "radius": (1e-6, inf), "rtol": (1e-8, 1), "atol": (1e-8, 1), "most": (1, 100_000), "rounds": (0, 100),
    "size": (0, 0.7),  # 2 size^2 of the way to x0 a round: beyond 1 it would overshoot
}  # fmt: skip
"""lowest and highest value of an option; 0 or more where nothing is said"""


class Entry(NamedTuple):
    """A function under a name; calling the entry calls the function."""

    run: Callable[..., Any]
    about: str = ""  # for listings: a line, three spaces, the paper; else the function's docstring has them
    stochastic: bool = False
    calls: str = "1"  # denoiser calls per step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)

    @property
    def line(self) -> str:
        return (self.about or self.run.__doc__ or "").split("\n")[0].split("   ")[0]

    @property
    def paper(self) -> str:
        return (self.about or self.run.__doc__ or "").split("\n")[0].split("   ")[1].removesuffix(".")

    def options(self) -> dict[str, float]:
        """The numbers that may be written behind the name: keyword-only, a number as default."""
        words = [one for one in signature(self.run).parameters.values() if one.kind is Parameter.KEYWORD_ONLY]
        return {one.name: one.default for one in words if type(one.default) in (int, float)}


def choose(table: Mapping[str, Entry], choice: str, what: str) -> Callable[..., Any]:
    """The function that ``choice`` names, with its options filled in; AudioLDMError says what is wrong with it."""
    name, colon, rest = choice.partition(":")
    if name not in table:
        raise AudioLDMError(f"{what}={name!r} is unknown.", f"Known: {', '.join(sorted(table))}.")
    options, known = dict[str, float](), table[name].options()
    for part in rest.split(",") * bool(colon):
        key, _, text = part.partition("=")
        if (key := key.strip()) not in known:
            hint = f"Options: {', '.join(known)}." if known else "It takes none."
            raise AudioLDMError(f"{what}={choice}: there is no option {key!r}.", hint)
        low, high = LIMITS.get(key, (0, inf))
        try:
            value = type(known[key])(text)
        except ValueError:
            value = nan
        # infinity only where it is the default
        if not low <= value <= min(high, max(known[key], sys.float_info.max)):
            kind = {int: "a whole number", float: "a number"}[type(known[key])]
            range_of = f"{low:g} to {high:g}" if isfinite(high) else f"{low:g} or more"
            raise AudioLDMError(f"{what}={choice}: {key}={text!r} cannot be.", f"Give {kind}, {range_of}.")
        options[key] = value
    return partial(table[name].run, **options)
