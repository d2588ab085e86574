"""``audioldm app``: the page, served on this machine."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.options import Between, grouped
from audioldm.cli.options.model import ModelOptions
from audioldm.errors import AudioLDMError


@grouped
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one."), Between(0, 65535)] = 7860,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for uploads and results.")] = Path(
        "out/app"
    ),
    longest: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Longest sound of a request."),
        Between(0, 1800, above=True),
    ] = 60.0,
    waiting: Annotated[
        int, typer.Option(help="Requests that may wait; more are turned away."), Between(1)
    ] = 32,
    sounds: Annotated[
        Path | None, typer.Option(help="Train on folders below this one.  [default: no training]")
    ] = None,
    *,
    model: ModelOptions,
) -> None:
    """Generate, edit, and train on your own sounds in the browser.

    One request computes at a time, others wait in a bounded queue. Uploads and results stay in --out; only its
    sounds, pictures and .json files can be read through the page. Requests by other names than this machine's,
    or from other sites, are refused. With --host, anybody who reaches the machine can use the page, and train on
    the folders below --sounds. Trainings stay in --out/training; one goes on while the server does.

    \b
    Examples:
      audioldm app
      audioldm app --sounds my_sounds
      audioldm app -m runs/my_model --port 8000 --longest 120
    """
    model.check()
    if sounds is not None and not sounds.is_dir():
        raise AudioLDMError(f"sounds={sounds} is no folder.", "Name the folder that holds folders of sounds.")
    try:
        from audioldm.app import page
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"{error.name} is not installed.", 'Run: pip install "audioldm[app]"') from None
    from audioldm.app.studio import Limits, Studio
    from audioldm.app.training import Trainer

    os.environ["GRADIO_TEMP_DIR"] = str((out / "uploads").absolute())
    out.mkdir(parents=True, exist_ok=True)
    studio = Studio(model.load(), out, Limits(seconds=longest, waiting=waiting))
    trainer = Trainer(studio, model, None if sounds is None else sounds.absolute())
    try:
        page.build(studio, trainer).launch(
            server_port=port or free_port(host), **page.settings(studio, host), quiet=False
        )
    except OSError as error:
        raise AudioLDMError(
            f"port={port} cannot be used: {error}.", "Choose another --port.", code=1
        ) from error
    finally:
        trainer.stop()


def free_port(host: str) -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
