"""How a latent is sampled: the settings that a model has defaults for, and their limits.   Needs no torch."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

from audioldm.errors import AudioLDMError

LONGEST = 600.0
"""seconds; more is taken for a slip of the keyboard"""


class SamplingOptions(TypedDict, total=False):
    """The fields of ``Sampling`` as keyword arguments; None is the model's own."""

    seconds: float | None
    steps: int | None
    sampler: str | None
    grid: str | None
    guidance: float | None
    negative: str | None
    refine_phase: int | None
    retry_silent: int | None


@dataclass(frozen=True)
class Sampling:
    """How a sound is sampled; as it stands, what the original AudioLDM does.   Raises AudioLDMError out of range.

    >>> Sampling().merged(steps=20, sampler=None).steps
    20
    """

    seconds: float = 10.24
    steps: int = 200
    sampler: str = "ddim:eta=1"
    """a name in ``diffusion.samplers``, with options as ``diffusion.table.choose`` reads them"""
    grid: str = "published"
    """a name in ``diffusion.grids``"""
    guidance: float = 2.5
    """scale of classifier-free guidance; 1 is none"""
    negative: str = ""
    """the prompt to steer away from"""
    refine_phase: int = 0
    """rounds that bring the vocoder's sound to its mel (``signal.invert.refine_phase``)"""
    retry_silent: int = 0
    """how often a clip that came out silent is drawn again"""

    def __post_init__(self) -> None:
        check_sampling(**vars(self))

    def merged(self, **options: Any) -> "Sampling":
        """These settings with ``options`` instead; None keeps a setting.   Raises TypeError for an unknown one."""
        if unknown := options.keys() - {field.name for field in fields(self)}:
            raise TypeError(
                f"unknown settings: {', '.join(sorted(unknown))}; known: {', '.join(vars(self))}."
            )
        return replace(self, **{name: value for name, value in options.items() if value is not None})


def check_sampling(
    *,
    seconds: float | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    refine_phase: int | None = None,
    retry_silent: int | None = None,
    **_: Any,
) -> None:
    """Raise AudioLDMError for a number that no run could use; None is not checked."""
    if seconds is not None and not 0 < seconds <= LONGEST:
        raise AudioLDMError(
            f"seconds={seconds:g} is not a length of sound.", f"Use more than 0 and at most {LONGEST:g}."
        )
    if steps is not None and not 1 <= steps <= 1000:
        raise AudioLDMError(f"steps={steps} is not a number of steps.", "Use 1 to 1000.")
    if guidance is not None and not (math.isfinite(guidance) and guidance >= 0):
        raise AudioLDMError(
            f"guidance={guidance:g} is not a guidance scale.", "Use 0 or more; 1 is no guidance."
        )
    if refine_phase is not None and not 0 <= refine_phase <= 1000:
        raise AudioLDMError(f"refine_phase={refine_phase} is not a number of rounds.", "Use 0 to 1000.")
    if retry_silent is not None and not 0 <= retry_silent <= 100:
        raise AudioLDMError(f"retry_silent={retry_silent} is not a number of draws.", "Use 0 to 100.")
