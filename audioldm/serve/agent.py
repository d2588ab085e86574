"""``audioldm mcp``: the model as tools for an agent, over standard input and output (Model Context Protocol)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.options import Between, Command, option, out_option
from audioldm.cli.options.groups import ModelOptions, Output
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.serve.service import Result, Service


class Agent(Command):
    """Offer generate, edit and describe to an agent by the Model Context Protocol, over stdio.

    Sounds are written to --out and named in the answers. Edits read sound files of this machine, by the same
    limits as the page.

    \b
    Examples:
      audioldm mcp
      audioldm mcp -o sounds --longest 30
    """

    out: Path = out_option("out/mcp", "DIR", "Folder for the sounds.")
    longest: float = option(60.0, "Longest sound.", "SECONDS", Between(0, 600, above=True))
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        self.model.check()
        try:
            import mcp  # noqa: F401
        except ModuleNotFoundError as error:
            raise AudioLDMError(
                f"{error.name} is not installed.", 'Run: pip install "audioldm[mcp]"'
            ) from None
        from audioldm.serve.service import Limits, Service

        build(Service(self.model.load(), Limits(seconds=self.longest)), self.out).run()


def build(service: "Service", out: Path) -> Any:
    """The server of the tools."""
    from mcp.server import MCPServer

    from audioldm.cli.clips import Clip, stem_of
    from audioldm.cli.results import save
    from audioldm.serve.service import EditRequest

    server = MCPServer("audioldm", instructions="Makes sounds from words, edits and describes sound files.")

    def written(
        result: "Result", prompt: str, title: str, seed: int, settings: dict[str, Any]
    ) -> dict[str, Any]:
        clip = Clip(prompt, seed, stem_of(title, seed), title)
        output = Output(out=out, figure=False, force=True)
        record = save(service.pipe, clip, result.wave.float().cpu().numpy(), {"settings": settings}, output)
        return {"file": str(Path(record["audio"]).absolute()), "seconds": record["sound"]["seconds"],
                "seed": seed, "notes": result.notes}  # fmt: skip

    @server.tool()
    def generate(
        prompt: str,
        seconds: float | None = None,
        seed: int = 0,
        negative: str | None = None,
        steps: int | None = None,
    ) -> dict[str, Any]:
        """Make a sound from words; the same seed gives the same sound. Returns the file that was written."""
        named = {"seconds": seconds, "negative": negative, "steps": steps}
        settings: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
        result = service.generating(prompt, seed=seed, **settings).future.result()
        return written(result, prompt.strip(), prompt.strip(), seed, settings)

    @server.tool()
    def edit(
        file: str, kind: str, prompt: str = "", begin: float = 0.0, end: float = 0.0, strength: float = 0.5,
        seconds: float = 0.0, seed: int = 0,
    ) -> dict[str, Any]:  # fmt: skip
        """Edit a sound file. kind is transfer, inpaint (from begin to end), continue (by seconds), upscale, vary or
        denoise; all times are in seconds.
        """
        if not Path(file).is_file():
            raise AudioLDMError(f"file={file!r} is not there.", "Name a sound file.")
        request = EditRequest(kind, file, prompt, begin, end, strength, seconds, seed=seed)
        one = service.prepared(request)
        result = service.editing(one, seed=seed).future.result()
        return written(result, prompt, f"{Path(file).stem} {kind} {prompt}", seed, one.record())

    return server
