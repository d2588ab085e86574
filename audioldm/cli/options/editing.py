"""What the edits share: takes, regions, the file's own samples, and all groups as one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from audioldm.cli.options.guiding import Guiding
from audioldm.cli.options.machine import ModelOptions
from audioldm.cli.options.output import Output
from audioldm.cli.options.sampling import Steps
from audioldm.errors import AudioLDMError

Input = Annotated[Path, typer.Argument(help="Sound file: any format, rate, channels, length.")]
Words = Annotated[str, typer.Argument(help="What to hear, in quotes.")]
Strength = Annotated[float, typer.Option(help="0 keeps the sound, 1 ignores it.")]
Splice = Annotated[
    bool,
    typer.Option(
        "--splice",
        help="Put the new part into the file itself: its rate, channels and width, every other sample as it was.",
    ),
]
Rounds = Annotated[
    int, typer.Option(help="Times that every step is taken, so that new and old agree (RePaint).")
]


@dataclass(frozen=True)
class Takes:
    """How many, and with which noise."""

    n: Annotated[int, typer.Option("-n", "--number", help="Takes of the edit.")] = 1
    seed: Annotated[int, typer.Option(help="Seed of the first take; the next ones have seed+1, ...")] = 0


@dataclass(frozen=True)
class Regions:
    """Where to edit."""

    begin: Annotated[
        list[float],
        typer.Option("--from", metavar="SECONDS", show_default=False, help="Begin of a region.  Repeatable."),
    ] = field(default_factory=list)
    end: Annotated[
        list[float],
        typer.Option("--to", metavar="SECONDS", show_default=False, help="End of the region of each --from."),
    ] = field(default_factory=list)

    def pairs(self) -> list[tuple[float, float]]:
        """(from, to) of every region."""
        if len(self.begin) != len(self.end):
            raise AudioLDMError(
                f"{len(self.begin)} --from and {len(self.end)} --to were given.",
                "Give one --to for each --from.",
            )
        for begin, end in zip(self.begin, self.end, strict=True):
            if not 0 <= begin < end:
                raise AudioLDMError(f"region {begin:g}-{end:g} s is empty.", "Give --from below --to.")
        return list(zip(self.begin, self.end, strict=True))


@dataclass(frozen=True)
class How:
    """Everything that an edit has in common with the others."""

    takes: Takes
    steps: Steps
    guiding: Guiding
    machine: ModelOptions
    output: Output
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False

    def given(self) -> dict[str, Any]:
        """The settings that were asked for, by the pipeline's names."""
        return {**self.steps.given(), **self.guiding.given()}
