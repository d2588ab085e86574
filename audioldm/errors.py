"""The one base class for mistakes that a user can cause, and that for what only deserves a word."""

import re
from typing import Any

MEMORY = re.compile(
    "out of memory|allocate memory|not enough memory|bad_alloc|could not create a primitive|can't start new thread"
    "|failed to map segment", re.IGNORECASE,
)  # fmt: skip
"""How libraries say that they got no memory; oneDNN makes no primitive."""


class AudioLDMError(Exception):
    """What is wrong and what was given, then what to do.

    The command line prints ``message`` and ``hint`` on one line and exits with ``code``: 2 for wrong use that is
    found before any work starts, 1 for a failure while working.
    """

    def __init__(self, message: str, hint: str = "", *, code: int = 2) -> None:
        super().__init__(f"{message} {hint}".rstrip())
        self.message, self.hint, self.code = message, hint, code

    def __reduce__(self) -> tuple[Any, ...]:
        return AudioLDMError, (self.message, self.hint), {"code": self.code}


class AudioLDMWarning(UserWarning):
    """What does not stop the work, and may spoil it or take long.   The command line prints one line for each."""


def without_memory(error: BaseException | None) -> BaseException | None:
    """The fault that says that memory was full: this one, or that in whose handling it came up."""
    while error and not (isinstance(error, MemoryError) or MEMORY.search(str(error))):
        error = error.__context__
    return error
