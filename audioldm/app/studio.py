"""What the page can do, without the page: requests in, files in a folder of their own out, within limits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from audioldm.cli.options.groups import Output
from audioldm.serve.jobs import Job, Progress, watch
from audioldm.serve.service import EditRequest, Service

Take = dict[str, Any]
"""a result: its sidecar's record, with the names of its files as ``audio``, ``figure`` and ``sidecar``"""
Takes = Iterator[Progress | list[Take]]
"""progress, and at last the takes"""


@dataclass(frozen=True, kw_only=True)
class Studio(Service):
    """A model, its queue, and the folder of its results."""

    out: Path

    @property
    def results(self) -> Path:
        """The folder of results, apart from that of uploads."""
        return self.out / "results"

    def generate(self, prompt: str, *, takes: int, seed: int, **settings: Any) -> Takes:
        """``takes`` clips of ``prompt``, with seeds ``seed``, ``seed`` + 1, ...; settings as for the pipeline."""
        self.check(takes=takes, seed=seed, **settings)
        prompt, seeds = prompt.strip(), range(seed, seed + takes)
        yield from self.each(partial(self.generating, prompt, **settings), prompt, prompt, seeds, settings)

    def edit(self, request: EditRequest, **settings: Any) -> Takes:
        """The takes of an edit; settings as for the pipeline."""
        edit, prompt = self.prepared(request, **settings), request.prompt.strip()
        title = f"{Path(request.path or '').stem} {request.kind} {prompt}"
        seeds = range(request.seed, request.seed + request.takes)
        yield from self.each(partial(self.editing, edit), prompt, title, seeds, edit.record())

    def each(
        self, submit: Callable[..., Job], prompt: str, title: str, seeds: range, settings: dict[str, Any]
    ) -> Takes:
        """Make and save a take for each seed, into a folder that no other request has."""
        output = Output(out=self.results / uuid4().hex)
        settings = {**vars(self.pipe.defaults), "notes": [], **settings}
        results = yield from watch([partial(submit, seed=seed) for seed in seeds])
        takes = []
        for seed, result in zip(seeds, results, strict=True):
            about = {**settings, "notes": [*settings["notes"], *result.notes]}
            takes.append(self.save(result, prompt, title, seed, about, output))
        yield takes
