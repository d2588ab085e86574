"""What the edits share: takes, regions, the file's own samples, and all groups as one."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from audioldm.cli.options import Between, Setting
from audioldm.cli.options.guidance import Guidance
from audioldm.cli.options.model import ModelOptions
from audioldm.cli.options.output import Output
from audioldm.cli.options.sampling import Steps
from audioldm.errors import AudioLDMError

option = partial(typer.Option, rich_help_panel="Edit")
Input = Annotated[Path, typer.Argument(help="Sound file: any format, rate, channels, length.")]
Prompt = Annotated[str, typer.Argument(help="What to hear, in quotes.")]
Strength = Annotated[float, option(help="0 keeps the sound, 1 ignores it."), Between(0, 1)]
Splice = Annotated[
    bool,
    option(
        "--splice",
        help="Put the new part into the file itself: its rate, channels and width, every other sample as it was.",
    ),
]
Rounds = Annotated[
    int,
    option(help="Times that every step is taken, so that new and old agree (RePaint)."),
    Between(1, 100),
]


@dataclass(frozen=True)
class Regions:
    """Where to edit."""

    begin: Annotated[
        list[float],
        option("--from", metavar="SECONDS", show_default=False, help="Begin of a region.  Repeatable."),
        Between(0),
    ] = field(default_factory=list)
    end: Annotated[
        list[float],
        option("--to", metavar="SECONDS", show_default=False, help="End of the region of each --from."),
        Between(0),
    ] = field(default_factory=list)

    def pairs(self) -> list[tuple[float, float]]:
        """(from, to) of every region."""
        if len(self.begin) != len(self.end):
            raise AudioLDMError(
                f"{len(self.begin)} --from and {len(self.end)} --to were given.",
                "Give one --to for each --from.",
            )
        pairs = list(zip(self.begin, self.end, strict=True))
        for begin, end in pairs:
            if begin >= end:
                raise AudioLDMError(f"region {begin:g}-{end:g} s is empty.", "Give --from below --to.")
        return pairs


@dataclass(frozen=True)
class Takes:
    """Everything that an edit has in common with the others."""

    n: Annotated[int, option("-n", "--number", help="Takes of the edit."), Between(1, 10_000)] = 1
    seed: Annotated[
        int, option(help="Seed of the first take; the next ones have seed+1, ..."), Between(0, 2**62 - 1)
    ] = 0
    schedule: Annotated[
        str | None, Setting("Prompts over time instead of one.", '"0-5 rain; 5-12 thunder"')
    ] = None
    steps: Steps = field(default_factory=Steps)
    guidance: Guidance = field(default_factory=Guidance)
    output: Output = field(default_factory=Output)
    model: ModelOptions = field(default_factory=ModelOptions)

    def settings(self) -> dict[str, Any]:
        """What is not left to the model, by the pipeline's names."""
        return {**self.steps.settings(), **self.guidance.settings()}
