"""Which clips to make of which prompts."""

from typing import TYPE_CHECKING, Any

from audioldm.cli.options import Between, Group, option, setting, weighted
from audioldm.errors import AudioLDMError
from audioldm.pipeline.spans import Span, parse_schedule

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM

SEEDS = Between(0, 2**62 - 1)


def schedule_setting() -> Any:
    """Prompts that change over time; edits have it, too."""
    return setting(None, "Prompts over time instead of one.", '"0-5 rain; 5-12 thunder"')


class Prompts(Group):
    """Prompts, how many clips of each, and how a clip goes on in time."""

    panel = "Prompt"
    prompts: str | None = option(
        None,
        "Many prompts: .txt (one a line), .csv or .jsonl with columns prompt, seed, seconds, steps, guidance, "
        "negative, audio_prompt, out; - is standard input.",
        "FILE",
    )
    n: int = option(1, "Clips per prompt.", "-n", "--number", Between(1, 1_000_000))
    seed: int = option(0, "Seed of the first clip; the next ones have seed+1, seed+2, ...", SEEDS)
    interpolate_to: str | None = option(
        None,
        "From the prompt towards this one: a clip of the same seed for each SHARE.  [default: 0.5]",
        "TEXT[:SHARE,...]",
    )
    schedule: str | None = schedule_setting()
    loop: bool = setting(False, "Let the end go over into the begin; whole latent frames long.")
    rerank: int = setting(
        1,
        "Candidates for each clip, of which the one is kept that CLAP finds nearest to the prompt.",
        Between(1, 1000),
    )
    batch_size: int = setting(1, "Clips made at once.", Between(1, 4096))

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
