"""What the page can do, without the page: requests in, files in a folder of their own out, within limits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from audioldm.cli.clips import Clip, stem_of
from audioldm.cli.options.groups import Output
from audioldm.cli.results import save
from audioldm.serve.jobs import Done, Job, Progress, watch
from audioldm.serve.service import EditRequest, Result, Service


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


Takes = Iterator[Progress | Done[list[Take]]]


@dataclass(frozen=True, kw_only=True)
class Studio(Service):
    """A model, its queue, and the folder of its results."""

    out: Path

    @property
    def results(self) -> Path:
        """The folder of results, apart from that of uploads."""
        return self.out / "results"

    def generate(self, prompt: str, *, seconds: float, takes: int, seed: int, **settings: Any) -> Takes:
        """``takes`` clips of ``prompt``, with seeds ``seed``, ``seed`` + 1, ...; settings as for the pipeline."""
        settings["seconds"] = seconds
        self.check(takes=takes, seed=seed, **settings)
        submit = partial(self.generating, prompt, **settings)
        yield from self.each(submit, prompt.strip(), prompt.strip(), range(seed, seed + takes), settings)

    def edit(self, request: EditRequest, **settings: Any) -> Takes:
        """The takes of an edit; settings as for the pipeline."""
        edit = self.prepared(request, **settings)
        title = f"{Path(request.path or '').stem} {request.kind} {request.prompt.strip()}"
        seeds = range(request.seed, request.seed + request.takes)
        submit = partial(self.editing, edit)
        yield from self.each(submit, request.prompt.strip(), title, seeds, edit.record())

    def each(
        self,
        submit: Callable[..., Job],
        prompt: str,
        title: str,
        seeds: Sequence[int],
        settings: dict[str, Any],
    ) -> Takes:
        """Make and save a take for each seed, into a folder that no other request has."""
        output = Output(out=self.results / uuid4().hex)
        settings = {**vars(self.pipe.defaults), **settings}
        notes = settings.pop("notes", [])

        def saved(seed: int, result: Result) -> Take:
            clip = Clip(prompt, seed, stem_of(title, seed), title)
            about = {"settings": {**settings, "notes": [*notes, *result.notes]}}
            record = save(self.pipe, clip, result.wave.float().cpu().numpy(), about, output, file=result.file)
            audio, figure, sidecar = (Path(record.pop(name)) for name in ("audio", "figure", "sidecar"))
            return Take(audio, figure, sidecar, record)

        for news in watch([partial(submits, submit, seed) for seed in seeds]):
            if isinstance(news, Done):
                yield Done([saved(*pair) for pair in zip(seeds, news.result, strict=True)])
            else:
                yield news


def submits(submit: Callable[..., Job], seed: int, on_step: Callable[[int, int], None]) -> Job:
    """``submit`` for one seed."""
    return submit(seed=seed, on_step=on_step)
