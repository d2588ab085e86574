"""``audioldm edit morph`` and ``mix``: several sound files in, one out."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.checks import check_share
from audioldm.cli.editing import run
from audioldm.cli.options import grouped
from audioldm.cli.options.editing import How, Input, Strength
from audioldm.errors import AudioLDMError


@grouped
def morph(
    first: Input,
    second: Annotated[Path, typer.Argument(help="The other sound file.")],
    prompts: Annotated[
        tuple[str, str],
        typer.Option(
            metavar="FIRST SECOND", help="What each is, in words.  [default: by CLAP]", show_default=False
        ),
    ] = ("", ""),
    at: Annotated[
        float | None, typer.Option(help="Where between the two: 0 to 1.  [default: from one to the other]")
    ] = None,
    strength: Strength = 0.6,
    *,
    how: How,
) -> None:
    """From one sound to another: latents on the great arc between them, prompts along.

    \b
    Examples:
      audioldm edit morph wind.wav sea.wav
      audioldm edit morph dog.wav rooster.wav --at 0.5 --prompts "a dog barking" "a rooster crowing"
    """
    check_share(strength=strength, at=at)
    run(
        "morph", [first, second], " ".join(filter(None, prompts)), how,
        act=lambda edits, pipe, waves, **settings: edits.morph(
            pipe, *waves, prompts, at=at, strength=strength, **settings
        ),
        options={"at": at, "strength": strength, "prompts": prompts},
    )  # fmt: skip


@grouped
def mix(
    files: Annotated[list[Path], typer.Argument(help="Two sound files or more.", show_default=False)],
    gain: Annotated[
        list[float] | None, typer.Option(metavar="DB", help="Gain of each file.  Repeatable.")
    ] = None,
    at: Annotated[
        list[float] | None, typer.Option(metavar="SECONDS", help="When each file begins.  Repeatable.")
    ] = None,
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="The scene, in words.  [default: by CLAP]")
    ] = "",
    strength: Annotated[
        float, typer.Option(help="0 is the sum; more renders it again as one scene, 1 ignores it.")
    ] = 0.0,
    *,
    how: How,
) -> None:
    """Put sounds together, and if asked for, render them as one scene.

    \b
    Examples:
      audioldm edit mix rain.wav thunder.wav --gain 0 --gain -6 --at 0 --at 2.5
      audioldm edit mix rain.wav dog.wav --strength 0.3 --prompt "a dog barking in the rain"
    """
    check_share(strength=strength)
    for name, values in (("gain", gain), ("at", at)):
        if values and len(values) != len(files):
            raise AudioLDMError(f"{len(files)} files but {len(values)} --{name}.", "Give one for each file.")
    run(
        "mix", files, prompt, how,
        act=lambda edits, pipe, waves, **settings: edits.mix(
            pipe, waves, prompt, gains=gain or None, offsets=at or None, strength=strength, **settings
        ),
        options={"gain": gain, "at": at, "strength": strength},
    )  # fmt: skip
