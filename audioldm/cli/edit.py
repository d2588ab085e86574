"""Edit sound: any format, rate, channels and length in.

Results are named after the input, the edit, the prompt and the seed, and come with a picture and every
setting, as those of generate. They have the model's rate and one channel, except with --splice.
"""

# Each edit is a command whose ``keywords`` are what the function of its name in ``audioldm.pipeline.edit`` takes.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from audioldm.cli.clips import Clip, Row, check_outputs, plan
from audioldm.cli.console import progress, say, waiting
from audioldm.cli.options import POSITIVE, SHARE, Between, argument, changed, group, option
from audioldm.cli.options.groups import Pipe, Prompts, Takes
from audioldm.cli.results import Making, save
from audioldm.cli.startup import later, loading
from audioldm.errors import AudioLDMError
from audioldm.paths import sha256

with later():
    import torch

    from audioldm.pipeline import edit, sounds

SECONDS = Between(0, 1800)
KEEPS = "0 keeps the sound, 1 ignores it."
ROUNDS = "Times that every step is taken, so that new and old agree (RePaint).", Between(1, 100)


class Edit(Making):
    panel = "Edit"
    splice = False
    takes: Takes = Takes()

    @classmethod
    def name(cls) -> str:
        return cls.__name__.lower()

    def files(self) -> list[Path]:
        return [path for path in vars(self).values() if isinstance(path, Path)]

    def text(self) -> str:
        return str(vars(self)["prompt"])

    def keywords(self) -> dict[str, Any]:
        """What the function takes beside sounds, prompt and settings; the sidecar shows it."""
        names = type(self).__annotations__.keys() - {"first", "second"}
        return {name: value for name, value in vars(self).items() if name in names}

    def subjects(self, waves: list[torch.Tensor], prompt: Any) -> list[Any]:
        return [waves[0], prompt]

    def edited(self, pipe: Pipe, waves: list[torch.Tensor], prompt: Any, **settings: Any) -> torch.Tensor:
        """One take of waves (N,) at the model's rate; settings as for the functions of ``pipeline.edit``."""
        function = getattr(edit, "outpaint" if self.name() == "continue" else self.name())
        wave: torch.Tensor = function(pipe, *self.subjects(waves, prompt), **self.keywords(), **settings)
        return wave

    def options(self, clip: Clip) -> dict[str, Any]:
        """The options that make one take, by which ``--replay`` makes it again."""
        takes = replace(self.takes, n=1, seed=0)
        return changed(replace(self, takes=takes, output=self.output.alone(clip.audio_format)))

    def results(self) -> Iterator[dict[str, Any]]:
        prompt, keywords = self.takes.spans(self.text()) or self.text(), self.keywords()
        clips, name = self.plan(), self.name()
        with waiting("loading torch and the model"), loading():
            files = list(map(sounds.read, self.files()))
            self.check()
            self.check_sounds(files)
            if self.output.dry_run:
                self.show_plan([(clip, self.options(clip)) for clip in clips], "takes")
                return
            pipe, config, settings = self.load()
        del settings["seconds"]
        inputs = [{"path": str(path), "sha256": sha256(path)} for path in self.files()]
        about = {"edit": name, "inputs": inputs, "splice": self.splice, "schedule": self.takes.schedule}
        made_by = {**settings, **config.settings(), **about, **keywords}
        waves = [file.mono(pipe.spec.rate) for file in files]
        with progress(len(clips), "takes") as advance:
            for clip in clips:
                take = {"seed": clip.seed, "on_step": lambda _, steps: advance(1 / steps)}
                wave = self.edited(pipe, waves, prompt, guidance_config=config, **take, **settings)
                file = None
                if self.splice:
                    file = self.spliced(files[0], wave, pipe)
                    wave = file.mono(pipe.spec.rate)
                record = {"command": f"edit {name}", "settings": made_by, "options": self.options(clip)}
                yield save(pipe, clip, wave.float().cpu().numpy(), record, self.output, file=file)

    def check_sounds(self, files: list[sounds.Sound]) -> None:
        """Refuse regions that are not in the sound, and say what of the files an edit does not keep."""
        regions = self.keywords().get("regions", [])
        if (regions is None and self.name() == "inpaint") or regions:
            edit.check_regions(regions or [], files[0].seconds)
        for path, sound in dict(zip(self.files(), files, strict=True)).items():
            for note in sound.notes(splice=self.splice):
                could = "become one" in note and isinstance(self, Spliced)
                say(f"{path}: {note}{'; --splice keeps those outside of a region' * could}.")

    def plan(self) -> list[Clip]:
        """The takes, ``INPUT_EDIT_PROMPT_seedN`` unless ``--out`` names a file, which can be written."""
        takes, text, output = self.takes, self.text() or self.takes.schedule or "", self.output
        title = " ".join([*(path.stem for path in self.files()), self.name(), text])
        clips = [*chain(*plan([Row("", "edit")], Prompts(n=takes.n, seed=takes.seed), output, title=title))]
        clips = [replace(clip, prompt=text) for clip in clips]
        if self.splice:
            self.check_splice(clips[0].audio_format)
        check_outputs([[clip] for clip in clips], output)
        output.check_free(*chain(*(clip.files(output).values() for clip in clips)))
        return clips

    def check_splice(self, kind: str) -> None:
        if not any(map(self.keywords().get, ("regions", "before", "after"))):
            raise AudioLDMError("--splice needs a region to put into the file.", "Give --from and --to.")
        if self.output.normalize or self.output.lufs is not None:
            what = "--normalize and --lufs would change what --splice keeps."
            raise AudioLDMError(what, "Leave out one of them.")
        if kind not in ("wav", "flac"):
            raise AudioLDMError(f"format={kind} would change what --splice keeps.", "Use wav or flac.")

    def spliced(self, file: sounds.Sound, wave: torch.Tensor, pipe: Pipe) -> sounds.Sound:
        keywords = self.keywords()
        before, after = keywords.get("before", 0.0), keywords.get("after", 0.0)
        ends = [(0.0, before), (before + file.seconds, before + file.seconds + after)]
        new = [*(keywords.get("regions") or ()), *(end for end in ends if end[1] > end[0])]
        return sounds.splice_into(file.padded(before, after), wave, pipe.spec.rate, new, fade=edit.FADE)


class OneFile(Edit):
    file: Path = argument(..., "Sound file: any format, rate, channels, length.")
    prompt: str = argument("", "What to hear, in quotes.")


class Spliced(OneFile):
    """An edit that can be put into the file."""

    splice: bool = option(False, "Put the new part into the file itself; every other sample stays as it was.")


class Regional(Spliced):
    begin: list[float] = option([], "Begin of a region.", "--from", "SECONDS", Between(0))
    end: list[float] = option([], "End of the region of each --from.", "--to", "SECONDS", Between(0))

    def keywords(self) -> dict[str, Any]:
        """Also (from, to) of every region, None without any."""
        if len(self.begin) != len(self.end):
            counts = f"{len(self.begin)} --from and {len(self.end)} --to"
            raise AudioLDMError(f"{counts} were given.", "Give one --to for each --from.")
        return {**super().keywords(), "regions": list(zip(self.begin, self.end, strict=True)) or None}


class Transfer(Regional):
    """Make a sound like the prompt, keeping its course: noise up to --strength, then denoise (SDEdit).

    Examples:
      audioldm edit transfer guitar.wav "a church bell" --strength 0.6
      audioldm edit transfer dog.ogg "a rooster crowing" --invert --source "a dog barking" -n 3
      audioldm edit transfer walk.wav "steps in snow" --from 2 --to 4 --splice
      audioldm edit transfer walk.wav --set schedule="0-2 steps in snow; 2-5 steps in mud"
    """

    strength: float = option(0.5, KEEPS, SHARE)
    invert: bool = option(False, "Begin from the sound's own noise (DDIM inversion), not from new.")
    source: str = option("", "With --invert: what the sound is, in words.", "TEXT")


class Inpaint(Regional):
    """Make regions anew so that they fit the rest.

    Examples:
      audioldm edit inpaint talk.flac "birds singing" --from 2.5 --to 3.1 --splice
      audioldm edit inpaint sea.wav "sea waves" --from 1 --to 2 --from 6 --to 7.5 --rounds 5
    """

    rounds: int = option(1, *ROUNDS)


class Outpaint(Spliced):
    """Let a sound begin earlier or go on longer.

    Examples:
      audioldm edit outpaint thunder.wav "thunder and rain" --before 2 --after 4
    """

    before: float = option(0.0, "How much earlier to begin.", "SECONDS", SECONDS)
    after: float = option(0.0, "How much longer to go on.", "SECONDS", SECONDS)
    rounds: int = option(1, *ROUNDS)

    def keywords(self) -> dict[str, Any]:
        if self.before + self.after == 0:
            raise AudioLDMError("0 s before and 0 s after add nothing.", "Use more than 0 seconds.")
        return super().keywords()


class Continue(Spliced):
    """Let a sound go on.

    Examples:
      audioldm edit continue rain.wav "rain falling" --seconds 30
      audioldm edit continue rain.wav "rain falling" --seconds 8 --splice -n 4
    """

    seconds: float = option(5.0, "How much longer to go on.", Between(0, 1800, above=True))
    rounds: int = option(1, *ROUNDS)

    def keywords(self) -> dict[str, Any]:
        return {"before": 0.0, "after": self.seconds, "rounds": self.rounds}


class Upscale(OneFile):
    """Super-resolution: make the missing high band, keep the low band as it is.

    Examples:
      audioldm edit upscale phone.wav
      audioldm edit upscale old.mp3 "a violin" --cutoff 4000
    """

    cutoff: float | None = option(None, "Make what is above.  [default: where the band ends]", "HZ", POSITIVE)


class Vary(Regional):
    """Other takes of the same sound; without a prompt, the sound itself says what to hear (by CLAP).

    Examples:
      audioldm edit vary footstep.wav -n 8 --strength 0.4
    """

    strength: float = option(0.6, KEEPS, SHARE)


class Denoise(OneFile):
    """Turn noise down: first what never stops, then what the model does not believe in.

    Examples:
      audioldm edit denoise field.wav
      audioldm edit denoise field.wav "a bird singing" --strength 0.4
    """

    strength: float = option(0.0, KEEPS, SHARE)
    resynthesise: bool = option(False, "Give the model's sound, not the input turned down.")


class Morph(Edit):
    """From one sound to another: latents on the great arc between them, prompts along.

    Examples:
      audioldm edit morph wind.wav sea.wav
      audioldm edit morph dog.wav rooster.wav --at 0.5 --prompts "a dog barking" "a rooster crowing"
    """

    first: Path = argument(..., "Sound file: any format, rate, channels, length.")
    second: Path = argument(..., "The other sound file.")
    prompts: tuple[str, str] = option(("", ""), "What each is, in words.  [default: by CLAP]", "FIRST SECOND")
    at: float | None = option(None, "Where between them.  [default: from one to the other]", SHARE)
    strength: float = option(0.6, KEEPS, SHARE)

    def text(self) -> str:
        if self.takes.schedule is not None:
            raise AudioLDMError("A morph has two prompts and no schedule.", "Use --prompts FIRST SECOND.")
        return " ".join(filter(None, self.prompts))

    def subjects(self, waves: list[torch.Tensor], prompt: Any) -> list[Any]:
        return waves


class Mix(Edit):
    """Put sounds together, and if asked for, render them as one scene.

    Examples:
      audioldm edit mix rain.wav thunder.wav --gain 0 --gain -6 --at 0 --at 2.5
      audioldm edit mix rain.wav dog.wav --strength 0.3 --prompt "a dog barking in the rain"
    """

    sounds: list[Path] = argument(..., "Two sound files or more.", "FILES...")
    gain: list[float] = option([], "Gain of each file.", "DB", Between(-120, 120))
    at: list[float] = option([], "When each file begins.", "SECONDS", SECONDS)
    prompt: str = option("", "The scene, in words.  [default: by CLAP]", "TEXT")
    strength: float = option(0.0, "0 is the sum; more renders it again as one scene, 1 ignores it.", SHARE)

    def files(self) -> list[Path]:
        return self.sounds

    def keywords(self) -> dict[str, Any]:
        for name, values in (("gain", self.gain), ("at", self.at)):
            if values and len(values) != len(self.sounds):
                counts = f"{len(self.sounds)} files but {len(values)} --{name}."
                raise AudioLDMError(counts, "Give one for each file.")
        return {"gains": self.gain or None, "offsets": self.at or None, "strength": self.strength}

    def subjects(self, waves: list[torch.Tensor], prompt: Any) -> list[Any]:
        return [waves, prompt]


KINDS = (Transfer, Inpaint, Outpaint, Continue, Upscale, Vary, Denoise, Morph, Mix)
EDITS: dict[str, type[Edit]] = {kind.name(): kind for kind in KINDS}
app = group(__doc__, KINDS)
