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

# Each edit is a command whose ``keywords`` are what the function of its name in ``audioldm.pipeline.edit`` takes.

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.clips import Clip, check_names, check_outputs, file_of, stem_of
from audioldm.cli.console import progress, say, waiting
from audioldm.cli.making import Making
from audioldm.cli.options import Between, argument, changed, group, option
from audioldm.cli.options.groups import Takes
from audioldm.cli.results import save
from audioldm.cli.startup import loading
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.sounds import Sound
    from audioldm.pipeline.spans import Span

SECONDS = Between(0, 1800)


class Edit(Making):
    """One edit of files."""

    panel = "Edit"
    takes: Takes = Takes()

    @classmethod
    def name(cls) -> str:
        """On the command line and in results."""
        return cls.__name__.lower()

    def files(self) -> list[Path]:
        """The sounds that it reads."""
        return [path for path in vars(self).values() if isinstance(path, Path)]

    def text(self) -> str:
        """The prompt as the results are named after it."""
        return str(vars(self)["prompt"])

    def keywords(self) -> dict[str, Any]:
        """What the function takes beside sounds, prompt and settings; the sidecar shows it."""
        names = type(self).__annotations__.keys() - {"first", "second"}
        return {name: value for name, value in vars(self).items() if name in names}

    def subjects(self, waves: "list[Tensor]", prompt: Any) -> "list[Any]":
        """What the function edits, in its order."""
        return [waves[0], prompt]

    @property
    def splices(self) -> bool:
        """Whether the new part is put into the file itself."""
        return bool(vars(self).get("splice"))

    def results(self) -> Iterator[dict[str, Any]]:
        """Make and save every take."""
        prompt, clips, keywords = self.prompted(), self.plan(), self.keywords()
        with waiting("loading torch and the model"), loading():
            from audioldm.pipeline import edit, sounds
            from audioldm.pipeline.edit import check_regions

            files = [sounds.read(path) for path in self.files()]
            self.check_libraries()
            if regions := keywords.get("regions"):
                check_regions(regions, files[0].seconds)
            self.tell(dict(zip(self.files(), files, strict=True)))
            if self.output.dry_run:
                self.show_plan([(clip, self.options(clip)) for clip in clips], "takes")
                return
            pipe, config, settings = self.load()
        del settings["seconds"]
        record = self.record({**settings, **config.settings()})
        function: Callable[..., Tensor] = getattr(edit, MAKERS.get(self.name(), self.name()))
        subjects = self.subjects([file.mono(pipe.spec.rate) for file in files], prompt)
        with progress(len(clips) * 100, "hundredths") as advance:
            for clip in clips:
                wave = function(
                    pipe, *subjects, seed=clip.seed, guidance_config=config, on_step=hundredths(advance),
                    **keywords, **settings,
                )  # fmt: skip
                file = self.spliced(files[0], wave, pipe) if self.splices else None
                wave = wave if file is None else file.mono(pipe.spec.rate)
                about = {**record, "options": self.options(clip)}
                yield save(pipe, clip, wave.float().cpu().numpy(), about, self.output, file=file)

    def options(self, clip: Clip) -> dict[str, Any]:
        """The options that make one take, by which ``--replay`` makes it again."""
        takes = replace(self.takes, n=1, seed=0)
        return changed(replace(self, takes=takes, output=self.output.alone(clip.audio_format)))

    def tell(self, files: "dict[Path, Sound]") -> None:
        """What becomes of the channels of each file, and what it is that nobody would edit."""
        for path, sound in files.items():
            for note in sound.notes(splice=self.splices):
                splice = "become one" in note and hasattr(self, "splice")
                say(f"{path}: {note}{'; --splice keeps those outside of a region' if splice else ''}.")

    def record(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What the sidecar says of how the takes were made."""
        from audioldm.paths import sha256

        inputs = [{"path": str(path), "sha256": sha256(path)} for path in self.files()]
        about = {
            "edit": self.name(),
            "inputs": inputs,
            "splice": self.splices,
            "schedule": self.takes.schedule,
        }
        return {"command": f"edit {self.name()}", "settings": {**settings, **about, **self.keywords()}}

    def prompted(self) -> "str | list[Span]":
        """The prompt, or prompts over time."""
        from audioldm.pipeline.spans import parse_schedule

        self.check()
        if self.takes.schedule is None:
            return self.text()
        if self.text():
            raise AudioLDMError(f"prompt={self.text()!r} and schedule were both given.", "Give one of them.")
        return parse_schedule(self.takes.schedule)

    def plan(self) -> list[Clip]:
        """The takes, ``INPUT_EDIT_PROMPT_seedN`` unless ``--out`` names a file, which can be written."""
        takes, text = self.takes, self.text() or self.takes.schedule or ""
        title = " ".join([*(path.stem for path in self.files()), self.name(), text])
        clips = [
            Clip(text, seed, stem, title, audio_format)
            for seed in range(takes.seed, takes.seed + takes.n)
            for stem, audio_format in [file_of(None, stem_of(title, seed), self.output)]
        ]
        groups = [[clip] for clip in clips]
        check_names(groups, self.output)
        if self.splices:
            self.check_splice(clips[0].audio_format)
        check_outputs(groups, self.output)
        return clips

    def check_splice(self, audio_format: str) -> None:
        """Refuse to put a part into the file where there is no part, or the file could not stay as it was."""
        output, keywords = self.output, self.keywords()
        if not any(keywords.get(name) for name in ("regions", "before", "after")):
            raise AudioLDMError(
                "--splice needs a region to put into the file.", "Give --from and --to in seconds."
            )
        if output.normalize or output.lufs is not None:
            raise AudioLDMError(
                "--normalize and --lufs would change what --splice keeps.", "Leave out one of them."
            )
        if audio_format not in ("wav", "flac"):
            what = f"format={audio_format} would change what --splice keeps."
            raise AudioLDMError(what, "Use wav or flac.")

    def spliced(self, file: "Sound", wave: "Tensor", pipe: "AudioLDM") -> "Sound":
        """``file`` with the new parts of ``wave`` in it."""
        from audioldm.pipeline.edit import FADE
        from audioldm.pipeline.sounds import splice_into

        keywords = self.keywords()
        before, after = keywords.get("before", 0.0), keywords.get("after", 0.0)
        ends = [(0.0, before), (before + file.seconds, before + file.seconds + after)]
        new = [*(keywords.get("regions") or ()), *(end for end in ends if end[1] > end[0])]
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


def strength_option(default: float, help: str = "0 keeps the sound, 1 ignores it.") -> Any:
    """How much of the sound is made anew."""
    return option(default, help, Between(0, 1))


def rounds_option() -> Any:
    """RePaint's repetitions."""
    help = "Times that every step is taken, so that new and old agree (RePaint)."
    return option(1, help, Between(1, 100))


class OneFile(Edit):
    """An edit of one sound by one prompt."""

    file: Path = argument(..., "Sound file: any format, rate, channels, length.")
    prompt: str = argument("", "What to hear, in quotes.")


class Spliced(OneFile):
    """An edit that can be put into the file."""

    splice: bool = option(
        False,
        "Put the new part into the file itself: its rate, channels and width, every other sample as it was.",
    )


class Regional(Spliced):
    """An edit of a whole sound, or of regions."""

    begin: list[float] = option([], "Begin of a region.  Repeatable.", "--from", "SECONDS", Between(0))
    end: list[float] = option([], "End of the region of each --from.", "--to", "SECONDS", Between(0))

    def keywords(self) -> dict[str, Any]:
        """Also (from, to) of every region, None without any."""
        if len(self.begin) != len(self.end):
            counts = f"{len(self.begin)} --from and {len(self.end)} --to"
            raise AudioLDMError(f"{counts} were given.", "Give one --to for each --from.")
        pairs = list(zip(self.begin, self.end, strict=True))
        for begin, end in pairs:
            if begin >= end:
                raise AudioLDMError(f"region {begin:g}-{end:g} s is empty.", "Give --from below --to.")
        return {**super().keywords(), "regions": pairs or None}


class Transfer(Regional):
    """Make a sound like the prompt, keeping its course: noise up to --strength, then denoise (SDEdit).

    \b
    Examples:
      audioldm edit transfer guitar.wav "a church bell" --strength 0.6
      audioldm edit transfer dog.ogg "a rooster crowing" --invert --source "a dog barking" -n 3
      audioldm edit transfer walk.wav "steps in snow" --from 2 --to 4 --splice
      audioldm edit transfer walk.wav --set schedule="0-2 steps in snow; 2-5 steps in mud"
    """

    strength: float = strength_option(0.5)
    invert: bool = option(False, "Begin from the sound's own noise (DDIM inversion), not from new.")
    source: str = option("", "With --invert: what the sound is, in words.", "TEXT")


class Inpaint(Regional):
    """Make regions anew so that they fit the rest.

    \b
    Examples:
      audioldm edit inpaint talk.flac "birds singing" --from 2.5 --to 3.1 --splice
      audioldm edit inpaint sea.wav "sea waves" --from 1 --to 2 --from 6 --to 7.5 --rounds 5
    """

    rounds: int = rounds_option()

    def keywords(self) -> dict[str, Any]:
        """There must be a region."""
        if not self.begin and not self.end:
            raise AudioLDMError("There is no region to make anew.", "Give --from and --to in seconds.")
        return super().keywords()


class Outpaint(Spliced):
    """Let a sound begin earlier or go on longer.

    \b
    Examples:
      audioldm edit outpaint thunder.wav "thunder and rain" --before 2 --after 4
    """

    before: float = option(0.0, "How much earlier to begin.", "SECONDS", SECONDS)
    after: float = option(0.0, "How much longer to go on.", "SECONDS", SECONDS)
    rounds: int = rounds_option()

    def keywords(self) -> dict[str, Any]:
        """There must be something to add."""
        if self.before + self.after == 0:
            raise AudioLDMError("0 s before and 0 s after add nothing.", "Use more than 0 seconds.")
        return super().keywords()


class Continue(Spliced):
    """Let a sound go on.

    \b
    Examples:
      audioldm edit continue rain.wav "rain falling" --seconds 30
      audioldm edit continue rain.wav "rain falling" --seconds 8 --splice -n 4
    """

    seconds: float = option(5.0, "How much longer to go on.", Between(0, 1800, above=True))
    rounds: int = rounds_option()

    def keywords(self) -> dict[str, Any]:
        """As outpainting takes them."""
        return {"before": 0.0, "after": self.seconds, "rounds": self.rounds}


class Upscale(OneFile):
    """Super-resolution: make the missing high band, keep the low band as it is.

    \b
    Examples:
      audioldm edit upscale phone.wav
      audioldm edit upscale old.mp3 "a violin" --cutoff 4000
    """

    cutoff: float | None = option(
        None, "Make what is above.  [default: where the sound's band ends]", "HZ", Between(0, above=True)
    )


class Vary(Regional):
    """Other takes of the same sound; without a prompt, the sound itself says what to hear (by CLAP).

    \b
    Examples:
      audioldm edit vary footstep.wav -n 8 --strength 0.4
    """

    strength: float = strength_option(0.6)


class Denoise(OneFile):
    """Turn noise down: first what never stops, then what the model does not believe in.

    \b
    Examples:
      audioldm edit denoise field.wav
      audioldm edit denoise field.wav "a bird singing" --strength 0.4
    """

    strength: float = strength_option(0.0)
    resynthesise: bool = option(False, "Give the model's sound, not the input turned down.")


class Morph(Edit):
    """From one sound to another: latents on the great arc between them, prompts along.

    \b
    Examples:
      audioldm edit morph wind.wav sea.wav
      audioldm edit morph dog.wav rooster.wav --at 0.5 --prompts "a dog barking" "a rooster crowing"
    """

    first: Path = argument(..., "Sound file: any format, rate, channels, length.")
    second: Path = argument(..., "The other sound file.")
    prompts: tuple[str, str] = option(("", ""), "What each is, in words.  [default: by CLAP]", "FIRST SECOND")
    at: float | None = option(
        None, "Where between the two: 0 to 1.  [default: from one to the other]", Between(0, 1)
    )
    strength: float = strength_option(0.6)

    def text(self) -> str:
        if self.takes.schedule is not None:
            raise AudioLDMError("A morph has two prompts and no schedule.", "Use --prompts FIRST SECOND.")
        return " ".join(filter(None, self.prompts))

    def subjects(self, waves: "list[Tensor]", prompt: Any) -> "list[Any]":
        return [*waves]


class Mix(Edit):
    """Put sounds together, and if asked for, render them as one scene.

    \b
    Examples:
      audioldm edit mix rain.wav thunder.wav --gain 0 --gain -6 --at 0 --at 2.5
      audioldm edit mix rain.wav dog.wav --strength 0.3 --prompt "a dog barking in the rain"
    """

    sounds: list[Path] = argument(..., "Two sound files or more.", "FILES...")
    gain: list[float] = option([], "Gain of each file.  Repeatable.", "DB", Between(-120, 120))
    at: list[float] = option([], "When each file begins.  Repeatable.", "SECONDS", SECONDS)
    prompt: str = option("", "The scene, in words.  [default: by CLAP]", "TEXT")
    strength: float = strength_option(0.0, "0 is the sum; more renders it again as one scene, 1 ignores it.")

    def files(self) -> list[Path]:
        return self.sounds

    def keywords(self) -> dict[str, Any]:
        """Gains and begins, one a file."""
        for name, values in (("gain", self.gain), ("at", self.at)):
            if values and len(values) != len(self.sounds):
                counts = f"{len(self.sounds)} files but {len(values)} --{name}."
                raise AudioLDMError(counts, "Give one for each file.")
        return {"gains": self.gain or None, "offsets": self.at or None, "strength": self.strength}

    def subjects(self, waves: "list[Tensor]", prompt: Any) -> "list[Any]":
        return [waves, prompt]


EDITS: dict[str, type[Edit]] = {
    kind.name(): kind for kind in (Transfer, Inpaint, Outpaint, Continue, Upscale, Vary, Denoise, Morph, Mix)
}
MAKERS = {"continue": "outpaint"}
"""edits that are not made by the function of their name"""
app = group(__doc__, EDITS)
