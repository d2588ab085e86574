"""Which clips to make of which prompts."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.options import Between, Setting, weighted
from audioldm.errors import AudioLDMError
from audioldm.pipeline.spans import Span, parse_schedule

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

option = partial(typer.Option, rich_help_panel="Prompt", show_default=False)


@dataclass(frozen=True)
class Prompts:
    """Prompts, how many clips of each, and how a clip goes on in time."""

    prompts: Annotated[
        str | None,
        option(
            metavar="FILE",
            help="Many prompts: .txt (one a line), .csv or .jsonl with columns prompt, seed, seconds, steps, guidance, "
            "negative, audio_prompt, out; - is standard input.",
        ),
    ] = None
    n: Annotated[
        int, option("-n", "--number", help="Clips per prompt.  [default: 1]"), Between(1, 1_000_000)
    ] = 1
    seed: Annotated[
        int,
        option(help="Seed of the first clip; the next ones have seed+1, seed+2, ...  [default: 0]"),
        Between(0, 2**62 - 1),
    ] = 0
    interpolate_to: Annotated[
        str | None,
        option(
            metavar="TEXT[:SHARE,...]",
            help="From the prompt towards this one: a clip of the same seed for each SHARE.  [default: 0.5]",
        ),
    ] = None
    schedule: Annotated[
        str | None, Setting("Prompts over time instead of one.", '"0-5 rain; 5-12 thunder"')
    ] = None
    loop: Annotated[bool, Setting("Let the end go over into the begin; whole latent frames long.")] = False
    rerank: Annotated[
        int,
        Setting("Candidates for each clip, of which the one is kept that CLAP finds nearest to the prompt."),
        Between(1, 1000),
    ] = 1
    batch_size: Annotated[int, Setting("Clips made at once."), Between(1, 4096)] = 1

    def spans(self, *, prompted: bool) -> list[Span] | None:
        """The schedule, None without one; not beside other prompts."""
        if self.schedule is None:
            return None
        if prompted:
            raise AudioLDMError("A prompt and schedule were both given.", "Give one of them.")
        if self.interpolate_to is not None or self.rerank > 1:
            raise AudioLDMError("schedule does not go with --interpolate-to or rerank.", "Leave one out.")
        return parse_schedule(self.schedule)

    def shares(self) -> tuple[str, list[float]]:
        """The second prompt and the places on the way to it; ("", [0.0]) without one."""
        if self.interpolate_to is None:
            return "", [0.0]
        return weighted(self.interpolate_to, "interpolate-to", [0.5], Between(0, 1))

    def length(self, pipe: "AudioLDM", spans: list[Span] | None, seconds: float | None) -> dict[str, Any]:
        """The seconds where they are not the model's: as asked for, of the schedule, or of whole frames of a loop."""
        from audioldm.pipeline.longform import loop_frames

        length = spans[-1].end if spans and seconds is None else seconds
        if self.loop:
            length = loop_frames(pipe, length or pipe.defaults.seconds) * pipe.spec.seconds_per_latent
        return {} if length is None else {"seconds": length}
