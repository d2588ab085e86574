"""A named choice with the one line and the paper that a listing shows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.run(*args, **kwargs)
