"""``audioldm app``: the page, served on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.options import grouped
from audioldm.cli.options.model import ModelOptions
from audioldm.errors import AudioLDMError


@grouped
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 7860,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for uploads and results.")] = Path(
        "out/app"
    ),
    longest: Annotated[float, typer.Option(metavar="SECONDS", help="Longest sound of a request.")] = 60.0,
    waiting: Annotated[int, typer.Option(help="Requests that may wait; more are turned away.")] = 32,
    *,
    model: ModelOptions,
) -> None:
    """Generate and edit in the browser.

    One request computes at a time, others wait in a bounded queue. Uploads and results stay in --out; only its
    sounds, pictures and .json files can be read through the page. Requests by other names than this machine's,
    or from other sites, are refused. With --host, anybody who reaches the machine can use the page.

    \b
    Examples:
      audioldm app
      audioldm app -m runs/my_model --port 8000 --longest 120
    """
    model.check()
    if longest <= 0 or waiting < 1 or not 0 <= port < 65536:
        raise AudioLDMError(
            f"longest={longest:g}, waiting={waiting} or port={port} makes no sense.",
            "See audioldm app --help.",
        )
    try:
        from audioldm.app import page
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"{error.name} is not installed.", 'Run: pip install "audioldm[app]"') from None
    import os

    from audioldm.app.studio import Limits, Studio

    os.environ["GRADIO_TEMP_DIR"] = str((out / "uploads").absolute())
    out.mkdir(parents=True, exist_ok=True)
    studio = Studio(model.load(), out, Limits(seconds=longest, waiting=waiting))
    try:
        page.build(studio).launch(
            server_port=port or free_port(host), **page.settings(studio, host), quiet=False
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
