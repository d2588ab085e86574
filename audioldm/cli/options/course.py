"""How a sound goes on in time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.errors import AudioLDMError
from audioldm.pipeline.spans import Span, parse_schedule

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

Schedule = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help='Prompts over time instead of one: "0-5 rain; 5-12 thunder".'),
]


@dataclass(frozen=True)
class Timeline:
    """Prompts over time, and loops."""

    schedule: Schedule = None
    loop: Annotated[
        bool, typer.Option("--loop", help="Let the end go over into the begin; whole latent frames long.")
    ] = False

    def spans(self, *, prompted: bool) -> list[Span] | None:
        """The schedule, None without one; not beside other prompts."""
        if self.schedule is None:
            return None
        if prompted:
            raise AudioLDMError("A prompt and --schedule were both given.", "Give one of them.")
        return parse_schedule(self.schedule)

    def seconds(self, pipe: "AudioLDM", spans: list[Span] | None, given: float | None) -> dict[str, Any]:
        """The length where it is not the one asked for: that of the schedule, or of whole frames."""
        from audioldm.pipeline.longform import loop_frames

        length = spans[-1].end if spans and given is None else given
        if self.loop:
            length = loop_frames(pipe, length or pipe.defaults.seconds) * pipe.spec.seconds_per_latent
        return {} if length is None else {"seconds": length}
