"""What the page can do, without the page: requests in, files in a folder of their own out, within limits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Generic, TypeVar
from uuid import uuid4

from torch import Tensor

from audioldm.cli.checks import check_numbers, check_parts
from audioldm.cli.clips import Clip, stem_of
from audioldm.cli.console import warned
from audioldm.cli.options.groups import Output
from audioldm.cli.results import save
from audioldm.datasets import decode
from audioldm.errors import AudioLDMError
from audioldm.pipeline import edit, sounds
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.canvas import FADE

T = TypeVar("T")
OnStep = Callable[[int, int], None]
EDITS = {"transfer": "transfer", "inpaint": "inpaint", "continue": "outpaint", "upscale": "upscale", "vary": "vary",
         "denoise": "denoise"}  # fmt: skip
"""Edits of the page and the functions of ``pipeline.edit`` that make them"""


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """The work was stopped from outside."""


@dataclass(frozen=True)
class Progress:
    """Steps done, and steps in all."""

    done: int
    steps: int


@dataclass(frozen=True)
class Done(Generic[T]):
    """What the work gave."""

    result: T


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
class EditRequest:
    """One edit as the page asks for it; seconds are those that "continue" adds."""

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
class Studio:
    """A model and the folder of its results; one request computes at a time."""

    pipe: AudioLDM
    out: Path
    limits: Limits = Limits()
    _turn: Lock = field(default_factory=Lock)

    @property
    def results(self) -> Path:
        """The folder of results, apart from that of uploads."""
        return self.out / "results"

    def generate(
        self, prompt: str, *, seconds: float, takes: int, seed: int, **settings: Any
    ) -> Iterator[Progress | Done[list[Take]]]:
        """``takes`` clips of ``prompt``, with seeds ``seed``, ``seed`` + 1, ...; settings as for the pipeline."""
        prompt = prompt.strip()
        if not prompt:
            raise AudioLDMError("The prompt is empty.", "Say what you want to hear.")
        self.check(seconds=seconds, takes=takes, seed=seed, **settings)

        def one(seed: int, on_step: OnStep) -> tuple[Tensor, None]:
            return self.pipe([prompt], seeds=[seed], seconds=seconds, on_step=on_step, **settings)[0], None

        record = {**vars(self.pipe.defaults), **settings, "seconds": seconds}
        yield from self.each(one, prompt, prompt, range(seed, seed + takes), record)

    def edit(self, request: EditRequest, **settings: Any) -> Iterator[Progress | Done[list[Take]]]:
        """The takes of an edit; settings as for the pipeline."""
        request.check()
        sound, prompt = self.opened(request.path), request.prompt.strip()
        length = sound.seconds + request.added
        self.check(seconds=length, takes=request.takes, seed=request.seed, **settings)
        regions = request.regions(sound.seconds)
        wave, rate = sound.mono(self.pipe.spec.rate), self.pipe.spec.rate
        function, options = getattr(edit, EDITS[request.kind]), request.options(regions)

        def one(seed: int, on_step: OnStep) -> tuple[Tensor, sounds.Sound | None]:
            edited = function(self.pipe, wave, prompt, seed=seed, on_step=on_step, **options, **settings)
            if not request.splice:
                return edited, None
            new = [(sound.seconds, length)] if request.added else regions
            file = sounds.splice_into(sound.padded(0, request.added), edited, rate, new, fade=FADE)
            return file.mono(rate), file

        stem = Path(request.path or "").stem
        record = {
            **vars(self.pipe.defaults), **settings, "edit": request.kind, **options, "splice": request.splice,
            "input": Path(request.path or "").name, "seconds": length,
            "notes": [f"of your file, {note}" for note in sound.notes(splice=request.splice)],
        }  # fmt: skip
        seeds = range(request.seed, request.seed + request.takes)
        yield from self.each(one, prompt, f"{stem} {request.kind} {prompt}", seeds, record)

    def each(
        self,
        one: Callable[[int, OnStep], tuple[Tensor, sounds.Sound | None]],
        prompt: str,
        title: str,
        seeds: Sequence[int],
        settings: dict[str, Any],
    ) -> Iterator[Progress | Done[list[Take]]]:
        """Make and save a take for each seed, into a folder that no other request has."""
        output = Output(out=self.results / uuid4().hex)

        def work(on_step: OnStep) -> list[Take]:
            takes, notes = [], list[str](settings.pop("notes", []))
            for place, seed in enumerate(seeds):

                def report(done: int, steps: int, place: int = place) -> None:
                    on_step(place * steps + done, len(seeds) * steps)

                with warned(notes.append):
                    wave, file = one(seed, report)
                clip = Clip(prompt, seed, stem_of(title, seed), title)
                record = save(
                    self.pipe, clip, wave.float().cpu().numpy(), {"settings": {**settings, "notes": [*notes]}}, output,
                    file=file,
                )  # fmt: skip
                audio, figure, sidecar = (Path(record.pop(name)) for name in ("audio", "figure", "sidecar"))
                takes.append(Take(audio, figure, sidecar, record))
            return takes

        with self._turn:
            yield from watch(work)

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
            message = error.message.replace(str(path), "the file")  # the page names no path of this machine
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


def watch(work: Callable[[OnStep], T]) -> Iterator[Progress | Done[T]]:
    """Progress after every step of ``work(on_step)``, then its result; what it raises is raised here.

    Closing the iterator stops the work at its next step and waits until it has stopped.

    >>> list(watch(lambda on_step: on_step(1, 2) or "sound"))
    [Progress(done=1, steps=2), Done(result='sound')]
    """
    news: SimpleQueue[Progress | Done[T] | BaseException] = SimpleQueue()
    stop = Event()

    def on_step(done: int, steps: int) -> None:
        if stop.is_set():
            raise Stopped
        news.put(Progress(done, steps))

    def run() -> None:
        try:
            news.put(Done(work(on_step)))
        except BaseException as error:  # raised again for whoever watches
            news.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            item = news.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, Done):
                return
    finally:
        stop.set()
        thread.join()
