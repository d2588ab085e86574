"""``audioldm generate``: prompts in, sounds out."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.lean import import_nets, loading
from audioldm.cli.options import grouped
from audioldm.cli.options.course import Timeline
from audioldm.cli.options.guiding import Guiding
from audioldm.cli.options.machine import ModelOptions
from audioldm.cli.options.mixing import Mixer, Mixing
from audioldm.cli.options.output import Output
from audioldm.cli.options.sampling import Sampling
from audioldm.cli.options.steering import Steering
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
    course: Timeline,
    mixing: Mixing,
    sampling: Sampling,
    guiding: Guiding,
    steering: Steering,
    machine: ModelOptions,
    output: Output,
    batch_size: Annotated[int, typer.Option(help="Clips made at once.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave clips whose files are there and make the others.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make sounds from text.

    For each clip: PROMPT_seedN.wav, .png (waveform and log-mel) and .json (every setting, model and weight
    hashes, versions). Paths go to standard output, progress to standard error. The clip at place i of all
    prompts times -n has seed SEED+i, and the same seed gives the same sound alone or among others. With
    --rerank K it has K seeds from SEED+i*K on; the winner's is in its name, all scores are in the .json. What is
    longer than the model's own length is made in overlapped windows, with the memory of one. A clip that fails
    does not end the others.

    \b
    Examples:
      audioldm generate "a dog barking"
      audioldm generate "rain on a tin roof" -n 4 --seconds 10 --steps 50 --seed 7 -o out/rain
      audioldm generate "church bells" --sampler ddim:eta=0.5 --grid karras --guidance 2.5 --negative "noise"
      audioldm generate "church bells" --guidance 6 --guidance-method rescale:phi=0.7 --guidance-interval 0.3 5
      audioldm generate --guidance-classifier runs/embedded/classifier/model/classifier --guidance-class rooster
      audioldm generate "rain falling" --seconds 60 --loop
      audioldm generate "a sword hitting a shield" --retry-silent 8
      audioldm generate --schedule "0-5 rain; 5-12 thunder and rain; 12-20 wind"
      audioldm generate "rain" --towards "wind:0,0.5,1" --rerank 4
      audioldm generate "a big dog" --like my_dog.wav:0.6
      audioldm generate "rain" --control loudness=ref.wav:0.8
      audioldm generate "a recording of <mine>" --adapter mine.safetensors --adapter hall.safetensors:0.6
      audioldm generate --prompts prompts.csv --json --no-figure > results.json
      audioldm generate --prompts prompts.csv --batch-size 8 --resume --mode fast
      echo "waves on a beach" | audioldm generate - --format flac
      audioldm generate "a rooster" -m runs/my_model --device cuda --force
    """
    check_numbers(
        n=n, seconds=sampling.seconds, steps=sampling.steps, guidance=guiding.guidance, seed=seed,
        batch_size=batch_size, refine_phase=sampling.refine_phase, retry_silent=sampling.retry_silent,
    )  # fmt: skip
    check_names(
        audio_format=output.audio_format,
        device=machine.device,
        dtype=machine.dtype,
        out=output.out,
        mode=machine.mode,
    )
    prompted = prompt is not None or prompts is not None
    alone = not prompted and (mixing.like is not None or guiding.guidance_class is not None)
    spans = course.spans(prompted=prompted)
    mixing.check(alone=alone, scheduled=bool(spans))
    asked = steering.check(mixing.like)
    mixed = mixing if steering.like_net is None else replace(mixing, like=None)
    texts = [course.schedule or ""] if spans or alone else read_prompts(prompt, prompts)
    named = guiding.guidance_class if alone else None
    clips = plan_outputs(texts, n, mixing, output, seed=seed, resume=resume, named=named)
    if not clips:
        print("audioldm: every clip is there already.", file=sys.stderr)
        return
    with waiting("loading torch and the model"), loading():
        import_nets()
        check_parts(sampler=sampling.sampler, grid=sampling.grid, device=machine.device)
        guiding.check(sampling.sampler)
        pipe = machine.load()
        guide, mixer = guiding.guide(machine), mixed.mixer(pipe)
    settings = {**vars(pipe.defaults), **sampling.given(), **guiding.given()}
    settings |= course.seconds(pipe, spans, sampling.seconds)
    like = None if mixing.like is None else mixing.reference(alone=alone)
    pipe = steering.steer(pipe, asked, settings["seconds"], like)
    guide.check(sampler=settings["sampler"], scale=settings["guidance"], negative=guiding.negative)
    shown = {**settings, **guide.settings(), **vars(course)}
    shown |= {"controls": [one.settings() for one in pipe.controls]} if pipe.controls else {}
    told = {**settings, "guidance_config": guide, "timeline": spans, "loop": course.loop}
    results, failures = [], list[AudioLDMError]()
    with progress(len(clips) * settings["steps"]) as advance:
        made = make(pipe, clips, told, mixer, batch_size=batch_size, advance=advance, failures=failures)
        for group in iter(lambda: list(islice(made, mixing.rerank)), []):
            candidates = [(clip, wave) for clip, wave in group if wave is not None]
            if not candidates:
                continue
            clip, wave, ranks = best(pipe, candidates, mixer)
            results.append(save(pipe, clip, wave, {**shown, **mixed.settings(clip), **ranks}, output))
            if not output.as_json:
                tell(results[-1])
            warn_of_silence(clip, wave)
    if output.as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    if failures:
        raise AudioLDMError(
            f"{len(failures)} of {len(clips)} clips failed.", "--resume makes what is missing.", code=1
        )


def warn_of_silence(clip: "Clip", wave: "Wave") -> None:
    """Say on stderr that a clip holds nothing to hear."""
    from torch import from_numpy

    from audioldm.pipeline.draws import silent

    if silent(from_numpy(wave)[None]):
        print(
            f"audioldm: {clip.prompt!r}, seed {clip.seed}, came out silent. Try another --seed, "
            "more --retry-silent or less --guidance.",
            file=sys.stderr,
        )


def plan_outputs(
    texts: list[str],
    n: int,
    mixing: Mixing,
    output: Output,
    *,
    seed: int,
    resume: bool,
    named: str | None = None,
) -> list["Clip"]:
    """The clips to make, candidates of one clip in a row, once it is sure that their files can be written.

    ``named`` is what they are named after where they have no prompt.
    """
    from audioldm.pipeline import outputs

    planned = outputs.plan(texts, n * mixing.rerank, seed=seed)
    clips = mixing.plan([replace(clip, named=named) for clip in planned])
    if resume:
        if mixing.rerank > 1 or output.force:
            raise AudioLDMError("resume does not go with rerank or force.", "Leave one of them out.")
        clips = [clip for clip in clips if not all(p.exists() for p in files_of(clip, output).all())]
    elif not output.force:
        outputs.check_free(path for clip in clips for path in files_of(clip, output).all())
    outputs.check_writable(output.out)
    return clips


def make(
    pipe: "AudioLDM",
    clips: list["Clip"],
    settings: dict[str, Any],
    mixer: Mixer,
    *,
    batch_size: int,
    advance: Callable[..., None],
    failures: list[AudioLDMError],
) -> Iterator[tuple["Clip", "Wave | None"]]:
    """Each clip with its wave (N,), as soon as its batch is done; None for one that failed, told in ``failures``.

    A batch that fails is taken apart, so that only the clips that fail alone are lost.   A single clip just raises.
    """
    queue = [clips[first : first + batch_size] for first in range(0, len(clips), batch_size)]
    while queue:
        group = queue.pop(0)
        try:
            waves = run(pipe, group, settings, mixer, advance=advance)
        except AudioLDMError as error:
            if len(clips) == 1 or error.code != 1:
                raise
            if len(group) > 1:
                queue = [[clip] for clip in group] + queue
                continue
            print(f"audioldm: {group[0].prompt!r}, seed {group[0].seed}: {error}", file=sys.stderr)
            failures.append(error)
            yield group[0], None
            continue
        yield from zip(group, waves, strict=True)


def run(
    pipe: "AudioLDM",
    group: list["Clip"],
    settings: dict[str, Any],
    mixer: Mixer,
    *,
    advance: Callable[..., None],
) -> "Iterable[Wave]":
    """The waves (N,) of one batch; want of memory becomes an AudioLDMError."""
    import torch

    try:
        waves = pipe(
            [mixer(clip) for clip in group], seeds=[clip.seed for clip in group],
            batch_size=len(group), on_step=partial(advance, len(group)), **settings,
        )  # fmt: skip
    except torch.OutOfMemoryError as error:
        raise AudioLDMError(
            f"Out of memory with batch-size={len(group)}.", "Use --batch-size 1 or less --seconds.", code=1
        ) from error
    return waves.float().cpu().numpy()


def best(
    pipe: "AudioLDM", candidates: list[tuple["Clip", "Wave"]], mixer: Mixer
) -> tuple["Clip", "Wave", dict[str, Any]]:
    """The candidate that CLAP finds nearest to what was asked, and how near each came; a single one is not judged."""
    if len(candidates) == 1:
        return *candidates[0], {}
    import torch

    from audioldm.pipeline.conditions import clap_scores

    waves = torch.stack([torch.from_numpy(wave) for _, wave in candidates])
    scores = clap_scores(pipe, waves, mixer.asked(candidates[0][0])).tolist()
    clip, wave = candidates[scores.index(max(scores))]
    told = [{"seed": clip.seed, "clap": score} for (clip, _), score in zip(candidates, scores, strict=True)]
    return clip, wave, {"rerank": {"kept": clip.seed, "candidates": told}}
