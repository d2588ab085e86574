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
    "seconds": Between(0, 600, above=True),
    "steps": Between(1, 1000),
    "guidance": Between(0),
    "refine_phase": Between(0, 1000),
    "retry_silent": Between(0, 100),
}
"""of ``components.Sampling``; more than 600 seconds is taken for a slip of the keyboard"""
