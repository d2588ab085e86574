"""``audioldm mcp``: the model as tools for an agent, over standard input and output (Model Context Protocol)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audioldm.cli.options import Between, Command, option
from audioldm.cli.options.groups import ModelOptions, Output
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError

with later():
    from audioldm.cli import caption
    from audioldm.nets import clap
    from audioldm.pipeline import captions
    from audioldm.serve import jobs
    from audioldm.serve import service as services


class Agent(Command):
    """Offer generate, edit and describe to an agent by the Model Context Protocol, over stdio.

    Sounds are written to --out and named in the answers. Edits and descriptions read sound files of this machine.

    Examples:
      audioldm mcp
      audioldm mcp -o sounds --longest 30
    """

    out: Path = option(Path("out/mcp"), "Folder for the sounds.", "-o", "DIR")
    longest: float = option(60.0, "Longest sound.", "SECONDS", Between(0, 600, above=True))
    captioner: Path | None = option(None, "What describes sounds.  [default: the embedded model's]", "FOLDER")
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        import mcp  # noqa: F401

        pipe, shipped = self.model.load(), caption.SHIPPED
        captioner = self.captioner or (shipped if clap.in_space(shipped, pipe.clap) else None)
        build(services.Service(pipe, services.Limits(self.longest)), self.out, captioner).run()


def build(service: "services.Service", out: Path, captioner: Path | None = None) -> Any:
    """The server of the tools, whose docstrings the agent is told; only a captioner's folder makes it describe."""
    from mcp.server import MCPServer

    server = MCPServer("audioldm", instructions="Makes sounds from words, edits and describes sound files.")
    output = Output(out=out, figure=False, force=True)

    def saved(job: jobs.Job, prompt: str, title: str, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
        result = job.future.result()
        record = service.save(result, prompt, title, seed, settings, output)
        place, seconds = Path(record["audio"]).absolute(), record["sound"]["seconds"]
        return {"file": str(place), "seconds": seconds, "seed": seed, "notes": result.notes}

    @server.tool()
    @refusals()
    def generate(
        prompt: str, seconds: float | None = None, seed: int = 0, negative: str | None = None, steps: int | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """Make a sound from words; the same seed gives the same sound. Returns the file that was written."""
        named = {"seconds": seconds, "negative": negative, "steps": steps}
        settings: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        job = service.generating(prompt, seed=seed, **settings)
        return saved(job, prompt.strip(), prompt.strip(), seed, settings)

    @server.tool()
    @refusals()
    def edit(
        file: str, kind: str, prompt: str = "", begin: float = 0.0, end: float = 0.0, strength: float = 0.5,
        seconds: float = 0.0, seed: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Edit a sound. kind: transfer, inpaint (begin to end, s), continue (by seconds), upscale, vary, denoise."""
        request = services.EditRequest(kind, present(file), prompt, begin, end, strength, seconds, seed=seed)
        sound = service.prepared(request)
        job = service.editing(request, sound, seed=seed)
        return saved(job, prompt, request.title, seed, request.record(sound, {}))

    if captioner is not None:
        captioning = captions.Captioning.load(captioner, service.pipe.clap)  # type: ignore[arg-type]

        @server.tool()
        @refusals()
        def describe(file: str) -> dict[str, Any]:
            """Say what is to be heard in a sound file, how well the words fit (0 to 1), and from which second."""
            job = jobs.Job(lambda items, on_step: [vars(captioning.of_file(items[0]))], present(file))
            return dict(service.jobs.submit(job).future.result())

    return server


@contextmanager
def refusals() -> Iterator[None]:
    """Within, a refusal reaches the agent, which may then ask again."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except AudioLDMError as error:
        raise ToolError(str(error)) from error


def present(file: str) -> str:
    if not Path(file).is_file():
        raise AudioLDMError(f"file={file!r} is not there.", "Name a sound file.")
    return file
