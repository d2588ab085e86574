"""``audioldm generate``: prompts in, sounds out."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.progress import progress, waiting
from audioldm.cli.prompts import read_prompts
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.outputs import Clip, Files, Level, Wave


@dataclass(frozen=True)
class Job:
    """What to do with every clip once it is made."""

    folder: Path
    audio_format: str
    normalize: bool
    figure: bool


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
    seconds: Annotated[
        float | None, typer.Option(help="Length of each clip.  [default: the model's]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [default: the model's]")] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sampler.  [default: the model's]")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(metavar="NAME", help="Noise levels to visit.  [default: the model's]")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How strictly to follow the prompt; 1 is no guidance.  [default: the model's]"),
    ] = None,
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What not to hear.")] = "",
    polish: Annotated[
        int | None,
        typer.Option(help="Rounds of Griffin-Lim after the vocoder; 0 is none.  [default: the model's]"),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the first clip; the next ones have seed+1, seed+2, ...")
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="FOLDER", help="Model folder.  [default: the embedded model]"),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("out"),
    audio_format: Annotated[
        str, typer.Option("--format", metavar="wav|flac", help="16-bit sound file format.")
    ] = "wav",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Number type of the networks: float32, bfloat16 or float16.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(help="Clips made at once.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list instead of paths.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite results that exist.")] = False,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale each clip to a peak of -1 dBFS.")
    ] = False,
    figure: Annotated[
        bool, typer.Option("--figure/--no-figure", help="Draw waveform and log-mel as PNG.")
    ] = True,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make sounds from text.

    For each clip: PROMPT_seedN.wav, .png (waveform and log-mel) and .json (every setting, model and weight
    hashes, versions). Paths go to standard output, progress to standard error. The clip at place i of all
    prompts times -n has seed SEED+i, and the same seed gives the same sound alone or among others.

    \b
    Examples:
      audioldm generate "a dog barking"
      audioldm generate "rain on a tin roof" -n 4 --seconds 10 --steps 50 --seed 7 -o out/rain
      audioldm generate "church bells" --sampler ddim --guidance 2.5 --negative "noise"
      audioldm generate --prompts prompts.csv --json --no-figure > results.json
      echo "waves on a beach" | audioldm generate - --format flac
      audioldm generate "a rooster" -m runs/my_model --device cuda --force
    """
    check_numbers(
        n=n, seconds=seconds, steps=steps, guidance=guidance, seed=seed, batch_size=batch_size, polish=polish
    )
    check_names(audio_format=audio_format, device=device, dtype=dtype, out=out)
    job = Job(out, audio_format, normalize, figure)
    clips = plan_outputs(read_prompts(prompt, prompts), n, job, seed=seed, force=force)
    with waiting("loading torch and the model"):
        check_parts(sampler=sampler, grid=grid, device=device)
        pipe = load(model, device=device, dtype=dtype)
    given = {
        "seconds": seconds, "steps": steps, "sampler": sampler, "grid": grid, "guidance": guidance, "polish": polish,
    }  # fmt: skip
    size = batch_size or (8 if pipe.device.type == "cuda" else 1)
    settings = {
        **pipe.defaults,
        **{name: value for name, value in given.items() if value is not None},
        "negative": negative,
    }
    results = []
    with progress(len(clips) * settings["steps"]) as advance:
        for clip, wave in make(pipe, clips, settings, batch_size=size, advance=advance):
            results.append(save(pipe, clip, wave, settings, job))
            if not as_json:
                tell(results[-1])
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))


def plan_outputs(prompts: list[str], n: int, job: Job, *, seed: int, force: bool) -> list["Clip"]:
    """The clips to make, once it is sure that their files can be written."""
    from audioldm.pipeline import outputs

    clips = outputs.plan(prompts, n, seed=seed)
    if not force:
        outputs.check_free(path for clip in clips for path in files_of(clip, job).all())
    outputs.check_writable(job.folder)
    return clips


def files_of(clip: "Clip", job: Job) -> "Files":
    """Where ``clip`` goes."""
    from audioldm.pipeline import outputs

    return outputs.files_of(clip, job.folder, audio_format=job.audio_format, figure=job.figure)


def load(model: str | None, *, device: str, dtype: str) -> "AudioLDM":
    """The pipeline of ``model``, or of the embedded one."""
    import diffusers
    import torch
    import transformers

    from audioldm.pipeline.audioldm import AudioLDM

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()  # their advice is for programmers
    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return AudioLDM.from_pretrained(model, device=chosen, dtype=getattr(torch, dtype))


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
                [clip.prompt for clip in group], seeds=[clip.seed for clip in group], batch_size=batch_size,
                on_step=partial(advance, len(group)), **settings,
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise AudioLDMError(
                f"Out of memory with batch-size={batch_size}.",
                "Use --batch-size 1 or less --seconds.",
                code=1,
            ) from error
        yield from zip(group, waves.float().cpu().numpy(), strict=True)


def save(pipe: "AudioLDM", clip: "Clip", wave: "Wave", settings: dict[str, Any], job: Job) -> dict[str, Any]:
    """Write the files of one clip together; returns what ``--json`` prints."""
    from audioldm.pipeline import outputs

    files = files_of(clip, job)
    level = outputs.level(wave)
    wave = outputs.normalized(wave) if job.normalize else wave
    record = describe(pipe, clip, settings, job, level)
    contents = {files.sidecar: (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()}
    if files.figure:
        from audioldm.cli import figure

        contents[files.figure] = figure.draw(wave, pipe.spec, title=f"{clip.prompt}   (seed {clip.seed})")
    contents[files.audio] = outputs.audio_bytes(wave, pipe.spec.rate, audio_format=job.audio_format)
    outputs.publish(contents)
    tell_clipping(files.audio, level, normalize=job.normalize)
    paths = {"audio": files.audio, "figure": files.figure, "sidecar": files.sidecar}
    return {**{name: str(path) if path else None for name, path in paths.items()}, **record}


def describe(
    pipe: "AudioLDM", clip: "Clip", settings: dict[str, Any], job: Job, level: "Level"
) -> dict[str, Any]:
    """The sidecar: all that is needed to make the clip again, and how loud it came out."""
    from audioldm.pipeline import outputs

    return {
        "prompt": clip.prompt,
        "seed": clip.seed,
        "settings": {**settings, "device": str(pipe.device), "dtype": str(pipe.dtype).removeprefix("torch.")},
        "model": {"name": pipe.name, "sha256": pipe.hashes},
        "sound": {
            "rate_hz": pipe.spec.rate,
            "seconds": level.samples / pipe.spec.rate,
            "format": job.audio_format,
            "normalized": job.normalize,
            **asdict(level),
        },
        "versions": outputs.versions(),
    }


def tell_clipping(path: Path, level: "Level", *, normalize: bool) -> None:
    """Say on stderr how much of a clip is at full scale, and what helps."""
    scaled = normalize and level.peak > 1
    if level.clipped == 0 or scaled:
        return
    cure = (
        "Use --normalize to scale instead."
        if level.peak > 1
        else "The vocoder is at its limit: lower --guidance."
    )
    note = f"{level.clipped} of {level.samples} samples clipped (peak {level.peak:.2f} of full scale)."
    print(f"audioldm: {path}: {note} {cure}", file=sys.stderr)


def tell(result: dict[str, Any]) -> None:
    """Print the paths of one clip, the sound first."""
    for name in ("audio", "figure", "sidecar"):
        if result[name]:
            print(result[name], flush=True)
