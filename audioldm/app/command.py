"""``audioldm app``: the page, served on this machine."""

from pathlib import Path

from audioldm.cli.options import Between, Command, option, out_option
from audioldm.cli.options.groups import ModelOptions
from audioldm.errors import AudioLDMError


class Serve(Command):
    """Generate and edit in the browser.

    One request computes at a time, others wait in a bounded queue. Uploads and results stay in --out; only its
    sounds, pictures and .json files can be read through the page. Requests by other names than this machine's,
    or from other sites, are refused. With --host, anybody who reaches the machine can use the page.

    \b
    Examples:
      audioldm app
      audioldm app -m runs/my_model --port 8000 --longest 120
    """

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = option(7860, "Port; 0 takes a free one.", Between(0, 65535))
    out: Path = out_option("out/app", "DIR", "Folder for uploads and results.")
    longest: float = option(60.0, "Longest sound of a request.", "SECONDS", Between(0, above=True))
    waiting: int = option(32, "Requests that may wait; more are turned away.", Between(1))
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        model, out, port = self.model, self.out, self.port
        model.check()
        try:
            from audioldm.app import page
        except ModuleNotFoundError as error:
            raise AudioLDMError(
                f"{error.name} is not installed.", 'Run: pip install "audioldm[app]"'
            ) from None
        import os

        from audioldm.app.studio import Limits, Studio

        os.environ["GRADIO_TEMP_DIR"] = str((out / "uploads").absolute())
        out.mkdir(parents=True, exist_ok=True)
        studio = Studio(model.load(), out, Limits(seconds=self.longest, waiting=self.waiting))
        try:
            page.build(studio).launch(
                server_port=port or free_port(self.host), **page.settings(studio, self.host), quiet=False
            )
        except OSError as error:
            raise AudioLDMError(
                f"port={port} cannot be used: {error}.", "Choose another --port.", code=1
            ) from error


def free_port(host: str) -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
