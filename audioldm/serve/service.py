"""What a model does for others, within limits: the page, the API and the agent's tool all ask here.   N samples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import ceil, log
from pathlib import Path
from typing import Any

from torch import Tensor

from audioldm.cli.checks import check_numbers, check_parts
from audioldm.cli.console import warned
from audioldm.datasets import decode
from audioldm.errors import AudioLDMError
from audioldm.pipeline import edit, sounds
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.edit import FADE
from audioldm.serve.jobs import Job, Jobs, OnStep, ignore

EDITS = {"transfer": "transfer", "inpaint": "inpaint", "continue": "outpaint", "upscale": "upscale", "vary": "vary",
         "denoise": "denoise"}  # fmt: skip
"""Edits by name and the functions of ``pipeline.edit`` that make them"""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    seconds: float = 60.0
    takes: int = 4
    steps: int = 200
    upload_mb: int = 20
    decoded_mb: int = 256
    """of an upload's samples, as 64-bit numbers"""
    waiting: int = 32
    """requests that may wait"""


@dataclass(frozen=True)
class Result:
    """A wave (N,) at the model's rate, what there is to warn of, and for a splice the whole file."""

    wave: Tensor
    notes: list[str]
    file: sounds.Sound | None = None


@dataclass(frozen=True)
class EditRequest:
    """One edit; seconds are those that "continue" adds."""

    kind: str
    path: str | None
    prompt: str
    begin: float = 0.0
    end: float = 0.0
    strength: float = 0.5
    seconds: float = 0.0
    splice: bool = False
    takes: int = 1
    seed: int = 0

    @property
    def added(self) -> float:
        """Seconds that the sound becomes longer."""
        return self.seconds if self.kind == "continue" else 0.0

    def regions(self, seconds: float) -> list[tuple[float, float]]:
        """The region, where there is one, within a sound of so many seconds."""
        return [(self.begin, min(self.end, seconds))] if self.end > self.begin else []

    def check(self) -> None:
        """Refuse what makes no sense."""
        if self.kind not in EDITS:
            raise AudioLDMError(f"edit={self.kind!r} is unknown.", f"Known: {', '.join(EDITS)}.")
        if self.kind == "continue" and self.seconds <= 0:
            raise AudioLDMError("0 seconds longer adds nothing.", "Ask for more than 0.")
        if self.kind == "inpaint" and self.end <= self.begin:
            raise AudioLDMError(
                "There is no region to make anew.", "Drag over the waveform, or type From and To."
            )
        if self.splice and not (self.end > self.begin or self.added):
            raise AudioLDMError("There is no region to put into the file.", "Select one on the waveform.")

    def options(self, regions: list[tuple[float, float]]) -> dict[str, Any]:
        """Keywords of the edit's function."""
        if self.kind == "inpaint":
            return {"regions": regions}
        if self.kind == "continue":
            return {"after": self.seconds}
        partial = {"regions": regions or None} if self.kind in ("transfer", "vary") else {}
        return {"strength": self.strength, **partial} if self.kind != "upscale" else {}


@dataclass(frozen=True)
class Edit:
    """An edit that was checked, of a sound that was read."""

    request: EditRequest
    sound: sounds.Sound
    settings: dict[str, Any]

    @property
    def regions(self) -> list[tuple[float, float]]:
        """The region, where there is one."""
        return self.request.regions(self.sound.seconds)

    def record(self) -> dict[str, Any]:
        """What a sidecar says of it, and what became of the channels of the file."""
        request = self.request
        return {
            **self.settings, "edit": request.kind, **request.options(self.regions), "splice": request.splice,
            "input": Path(request.path or "").name, "seconds": self.sound.seconds + request.added,
            "notes": [f"of your file, {note}" for note in self.sound.notes(splice=request.splice)],
        }  # fmt: skip


@dataclass(frozen=True)
class Service:
    """A model, what may be asked of it, and the queue of those who ask."""

    pipe: AudioLDM
    limits: Limits = Limits()
    jobs: Jobs = field(default_factory=Jobs)

    def generating(self, prompt: str, *, seed: int, on_step: OnStep = ignore, **settings: Any) -> Job:
        """Submit a sound of ``prompt``; settings as for the pipeline.   Raises AudioLDMError."""
        item = self.asked(prompt, seed, settings)
        work, key = partial(self.sample, settings), (self.pipe, *sorted(settings.items()))
        return self.jobs.submit(Job(work, item, key, on_step))

    def streaming(self, prompt: str, emit: Callable[[Tensor], None], *, seed: int, **settings: Any) -> Job:
        """Submit a sound whose pieces (N,) go to ``emit`` as they are done; the job gives their samples in all."""
        item = self.asked(prompt, seed, settings)

        def work(items: list[Any], on_step: OnStep) -> list[int]:
            total = 0
            for piece in self.pipe.stream(item[0], seed=seed, **settings):
                total += len(piece)
                on_step(total, total)
                emit(piece)
            return [total]

        return self.jobs.submit(Job(work, item))

    def asked(self, prompt: str, seed: int, settings: dict[str, Any]) -> tuple[str, int]:
        """A prompt and a seed that were checked, with their settings.   Raises AudioLDMError."""
        prompt = prompt.strip()
        if not prompt:
            raise AudioLDMError("The prompt is empty.", "Say what you want to hear.")
        self.check(**{"seconds": self.pipe.defaults.seconds, "takes": 1, "seed": seed, **settings})
        return prompt, seed

    def sample(self, settings: dict[str, Any], items: list[Any], on_step: OnStep) -> list[Result]:
        """Sounds of (prompt, seed)s that have their settings in common, as one batch."""
        asked = len(items)
        if self.pipe.mode == "fast":  # which records the nets anew for each size: let there be few
            items = items + items[-1:] * (4 ** ceil(log(asked, 4)) - asked)
        conditions, notes = [], list[list[str]]()
        for prompt, _ in items:
            notes.append([])
            with warned(notes[-1].append):
                conditions.append(self.pipe.encode_text([prompt]))
        shared: list[str] = []
        with warned(shared.append):
            waves = self.pipe(
                conditions,
                seeds=[seed for _, seed in items],
                batch_size=len(items),
                on_step=on_step,
                **settings,
            )
        results = [Result(wave, [*mine, *shared]) for wave, mine in zip(waves, notes, strict=True)]
        return results[:asked]

    def prepared(self, request: EditRequest, **settings: Any) -> Edit:
        """Check an edit and read its sound; settings as for the pipeline.   Raises AudioLDMError."""
        request.check()
        sound = self.opened(request.path)
        length = sound.seconds + request.added
        self.check(seconds=length, takes=request.takes, seed=request.seed, **settings)
        return Edit(request, sound, settings)

    def editing(self, edit: Edit, *, seed: int, on_step: OnStep = ignore) -> Job:
        """Submit one take of an edit."""
        return self.jobs.submit(Job(self.edited, (edit, seed), on_step=on_step))

    def edited(self, items: list[Any], on_step: OnStep) -> list[Result]:
        """One take of an edit."""
        [(one, seed)] = items
        request, sound, rate, notes = one.request, one.sound, self.pipe.spec.rate, list[str]()
        function = getattr(edit, EDITS[request.kind])
        with warned(notes.append):
            wave = function(
                self.pipe, sound.mono(rate), request.prompt.strip(), seed=seed, on_step=on_step,
                **request.options(one.regions), **one.settings,
            )  # fmt: skip
        if not request.splice:
            return [Result(wave, notes)]
        new = [(sound.seconds, sound.seconds + request.added)] if request.added else one.regions
        file = sounds.splice_into(sound.padded(0, request.added), wave, rate, new, fade=FADE)
        return [Result(file.mono(rate), notes, file)]

    def opened(self, path: str | None) -> sounds.Sound:
        """An uploaded sound, recognised by its content and not by its name; refused before it fills the memory."""
        if not path:
            raise AudioLDMError("There is no sound to edit.", "Upload a file or record one.")
        if Path(path).stat().st_size > self.limits.upload_mb * 2**20:
            raise AudioLDMError(f"The file is larger than {self.limits.upload_mb} MB.", "Cut it first.")
        try:
            values = self.limits.decoded_mb * 2**17
            with decode.opened(path, most=values) as file:
                most = min(self.limits.seconds * file.rate, values / file.channels)
                self.check_size(file.frames or 0, most, file.rate)
                count = 0
                for block in file.blocks(dtype="int16"):
                    count += len(block)
                    self.check_size(count, most, file.rate)
            return sounds.read(path)
        except AudioLDMError as error:
            message = error.message.replace(str(path), "the file")  # nobody is shown a path of this machine
            raise AudioLDMError(message[:1].upper() + message[1:], error.hint) from error

    def check_size(self, frames: int, most: float, rate: int) -> None:
        """Refuse a sound of more frames than ``most``."""
        if frames > most:
            raise AudioLDMError(
                f"The sound has {frames / rate:.0f} s or more, more than {most / rate:g} s.", "Cut it first."
            )

    def check(self, *, seconds: float, takes: int, seed: int, **settings: Any) -> None:
        """Refuse what is beyond the limits or makes no sense."""
        steps, guidance = settings.get("steps"), settings.get("guidance")
        check_numbers(n=takes, seconds=seconds, steps=steps, guidance=guidance, seed=seed)
        check_parts(sampler=settings.get("sampler"), grid=settings.get("grid"), device="cpu")
        for name, value in {"seconds": seconds, "takes": takes, "steps": steps or 0}.items():
            if value > (most := getattr(self.limits, name)):
                raise AudioLDMError(
                    f"{name}={value:g} is more than {most:g}.", "Ask for less, or use the command line."
                )
