"""How a latent is sampled, and how long the sound is."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer


@dataclass(frozen=True)
class Steps:
    """How a latent is sampled; None is the model's own."""

    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [default: the model's]")] = None
    sampler: Annotated[
        str | None,
        typer.Option(metavar="NAME[:OPTION=N,...]", help="See audioldm samplers.  [default: the model's]"),
    ] = None
    grid: Annotated[
        str | None,
        typer.Option(metavar="NAME[:OPTION=N,...]", help="Noise levels to visit.  [default: the model's]"),
    ] = None
    refine_phase: Annotated[
        int | None,
        typer.Option(
            help="Rounds that bring the vocoder's sound to its mel; 0 is none.  [default: the model's]"
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was asked for, by the pipeline's names."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Sampling(Steps):
    """``Steps``, and the length."""

    seconds: Annotated[float | None, typer.Option(help="Length of each clip.  [default: the model's]")] = None
    retry_silent: Annotated[
        int | None,
        typer.Option(
            help="How often a clip that came out silent is drawn again; 0 is never.  [default: the model's]"
        ),
    ] = None
