"""What the page can do, without the page: requests in, files in a folder of their own out, within limits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from torch import Tensor

from audioldm.app.jobs import Done, OnStep, Progress, watch
from audioldm.cli.checks import check_numbers, check_parts
from audioldm.cli.clips import Clip, stem_of
from audioldm.cli.options.output import Output
from audioldm.cli.results import save
from audioldm.errors import AudioLDMError
from audioldm.pipeline import edit, sounds
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.canvas import FADE

EDITS = ("transfer", "inpaint", "continue", "upscale", "vary", "denoise")
REGIONAL = ("transfer", "inpaint", "vary")
"""Edits that can be kept to a region."""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    seconds: float = 60.0
    takes: int = 4
    steps: int = 200
    upload_mb: int = 20
    waiting: int = 32
    """requests that may wait"""


@dataclass(frozen=True)
class Take:
    """One result: its files and its sidecar."""

    audio: Path
    figure: Path
    sidecar: Path
    record: dict[str, Any]

    @property
    def seed(self) -> int:
        """What tells the takes of a request apart."""
        return int(self.record["seed"])


@dataclass(frozen=True)
class Studio:
    """A model and the folder of its results; one request computes at a time."""

    pipe: AudioLDM
    out: Path
    limits: Limits = Limits()
    _turn: Lock = field(default_factory=Lock)

    def generate(
        self, prompt: str, *, seconds: float, takes: int, seed: int, **settings: Any
    ) -> Iterator[Progress | Done[list[Take]]]:
        """``takes`` clips of ``prompt``, with seeds ``seed``, ``seed`` + 1, ...; settings as for the pipeline."""
        if not prompt.strip():
            raise AudioLDMError("The prompt is empty.", "Say what you want to hear.")
        self.check(seconds=seconds, takes=takes, seed=seed, **settings)

        def one(seed: int, on_step: OnStep) -> tuple[Tensor, None]:
            waves = self.pipe([prompt.strip()], seeds=[seed], seconds=seconds, on_step=on_step, **settings)
            return waves[0], None

        record = {**vars(self.pipe.defaults), **settings, "seconds": seconds}
        yield from self.each(one, prompt.strip(), prompt.strip(), range(seed, seed + takes), record)

    def edit(
        self,
        kind: str,
        path: str | None,
        prompt: str,
        *,
        begin: float,
        end: float,
        strength: float,
        seconds: float,
        splice: bool,
        takes: int,
        seed: int,
        **settings: Any,
    ) -> Iterator[Progress | Done[list[Take]]]:
        """``takes`` edits of the sound file ``path``; a region where ``end`` is above ``begin``."""
        if kind not in EDITS:
            raise AudioLDMError(f"edit={kind!r} is unknown.", f"Known: {', '.join(EDITS)}.")
        sound = self.opened(path)
        extra = seconds if kind == "continue" else 0.0
        if kind == "continue" and extra <= 0:
            raise AudioLDMError("0 seconds longer adds nothing.", "Ask for more than 0.")
        self.check(seconds=sound.seconds + extra, takes=takes, seed=seed, **settings)
        regions = [(begin, min(end, sound.seconds))] if end > begin else []
        if kind == "inpaint" and not regions:
            raise AudioLDMError(
                "There is no region to make anew.", "Drag over the waveform, or type From and To."
            )
        if splice and not (regions or extra):
            raise AudioLDMError("There is no region to put into the file.", "Select one on the waveform.")
        wave, rate = sound.mono(self.pipe.spec.rate), self.pipe.spec.rate
        act = actions(prompt.strip(), regions, strength, seconds)[kind]

        def one(seed: int, on_step: OnStep) -> tuple[Tensor, sounds.Sound | None]:
            made = act(self.pipe, wave, seed=seed, on_step=on_step, **settings)
            if not splice:
                return made, None
            new = [(sound.seconds, sound.seconds + extra)] if extra else regions
            file = sounds.splice_into(sound.padded(0, extra), made, rate, new, fade=FADE)
            return file.mono(rate), file

        record = {
            **vars(self.pipe.defaults), **settings, "edit": kind, "regions": regions, "strength": strength,
            "splice": splice,
            "input": Path(path or "").name, "seconds": sound.seconds + extra,
        }  # fmt: skip
        title = f"{Path(path or '').stem} {kind} {prompt.strip()}"
        yield from self.each(one, prompt.strip(), title, range(seed, seed + takes), record)

    def each(
        self,
        one: Callable[[int, OnStep], tuple[Tensor, sounds.Sound | None]],
        prompt: str,
        title: str,
        seeds: Sequence[int],
        settings: dict[str, Any],
    ) -> Iterator[Progress | Done[list[Take]]]:
        """Make and save a take for each seed, into a folder that no other request has."""
        output = Output(out=self.out / uuid4().hex)

        def work(on_step: OnStep) -> list[Take]:
            takes = []
            for place, seed in enumerate(seeds):

                def report(done: int, steps: int, place: int = place) -> None:
                    on_step(place * steps + done, len(seeds) * steps)

                wave, file = one(seed, report)
                clip = Clip(prompt, seed, stem_of(title, seed), title)
                record = {"settings": settings}
                saved = save(self.pipe, clip, wave.float().cpu().numpy(), record, output, file=file)
                paths = (Path(saved.pop(name)) for name in ("audio", "figure", "sidecar"))
                takes.append(Take(*paths, record=saved))
            return takes

        with self._turn:
            yield from watch(work)

    def opened(self, path: str | None) -> sounds.Sound:
        """An uploaded sound, judged by its content and not by its name."""
        if not path:
            raise AudioLDMError("There is no sound to edit.", "Upload a file or record one.")
        if Path(path).stat().st_size > self.limits.upload_mb * 2**20:
            raise AudioLDMError(f"The file is larger than {self.limits.upload_mb} MB.", "Cut it first.")
        try:
            sound = sounds.read(path)
        except AudioLDMError as error:
            if "Cannot read" in error.message:
                raise AudioLDMError(
                    "This file is no sound that can be read.", "Use WAV, FLAC, OGG or MP3."
                ) from error
            raise
        if sound.seconds > self.limits.seconds:
            raise AudioLDMError(
                f"The sound has {sound.seconds:.0f} s, more than {self.limits.seconds:g} s.", "Cut it first."
            )
        return sound

    def check(
        self, *, seconds: float, takes: int, seed: int, steps: int | None = None, guidance: float | None = None,
        sampler: str | None = None, **others: Any,
    ) -> None:  # fmt: skip
        """Refuse what is beyond the limits or makes no sense."""
        check_numbers(n=takes, seconds=seconds, steps=steps, guidance=guidance, seed=seed)
        check_parts(sampler=sampler, grid=others.get("grid"), device="cpu")
        for name, value, most in (
            ("seconds", seconds, self.limits.seconds),
            ("takes", takes, self.limits.takes),
            ("steps", steps or 0, self.limits.steps),
        ):
            if value > most:
                raise AudioLDMError(
                    f"{name}={value:g} is more than {most:g}.", "Ask for less, or use the command line."
                )


def actions(
    prompt: str, regions: list[tuple[float, float]], strength: float, seconds: float
) -> dict[str, Callable[..., Tensor]]:
    """Each edit of the page as (pipe, wave, **settings) -> wave."""

    def partly(edit: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda pipe, wave, **rest: edit(
            pipe, wave, prompt, strength=strength, regions=regions or None, **rest
        )

    return {
        "transfer": partly(edit.transfer),
        "vary": partly(edit.vary),
        "inpaint": lambda pipe, wave, **rest: edit.inpaint(pipe, wave, prompt, regions=regions, **rest),
        "continue": lambda pipe, wave, **rest: edit.outpaint(pipe, wave, prompt, after=seconds, **rest),
        "upscale": lambda pipe, wave, **rest: edit.upscale(pipe, wave, prompt, **rest),
        "denoise": lambda pipe, wave, **rest: edit.denoise(pipe, wave, prompt, strength=strength, **rest),
    }
