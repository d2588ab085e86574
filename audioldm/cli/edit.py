"""``audioldm edit``: a sound file in, an edited one out."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.checks import check_share
from audioldm.cli.editing import read_prompt, run
from audioldm.cli.options import grouped
from audioldm.cli.options.course import Schedule
from audioldm.cli.options.editing import How, Input, Regions, Rounds, Splice, Strength, Words
from audioldm.errors import AudioLDMError

edit = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@edit.callback()
def group() -> None:
    """Edit sound: any format, rate, channels and length in.

    Results are named after the input, the edit, the prompt and the seed, and come with a picture and every
    setting, as those of generate. They have the model's rate and one channel, except with --splice.

    \b
    Examples:
      audioldm edit transfer guitar.wav "a church bell"
      audioldm edit inpaint talk.flac "birds singing" --from 2.5 --to 3.1 --splice
      audioldm edit upscale old.mp3
      audioldm edit inpaint --help
    """


@edit.command()
@grouped
def transfer(
    file: Input,
    prompt: Words = "",
    schedule: Schedule = None,
    strength: Strength = 0.5,
    invert: Annotated[
        bool,
        typer.Option("--invert", help="Begin from the sound's own noise (DDIM inversion), not from new."),
    ] = False,
    source: Annotated[
        str, typer.Option(metavar="TEXT", help="With --invert: what the sound is, in words.")
    ] = "",
    *,
    regions: Regions,
    splice: Splice = False,
    how: How,
) -> None:
    """Make a sound like the prompt, keeping its course: noise up to --strength, then denoise (SDEdit).

    \b
    Examples:
      audioldm edit transfer guitar.wav "a church bell" --strength 0.6
      audioldm edit transfer dog.ogg "a rooster crowing" --invert --source "a dog barking" -n 3
      audioldm edit transfer walk.wav "steps in snow" --from 2 --to 4 --splice
    """
    check_share(strength=strength)
    told, where = read_prompt(prompt, schedule), regions.pairs()
    run(
        "transfer", [file], prompt or schedule or "", how, splice=splice, regions=where,
        act=lambda edits, pipe, waves, **settings: edits.transfer(
            pipe, waves[0], told, strength=strength, invert=invert, source=source, regions=where or None, **settings
        ),
        options={"strength": strength, "invert": invert, "source": source, "regions": where},
    )  # fmt: skip


@edit.command()
@grouped
def inpaint(
    file: Input,
    prompt: Words = "",
    schedule: Schedule = None,
    *,
    regions: Regions,
    rounds: Rounds = 1,
    splice: Splice = False,
    how: How,
) -> None:
    """Make regions anew so that they fit the rest.

    \b
    Examples:
      audioldm edit inpaint talk.flac "birds singing" --from 2.5 --to 3.1 --splice
      audioldm edit inpaint sea.wav "sea waves" --from 1 --to 2 --from 6 --to 7.5 --rounds 5
    """
    told, where = read_prompt(prompt, schedule), regions.pairs()
    if not where:
        raise AudioLDMError("There is no region to make anew.", "Give --from and --to in seconds.")
    run(
        "inpaint", [file], prompt or schedule or "", how, splice=splice, regions=where,
        act=lambda edits, pipe, waves, **settings: edits.inpaint(
            pipe, waves[0], told, regions=where, rounds=rounds, **settings
        ),
        options={"regions": where, "rounds": rounds},
    )  # fmt: skip


@edit.command()
@grouped
def outpaint(
    file: Input,
    prompt: Words = "",
    schedule: Schedule = None,
    before: Annotated[float, typer.Option(metavar="SECONDS", help="How much earlier to begin.")] = 0.0,
    after: Annotated[float, typer.Option(metavar="SECONDS", help="How much longer to go on.")] = 0.0,
    *,
    rounds: Rounds = 1,
    splice: Splice = False,
    how: How,
) -> None:
    """Let a sound begin earlier or go on longer.

    \b
    Examples:
      audioldm edit outpaint thunder.wav "thunder and rain" --before 2 --after 4
    """
    extend("outpaint", file, prompt, schedule, before, after, rounds, splice, how)


@edit.command("continue")
@grouped
def continue_(
    file: Input,
    prompt: Words = "",
    schedule: Schedule = None,
    seconds: Annotated[float, typer.Option(help="How much longer to go on.")] = 5.0,
    *,
    rounds: Rounds = 1,
    splice: Splice = False,
    how: How,
) -> None:
    """Let a sound go on.

    \b
    Examples:
      audioldm edit continue rain.wav "rain falling" --seconds 30
      audioldm edit continue rain.wav "rain falling" --seconds 8 --splice -n 4
    """
    extend("continue", file, prompt, schedule, 0.0, seconds, rounds, splice, how)


@edit.command()
@grouped
def upscale(
    file: Input,
    prompt: Words = "",
    cutoff: Annotated[
        float | None,
        typer.Option(metavar="HZ", help="Make what is above.  [default: where the sound's band ends]"),
    ] = None,
    *,
    how: How,
) -> None:
    """Super-resolution: make the missing high band, keep the low band as it is.

    \b
    Examples:
      audioldm edit upscale phone.wav
      audioldm edit upscale old.mp3 "a violin" --cutoff 4000
    """
    run(
        "upscale", [file], prompt, how,
        act=lambda edits, pipe, waves, **settings: edits.upscale(pipe, waves[0], prompt, cutoff=cutoff, **settings),
        options={"cutoff": cutoff},
    )  # fmt: skip


@edit.command()
@grouped
def vary(
    file: Input,
    prompt: Words = "",
    strength: Strength = 0.6,
    *,
    regions: Regions,
    splice: Splice = False,
    how: How,
) -> None:
    """Other takes of the same sound; without a prompt, the sound itself says what to hear (by CLAP).

    \b
    Examples:
      audioldm edit vary footstep.wav -n 8 --strength 0.4
    """
    check_share(strength=strength)
    where = regions.pairs()
    run(
        "vary", [file], prompt, how, splice=splice, regions=where,
        act=lambda edits, pipe, waves, **settings: edits.vary(
            pipe, waves[0], prompt, strength=strength, regions=where or None, **settings
        ),
        options={"strength": strength, "regions": where},
    )  # fmt: skip


@edit.command()
@grouped
def denoise(
    file: Input,
    prompt: Words = "",
    strength: Strength = 0.0,
    resynthesise: Annotated[
        bool, typer.Option("--resynthesise", help="Give the model's sound, not the input turned down.")
    ] = False,
    *,
    how: How,
) -> None:
    """Turn noise down: first what never stops, then what the model does not believe in.

    \b
    Examples:
      audioldm edit denoise field.wav
      audioldm edit denoise field.wav "a bird singing" --strength 0.4
    """
    check_share(strength=strength)
    run(
        "denoise", [file], prompt, how,
        act=lambda edits, pipe, waves, **settings: edits.denoise(
            pipe, waves[0], prompt, strength=strength, resynthesise=resynthesise, **settings
        ),
        options={"strength": strength, "resynthesise": resynthesise},
    )  # fmt: skip


def extend(
    name: str,
    file: Path,
    prompt: str,
    schedule: str | None,
    before: float,
    after: float,
    rounds: int,
    splice: bool,
    how: How,
) -> None:
    """Outpaint, under either name."""
    if min(before, after) < 0 or before + after == 0:
        raise AudioLDMError(
            f"{before:g} s before and {after:g} s after add nothing.", "Use more than 0 seconds."
        )
    told = read_prompt(prompt, schedule)
    run(
        name, [file], prompt or schedule or "", how, splice=splice, before=before, after=after,
        act=lambda edits, pipe, waves, **settings: edits.outpaint(
            pipe, waves[0], told, before=before, after=after, rounds=rounds, **settings
        ),
        options={"before": before, "after": after, "rounds": rounds},
    )  # fmt: skip
