"""What a model does for others, within limits: the page, the API and the agent's tool all ask here.   N samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain
from math import ceil, log
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from torch import Tensor

from audioldm.cli.clips import NUMBERS, Clip, stem_of
from audioldm.cli.console import warned
from audioldm.cli.edit import EDITS as COMMANDS
from audioldm.cli.edit import OneFile
from audioldm.cli.options import build
from audioldm.cli.options.groups import Output, Steps
from audioldm.cli.results import save
from audioldm.datasets import decode
from audioldm.errors import AudioLDMError
from audioldm.pipeline import sounds
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.serve.jobs import Job, Jobs, OnStep, Progress, watch

EDITS = {name: kind for name, kind in COMMANDS.items() if issubclass(kind, OneFile) and name != "outpaint"}
"""the commands that edit one sound; "continue" is the one that lengthens it"""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    seconds: float = 60.0
    takes: int = 4
    steps: int = 200
    upload_mb: int = 20
    decoded_mb: int = 256  # of an upload's samples, as 64-bit numbers
    waiting: int = 32  # requests that may wait


class Result(NamedTuple):
    """A wave (N,) at the model's rate, what there is to warn of, and for a splice the whole file."""

    wave: Tensor
    notes: list[str]
    file: sounds.Sound | None = None


Take = dict[str, Any]
"""a result: its sidecar's record, with the names of its files as ``audio``, ``figure`` and ``sidecar``"""
Takes = Iterator[Progress | list[Take]]  # progress, and at last the takes


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
        return self.seconds if self.kind == "continue" else 0.0

    @property
    def title(self) -> str:
        return f"{Path(self.path or '').stem} {self.kind} {self.prompt.strip()}"

    def check(self) -> None:
        if self.kind not in EDITS:
            raise AudioLDMError(f"edit={self.kind!r} is unknown.", f"Known: {', '.join(EDITS)}.")
        if self.kind == "continue" and self.seconds <= 0:
            raise AudioLDMError("0 seconds longer adds nothing.", "Ask for more than 0.")
        if self.end > self.begin:
            return
        if self.kind == "inpaint":
            hint = "Drag over the waveform, or type From and To."
            raise AudioLDMError("There is no region to make anew.", hint)
        if self.splice and not self.added:
            raise AudioLDMError("There is no region to put into the file.", "Select one on the waveform.")

    def command(self, seconds: float) -> OneFile:
        """The edit of a sound of so many seconds, as the command line makes it."""
        begin, end = ([self.begin], [min(self.end, seconds)]) if self.end > self.begin else ([], [])
        values = {**vars(self), "file": Path(self.path or ""), "begin": begin, "end": end}
        return build(EDITS[self.kind], values)

    def apply(self, pipe: AudioLDM, wave: Tensor, **settings: Any) -> Tensor:
        """The edit of a wave (N,) at the model's rate."""
        command = self.command(len(wave) / pipe.spec.rate)
        return command.edited(pipe, [wave], self.prompt.strip(), **settings)

    def record(self, sound: sounds.Sound, settings: dict[str, Any]) -> dict[str, Any]:
        """What a sidecar says of it, and what became of the channels of the file."""
        return {
            **settings, "edit": self.kind, **self.command(sound.seconds).keywords(), "splice": self.splice,
            "input": Path(self.path or "").name, "seconds": sound.seconds + self.added,
            "notes": [f"of your file, {note}" for note in sound.notes(splice=self.splice)],
        }  # fmt: skip


@dataclass(frozen=True)
class Service:
    """A model, what may be asked of it, and the queue of those who ask; settings are the pipeline's by name."""

    pipe: AudioLDM
    limits: Limits = Limits()
    jobs: Jobs = field(default_factory=Jobs)
    out: Path = Path()  # for the files of the page: uploads, results, trainings

    @property
    def results(self) -> Path:
        return self.out / "results"

    def generating(self, prompt: str, *, seed: int, **settings: Any) -> Job:
        """Submit a sound of ``prompt``.   Raises AudioLDMError."""
        self.check(prompt, seed=seed, **settings)
        key = (self.pipe, *sorted(settings.items()))
        return self.jobs.submit(Job(partial(self.sample, settings), (prompt.strip(), seed), key))

    def streaming(self, prompt: str, emit: Callable[[Tensor], None], *, seed: int, **settings: Any) -> Job:
        """Submit a sound whose pieces (N,) go to ``emit`` as they are done.   Raises AudioLDMError."""
        self.check(prompt, seed=seed, **settings)

        def work(items: list[Any], on_step: OnStep) -> list[None]:
            for piece in self.pipe.stream(prompt.strip(), seed=seed, **settings):
                on_step(1, 1)
                emit(piece)
            return [None]

        return self.jobs.submit(Job(work, None))

    def sample(self, settings: dict[str, Any], items: list[Any], on_step: OnStep) -> list[Result]:
        """Sounds of (prompt, seed)s that have their settings in common, as one batch."""
        count = len(items)
        if self.pipe.mode == "fast":  # which records the nets anew for each size: let there be few
            items = items + items[-1:] * (4 ** ceil(log(count, 4)) - count)
        conditions, notes, shared = [], [list[str]() for _ in items], list[str]()
        for (prompt, _), mine in zip(items, notes, strict=True):
            with warned(mine.append):
                conditions.append(self.pipe.encode_text([prompt]))
        seeds = [seed for _, seed in items]
        with warned(shared.append):
            waves = self.pipe(conditions, seeds=seeds, batch_size=len(items), on_step=on_step, **settings)
        return [Result(wave, [*mine, *shared]) for wave, mine in zip(waves[:count], notes, strict=False)]

    def prepared(self, request: EditRequest, **settings: Any) -> sounds.Sound:
        """Check an edit and read its sound.   Raises AudioLDMError."""
        request.check()
        sound = self.opened(request.path)
        self.check(takes=request.takes, seed=request.seed, seconds=sound.seconds + request.added, **settings)
        return sound

    def editing(self, request: EditRequest, sound: sounds.Sound, *, seed: int, **settings: Any) -> Job:
        """Submit an edit that was checked."""
        notes, rate = list[str](), self.pipe.spec.rate

        def work(items: list[Any], on_step: OnStep) -> list[Result]:
            with warned(notes.append):
                wave = request.apply(self.pipe, sound.mono(rate), seed=seed, on_step=on_step, **settings)
            if not request.splice:
                return [Result(wave, notes)]
            file = request.command(sound.seconds).spliced(sound, wave, self.pipe)
            return [Result(file.mono(rate), notes, file)]

        return self.jobs.submit(Job(work, None))

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
                counts = accumulate(map(len, file.blocks(dtype="int16")))
                for frames in chain([file.frames or 0], counts):  # a header may say nothing, or lie
                    if frames > most:
                        size = f"{frames / file.rate:.0f} s or more, more than {most / file.rate:g} s"
                        raise AudioLDMError(f"The sound has {size}.", "Cut it first.")
            return sounds.read(path)
        except AudioLDMError as error:
            message = error.message.replace(str(path), "the file")  # nobody is shown a path of this machine
            raise AudioLDMError(message[:1].upper() + message[1:], error.hint) from error

    def check(self, prompt: str = "edit", *, takes: int = 1, **settings: Any) -> None:
        """Refuse no words, numbers out of range or beyond the limits, and unknown samplers and grids."""
        if not prompt.strip():
            raise AudioLDMError("The prompt is empty.", "Say what you want to hear.")
        values = {"seconds": self.pipe.defaults.seconds, "steps": None, "guidance": None, **settings}
        for name in ("seconds", "steps", "guidance", "seed"):
            NUMBERS[name].check(values[name])
        NUMBERS["n"].check(takes)
        Steps(sampler=settings.get("sampler"), grid=settings.get("grid")).check("cpu")
        sizes = {"seconds": values["seconds"], "takes": takes, "steps": values["steps"] or 0}
        for name, value in sizes.items():
            if value > (most := getattr(self.limits, name)):
                what = f"{name}={value:g} is more than {most:g}."
                raise AudioLDMError(what, "Ask for less, or use the command line.")

    def save(
        self, result: Result, prompt: str, title: str, seed: int, settings: dict[str, Any], output: Output
    ) -> Take:
        """Write a sound, its picture and its sidecar; the sidecar's record with their paths."""
        clip, wave = Clip(prompt, seed, stem_of(title, seed), title), result.wave.float().cpu().numpy()
        return save(self.pipe, clip, wave, {"settings": settings}, output, file=result.file)

    def generate(self, prompt: str, *, takes: int, seed: int, **settings: Any) -> Takes:
        """``takes`` clips of ``prompt``, with seeds ``seed``, ``seed`` + 1, ..."""
        self.check(prompt, takes=takes, seed=seed, **settings)
        submit = partial(self.generating, prompt, **settings)
        return self.each(submit, prompt.strip(), prompt.strip(), range(seed, seed + takes), settings)

    def edit(self, request: EditRequest, **settings: Any) -> Takes:
        """The takes of an edit."""
        sound, prompt = self.prepared(request, **settings), request.prompt.strip()
        submit = partial(self.editing, request, sound, **settings)
        seeds = range(request.seed, request.seed + request.takes)
        return self.each(submit, prompt, request.title, seeds, request.record(sound, settings))

    def each(
        self, submit: Callable[..., Job], prompt: str, title: str, seeds: range, settings: dict[str, Any]
    ) -> Takes:
        output = Output(out=self.results / uuid4().hex)
        settings = {**vars(self.pipe.defaults), "notes": [], **settings}
        results = yield from watch([partial(submit, seed=seed) for seed in seeds])
        takes = []
        for seed, result in zip(seeds, results, strict=True):
            about = {**settings, "notes": [*settings["notes"], *result.notes]}
            takes.append(self.save(result, prompt, title, seed, about, output))
        yield takes
