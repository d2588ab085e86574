"""``audioldm generate``: prompts in, sounds out."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.options import grouped
from audioldm.cli.options.course import Course
from audioldm.cli.options.guiding import Guiding
from audioldm.cli.options.machine import Machine
from audioldm.cli.options.output import Output
from audioldm.cli.options.sampling import Sampling
from audioldm.cli.progress import progress, waiting
from audioldm.cli.prompts import read_prompts
from audioldm.cli.results import files_of, save, tell
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.outputs import Clip, Wave


@grouped
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to hear, in quotes; - reads prompts from standard input.", show_default=False
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Prompts: .txt (one per line), .csv or .jsonl (prompt or caption)."
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Clips per prompt.")] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of the first clip; the next ones have seed+1, seed+2, ...")
    ] = 0,
    *,
    course: Course,
    sampling: Sampling,
    guiding: Guiding,
    machine: Machine,
    output: Output,
    batch_size: Annotated[int, typer.Option(help="Clips made at once.")] = 1,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make sounds from text.

    For each clip: PROMPT_seedN.wav, .png (waveform and log-mel) and .json (every setting, model and weight
    hashes, versions). Paths go to standard output, progress to standard error. The clip at place i of all
    prompts times -n has seed SEED+i, and the same seed gives the same sound alone or among others. What is longer
    than the model's own length is made in overlapped windows, with the memory of one.

    \b
    Examples:
      audioldm generate "a dog barking"
      audioldm generate "rain on a tin roof" -n 4 --seconds 10 --steps 50 --seed 7 -o out/rain
      audioldm generate "church bells" --sampler ddim:eta=0.5 --grid karras --guidance 2.5 --negative "noise"
      audioldm generate "church bells" --guidance 6 --guidance-method rescale:phi=0.7 --guidance-interval 0.3 5
      audioldm generate "rain falling" --seconds 60 --loop
      audioldm generate --schedule "0-5 rain; 5-12 thunder and rain; 12-20 wind"
      audioldm generate --prompts prompts.csv --json --no-figure > results.json
      echo "waves on a beach" | audioldm generate - --format flac
      audioldm generate "a rooster" -m runs/my_model --device cuda --force
    """
    check_numbers(
        n=n, seconds=sampling.seconds, steps=sampling.steps, guidance=guiding.guidance, seed=seed,
        batch_size=batch_size, polish=sampling.polish,
    )  # fmt: skip
    check_names(audio_format=output.audio_format, device=machine.device, dtype=machine.dtype, out=output.out)
    spans = course.spans(prompted=prompt is not None or prompts is not None)
    asked = [course.schedule or ""] if spans else read_prompts(prompt, prompts)
    clips = plan_outputs(asked, n, output, seed=seed)
    with waiting("loading torch and the model"):
        check_parts(sampler=sampling.sampler, grid=sampling.grid, device=machine.device)
        guiding.check(sampling.sampler)
        pipe = machine.load()
        guide = guiding.guide(machine)
    settings = {**pipe.defaults, **sampling.given(), **guiding.given()}
    settings |= course.seconds(pipe, spans, sampling.seconds)
    guide.check(sampler=settings["sampler"], scale=settings["guidance"], negative=guiding.negative)
    shown = {**settings, **guide.settings(), **vars(course)}
    told = {**settings, "guide": guide, "schedule": spans, "loop": course.loop}
    results = []
    with progress(len(clips) * settings["steps"]) as advance:
        for clip, wave in make(pipe, clips, told, batch_size=batch_size, advance=advance):
            results.append(save(pipe, clip, wave, shown, output))
            if not output.as_json:
                tell(results[-1])
    if output.as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))


def plan_outputs(prompts: list[str], n: int, output: Output, *, seed: int) -> list["Clip"]:
    """The clips to make, once it is sure that their files can be written."""
    from audioldm.pipeline import outputs

    clips = outputs.plan(prompts, n, seed=seed)
    if not output.force:
        outputs.check_free(path for clip in clips for path in files_of(clip, output).all())
    outputs.check_writable(output.out)
    return clips


def make(
    pipe: "AudioLDM",
    clips: list["Clip"],
    settings: dict[str, Any],
    *,
    batch_size: int,
    advance: Callable[..., None],
) -> Iterator[tuple["Clip", "Wave"]]:
    """Each clip with its wave (N,), as soon as its batch is done."""
    import torch

    for first in range(0, len(clips), batch_size):
        group = clips[first : first + batch_size]
        try:
            waves = pipe(
                [clip.prompt for clip in group], seeds=[clip.seed for clip in group],
                batch_size=batch_size, on_step=partial(advance, len(group)), **settings,
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise AudioLDMError(
                f"Out of memory with batch-size={batch_size}.",
                "Use --batch-size 1 or less --seconds.",
                code=1,
            ) from error
        yield from zip(group, waves.float().cpu().numpy(), strict=True)
