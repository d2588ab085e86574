"""``audioldm edit``: sound files in, an edited one out."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.checks import check_free, check_parts
from audioldm.cli.clips import SUFFIX, Clip, files_of, stem_of
from audioldm.cli.console import printable, progress, say, waiting
from audioldm.cli.options import Between, changed, grouped
from audioldm.cli.options.guidance import warn_of_unused
from audioldm.cli.options.output import Output
from audioldm.cli.options.takes import Input, Prompt, Regions, Rounds, Splice, Strength, Takes, option
from audioldm.cli.results import check_format, save, show
from audioldm.cli.startup import loading
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.sounds import Sound
    from audioldm.pipeline.spans import Span

Pairs = Sequence[tuple[float, float]]
LOSSLESS = ("wav", "flac")
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


@dataclass(frozen=True)
class Edit:
    """One edit of files: the function of ``audioldm.pipeline.edit`` that makes it, and its options."""

    name: str
    files: Sequence[Path]
    prompt: str
    options: dict[str, Any]
    """keywords of the function, and what the sidecar shows"""
    splice: bool = False
    added: tuple[float, float] = (0.0, 0.0)
    """seconds before and after the sound"""
    function: str = ""
    act: "Callable[..., Tensor] | None" = field(default=None, repr=False)
    """(function, pipe, waves, prompt, **settings) -> wave, where it is not one wave and one prompt"""

    def run(self, how: Takes) -> None:
        """Make every take and print where it is."""
        prompt, clips = self.check(how)
        with waiting("loading torch and the model"), loading():
            from audioldm.pipeline import edit, sounds

            files = [sounds.read(path) for path in self.files]
            for path, file in zip(self.files, files, strict=True):
                for note in file.notes(splice=self.splice):
                    say(f"{path}: {note}.")
            check_parts(sampler=how.steps.sampler, grid=how.steps.grid, device=how.model.device)
            how.guidance.check(how.steps.sampler)
            if how.output.dry_run:
                self.list_takes(clips, how)
                return
            pipe = how.model.load()
            config = how.guidance.config(how.model)
        settings = {
            name: v for name, v in {**vars(pipe.defaults), **how.settings()}.items() if name != "seconds"
        }
        config.check(sampler=settings["sampler"], scale=settings["guidance"], negative=how.guidance.negative)
        warn_of_unused(settings)
        record = {
            "settings": {
                **settings, **config.settings(), "edit": self.name, "inputs": digests(self.files),
                "splice": self.splice, "schedule": how.schedule, **self.options,
            },
            "options": changed(how.steps, how.guidance, how.model),
        }  # fmt: skip
        function = getattr(edit, self.function or self.name)
        act = self.act or (lambda run, pipe, waves, text, **rest: run(pipe, waves[0], text, **rest))
        waves, results = [file.mono(pipe.spec.rate) for file in files], []
        with progress(len(clips) * 100, "hundredths") as advance:
            for clip in clips:
                wave = act(
                    function, pipe, waves, prompt, seed=clip.seed, guidance_config=config,
                    on_step=hundredths(advance), **self.options, **settings,
                )  # fmt: skip
                file = self.spliced(files[0], wave, pipe) if self.splice else None
                wave = wave if file is None else file.mono(pipe.spec.rate)
                results.append(save(pipe, clip, wave.float().cpu().numpy(), record, how.output, file=file))
                if not how.output.as_json:
                    show(results[-1])
        if how.output.as_json:
            print(json.dumps(results, indent=2, ensure_ascii=False))

    def check(self, how: Takes) -> "tuple[str | list[Span], list[Clip]]":
        """The prompt, or prompts over time, and the takes, once it is sure that their files can be written."""
        from audioldm.pipeline.outputs import check_writable
        from audioldm.pipeline.spans import parse_schedule

        how.output.check()
        how.model.check()
        if self.prompt and how.schedule:
            raise AudioLDMError(f"prompt={self.prompt!r} and schedule were both given.", "Give one of them.")
        if self.splice and not (self.options.get("regions") or any(self.added)):
            raise AudioLDMError(
                "--splice needs a region to put into the file.", "Give --from and --to in seconds."
            )
        if self.splice and (how.output.normalize or how.output.lufs is not None):
            raise AudioLDMError(
                "--normalize and --lufs would change what --splice keeps.", "Leave out one of them."
            )
        clips = self.plan(how.output, how)
        check_free(
            [path for clip in clips for path in files_of(clip, how.output).all()], force=how.output.force
        )
        check_writable(how.output.folder)
        return self.prompt if how.schedule is None else parse_schedule(how.schedule), clips

    def plan(self, output: Output, how: Takes) -> list[Clip]:
        """The takes, ``INPUT_EDIT_PROMPT_seedN`` unless ``--out`` names a file."""
        text = self.prompt or how.schedule or ""
        title = " ".join([*(path.stem for path in self.files), self.name, text])
        audio_format = output.audio_format or (output.out.suffix[1:].lower() if output.is_file else "wav")
        if output.is_file and (how.n > 1 or SUFFIX[audio_format] != output.out.suffix[1:].lower()):
            raise AudioLDMError(f"out={output.out} is one {output.out.suffix[1:]} file.", "Name a folder.")
        if self.splice and audio_format not in LOSSLESS:
            raise AudioLDMError(
                f"format={audio_format} would change what --splice keeps.", "Use wav or flac."
            )
        check_format(audio_format)
        seeds = range(how.seed, how.seed + how.n)
        stems = [output.out.stem if output.is_file else stem_of(title, seed) for seed in seeds]
        return [Clip(text, seed, stem, title, audio_format) for seed, stem in zip(seeds, stems, strict=True)]

    def list_takes(self, clips: list[Clip], how: Takes) -> None:
        """Print what would be made."""
        options = {
            **{name: v for name, v in self.options.items() if v},
            **changed(how.steps, how.guidance, how.model),
        }
        rest = "".join(f"  {name}={value}" for name, value in options.items())
        for clip in clips:
            print(printable(f"{files_of(clip, how.output).audio}  {clip.prompt!r}  seed={clip.seed}{rest}"))
        say(f"dry run: {len(clips)} takes would be made.")

    def spliced(self, file: "Sound", wave: "Tensor", pipe: "AudioLDM") -> "Sound":
        """``file`` with the new parts of ``wave`` in it."""
        from audioldm.pipeline.canvas import FADE
        from audioldm.pipeline.sounds import splice_into

        before, after = self.added
        ends = [(0.0, before), (before + file.seconds, before + file.seconds + after)]
        new = [*(self.options.get("regions") or ()), *(end for end in ends if end[1] > end[0])]
        return splice_into(file.padded(before, after), wave, pipe.spec.rate, new, fade=FADE)


def hundredths(advance: Callable[..., None]) -> Callable[[int, int], None]:
    """An ``on_step`` that moves the bar of one take by 100 in all, however many steps there are."""
    before = 0

    def on_step(done: int, steps: int) -> None:
        nonlocal before
        now = 100 * done // steps
        advance(now - before)
        before = now

    return on_step


def digests(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Path and sha256 of every input."""
    return [{"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in paths]


@edit.command()
@grouped
def transfer(
    file: Input,
    prompt: Prompt = "",
    *,
    strength: Strength = 0.5,
    invert: Annotated[
        bool,
        option("--invert", help="Begin from the sound's own noise (DDIM inversion), not from new."),
    ] = False,
    source: Annotated[str, option(metavar="TEXT", help="With --invert: what the sound is, in words.")] = "",
    regions: Regions,
    splice: Splice = False,
    how: Takes,
) -> None:
    """Make a sound like the prompt, keeping its course: noise up to --strength, then denoise (SDEdit).

    \b
    Examples:
      audioldm edit transfer guitar.wav "a church bell" --strength 0.6
      audioldm edit transfer dog.ogg "a rooster crowing" --invert --source "a dog barking" -n 3
      audioldm edit transfer walk.wav "steps in snow" --from 2 --to 4 --splice
      audioldm edit transfer walk.wav --set schedule="0-2 steps in snow; 2-5 steps in mud"
    """
    options = {"strength": strength, "invert": invert, "source": source, "regions": regions.pairs() or None}
    Edit("transfer", [file], prompt, options, splice=splice).run(how)


@edit.command()
@grouped
def inpaint(
    file: Input,
    prompt: Prompt = "",
    *,
    regions: Regions,
    rounds: Rounds = 1,
    splice: Splice = False,
    how: Takes,
) -> None:
    """Make regions anew so that they fit the rest.

    \b
    Examples:
      audioldm edit inpaint talk.flac "birds singing" --from 2.5 --to 3.1 --splice
      audioldm edit inpaint sea.wav "sea waves" --from 1 --to 2 --from 6 --to 7.5 --rounds 5
    """
    if not (where := regions.pairs()):
        raise AudioLDMError("There is no region to make anew.", "Give --from and --to in seconds.")
    Edit("inpaint", [file], prompt, {"regions": where, "rounds": rounds}, splice=splice).run(how)


Seconds = Between(0, 1800)


@edit.command()
@grouped
def outpaint(
    file: Input,
    prompt: Prompt = "",
    *,
    before: Annotated[float, option(metavar="SECONDS", help="How much earlier to begin."), Seconds] = 0.0,
    after: Annotated[float, option(metavar="SECONDS", help="How much longer to go on."), Seconds] = 0.0,
    rounds: Rounds = 1,
    splice: Splice = False,
    how: Takes,
) -> None:
    """Let a sound begin earlier or go on longer.

    \b
    Examples:
      audioldm edit outpaint thunder.wav "thunder and rain" --before 2 --after 4
    """
    if before + after == 0:
        raise AudioLDMError("0 s before and 0 s after add nothing.", "Use more than 0 seconds.")
    options = {"before": before, "after": after, "rounds": rounds}
    Edit("outpaint", [file], prompt, options, splice=splice, added=(before, after)).run(how)


@edit.command("continue")
@grouped
def continue_(
    file: Input,
    prompt: Prompt = "",
    *,
    seconds: Annotated[float, option(help="How much longer to go on."), Between(0, 1800, above=True)] = 5.0,
    rounds: Rounds = 1,
    splice: Splice = False,
    how: Takes,
) -> None:
    """Let a sound go on.

    \b
    Examples:
      audioldm edit continue rain.wav "rain falling" --seconds 30
      audioldm edit continue rain.wav "rain falling" --seconds 8 --splice -n 4
    """
    options = {"before": 0.0, "after": seconds, "rounds": rounds}
    Edit("continue", [file], prompt, options, splice=splice, added=(0.0, seconds), function="outpaint").run(
        how
    )


@edit.command()
@grouped
def upscale(
    file: Input,
    prompt: Prompt = "",
    *,
    cutoff: Annotated[
        float | None,
        option(metavar="HZ", help="Make what is above.  [default: where the sound's band ends]"),
        Between(0, above=True),
    ] = None,
    how: Takes,
) -> None:
    """Super-resolution: make the missing high band, keep the low band as it is.

    \b
    Examples:
      audioldm edit upscale phone.wav
      audioldm edit upscale old.mp3 "a violin" --cutoff 4000
    """
    Edit("upscale", [file], prompt, {"cutoff": cutoff}).run(how)


@edit.command()
@grouped
def vary(
    file: Input,
    prompt: Prompt = "",
    *,
    strength: Strength = 0.6,
    regions: Regions,
    splice: Splice = False,
    how: Takes,
) -> None:
    """Other takes of the same sound; without a prompt, the sound itself says what to hear (by CLAP).

    \b
    Examples:
      audioldm edit vary footstep.wav -n 8 --strength 0.4
    """
    options = {"strength": strength, "regions": regions.pairs() or None}
    Edit("vary", [file], prompt, options, splice=splice).run(how)


@edit.command()
@grouped
def denoise(
    file: Input,
    prompt: Prompt = "",
    *,
    strength: Strength = 0.0,
    resynthesise: Annotated[
        bool, option("--resynthesise", help="Give the model's sound, not the input turned down.")
    ] = False,
    how: Takes,
) -> None:
    """Turn noise down: first what never stops, then what the model does not believe in.

    \b
    Examples:
      audioldm edit denoise field.wav
      audioldm edit denoise field.wav "a bird singing" --strength 0.4
    """
    Edit("denoise", [file], prompt, {"strength": strength, "resynthesise": resynthesise}).run(how)


@edit.command()
@grouped
def morph(
    first: Input,
    second: Annotated[Path, typer.Argument(help="The other sound file.")],
    *,
    prompts: Annotated[
        tuple[str, str],
        option(
            metavar="FIRST SECOND", help="What each is, in words.  [default: by CLAP]", show_default=False
        ),
    ] = ("", ""),
    at: Annotated[
        float | None,
        option(help="Where between the two: 0 to 1.  [default: from one to the other]"),
        Between(0, 1),
    ] = None,
    strength: Strength = 0.6,
    how: Takes,
) -> None:
    """From one sound to another: latents on the great arc between them, prompts along.

    \b
    Examples:
      audioldm edit morph wind.wav sea.wav
      audioldm edit morph dog.wav rooster.wav --at 0.5 --prompts "a dog barking" "a rooster crowing"
    """
    if how.schedule is not None:
        raise AudioLDMError("A morph has two prompts and no schedule.", "Use --prompts FIRST SECOND.")
    text = " ".join(filter(None, prompts))
    options = {"prompts": prompts, "at": at, "strength": strength}
    act = lambda run, pipe, waves, _, **rest: run(pipe, *waves, **rest)  # noqa: E731
    Edit("morph", [first, second], text, options, act=act).run(how)


@edit.command()
@grouped
def mix(
    files: Annotated[list[Path], typer.Argument(help="Two sound files or more.", show_default=False)],
    *,
    gain: Annotated[
        list[float] | None, option(metavar="DB", help="Gain of each file.  Repeatable."), Between(-120, 120)
    ] = None,
    at: Annotated[
        list[float] | None, option(metavar="SECONDS", help="When each file begins.  Repeatable."), Seconds
    ] = None,
    prompt: Annotated[str, option(metavar="TEXT", help="The scene, in words.  [default: by CLAP]")] = "",
    strength: Annotated[
        float, option(help="0 is the sum; more renders it again as one scene, 1 ignores it."), Between(0, 1)
    ] = 0.0,
    how: Takes,
) -> None:
    """Put sounds together, and if asked for, render them as one scene.

    \b
    Examples:
      audioldm edit mix rain.wav thunder.wav --gain 0 --gain -6 --at 0 --at 2.5
      audioldm edit mix rain.wav dog.wav --strength 0.3 --prompt "a dog barking in the rain"
    """
    for name, values in (("gain", gain), ("at", at)):
        if values and len(values) != len(files):
            raise AudioLDMError(f"{len(files)} files but {len(values)} --{name}.", "Give one for each file.")
    options = {"gains": gain or None, "offsets": at or None, "strength": strength}
    act = lambda run, pipe, waves, text, **rest: run(pipe, waves, text, **rest)  # noqa: E731
    Edit("mix", files, prompt, options, act=act).run(how)
