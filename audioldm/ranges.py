"""Numbers that a setting may have: the command line and Python check them alike."""

import math
from dataclasses import dataclass

from audioldm.errors import AudioLDMError


@dataclass(frozen=True)
class Between:
    """The numbers that an option may have, ``low`` itself not where ``above`` is true."""

    low: float
    high: float = math.inf
    above: bool = False

    def check(self, name: str, value: float) -> None:
        inside = self.low < value or (value == self.low and not self.above)
        if not (inside and value <= self.high and math.isfinite(value)):
            raise AudioLDMError(f"{name}={value:g} is out of range.", f"Use {self}.")

    def __str__(self) -> str:
        if self.above:
            return f"more than {self.low:g}" + (f" and at most {self.high:g}" if self.high < math.inf else "")
        return f"{self.low:g} to {self.high:g}" if self.high < math.inf else f"{self.low:g} or more"


SHARE = Between(0, 1)
POSITIVE = Between(0, above=True)
SAMPLING = {
    "seconds": Between(0, 600, above=True), "steps": Between(1, 1000), "guidance": Between(0),
    "refine_phase": Between(0, 1000), "retry_silent": Between(0, 100),
}  # fmt: skip
"""of ``components.Sampling``; more than 600 seconds is taken for a slip of the keyboard"""


def weighted(
    text: str, option: str, default: list[float], between: Between | None = None
) -> tuple[str, list[float]]:
    """What ``text`` names and the numbers behind its last colon, without doubles.

    >>> weighted("wind:0,0.5", "interpolate-to", [0.5]), weighted("C:/a.wav", "audio-prompt", [1.0])
    (('wind', [0.0, 0.5]), ('C:/a.wav', [1.0]))
    """
    name, colon, tail = text.rpartition(":")
    try:
        numbers = [float(part) for part in tail.split(",")] if colon else default
    except ValueError:
        colon, numbers = "", default
    name = (name if colon else text).strip()
    if not name:
        raise AudioLDMError(f"{option}={text!r} is empty.", "Give a name, then perhaps a colon and a number.")
    for number in numbers:
        (between or Between(-math.inf)).check(f"{option} {name}", number)
    return name, list(dict.fromkeys(numbers))
