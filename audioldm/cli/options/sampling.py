"""How a latent is sampled, and how long the sound is."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from audioldm.cli.options import PANEL, Between, Setting

option = partial(typer.Option, rich_help_panel=PANEL, show_default=False)


@dataclass(frozen=True)
class Steps:
    """How a latent is sampled; None is the model's own."""

    steps: Annotated[int | None, option(help="Denoising steps."), Between(1, 1000)] = None
    sampler: Annotated[
        str | None,
        option(metavar="NAME[:OPTION=N,...]", help="Such as ddim or dpmpp_2m; see audioldm samplers."),
    ] = None
    grid: Annotated[str | None, Setting("Noise levels to visit.", "NAME[:OPTION=N,...]")] = None
    refine_phase: Annotated[
        int | None,
        Setting("Rounds that bring the vocoder's sound to its mel; 0 is none."),
        Between(0, 1000),
    ] = None

    def settings(self) -> dict[str, Any]:
        """What is not left to the model, by the pipeline's names."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Sampling(Steps):
    """``Steps``, and the length."""

    seconds: Annotated[
        float | None, option(help="Length of each clip, up to 600."), Between(0, 600, above=True)
    ] = None
    retry_silent: Annotated[
        int | None,
        Setting("How often a clip that came out silent is sampled again; 0 is never."),
        Between(0, 100),
    ] = None
