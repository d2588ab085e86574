"""``audioldm app``: the page, served on this machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from audioldm.cli.options import Between, Command, option
from audioldm.cli.options.groups import ModelOptions
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError

with later():
    from audioldm.app import page, training
    from audioldm.serve import jobs, service


class Serve(Command):
    """Generate, edit, and train on your own sounds in the browser.

    One request computes at a time, others wait in a bounded queue. Uploads and results stay in --out; only its
    sounds, pictures, adapters and .json files can be read through the page. Requests by other names than this
    machine's, or from other sites, are refused. With --host, anybody who reaches the machine can use the page, and
    train on the folders below --sounds. Trainings stay in --out/training; one goes on while the server does.

    Examples:
      audioldm app
      audioldm app --sounds my_sounds
      audioldm app -m runs/my_model --port 8000 --longest 120
    """

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = option(7860, "Port; 0 takes a free one.", Between(0, 65535))
    out: Path = option(Path("out/app"), "Folder for uploads and results.", "-o", "DIR")
    longest: float = option(60.0, "Longest sound of a request.", "SECONDS", Between(0, 1800, above=True))
    waiting: int = option(32, "Requests that may wait; more are turned away.", Between(1))
    sounds: Path | None = option(None, "Train on folders below this one.  [default: no training]")
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        root = None if self.sounds is None else self.sounds.absolute()
        if root is not None and not root.is_dir():
            raise AudioLDMError(
                f"sounds={root} is no folder.", "Name the folder that holds folders of sounds."
            )
        os.environ["GRADIO_TEMP_DIR"] = str((self.out / "uploads").absolute())
        self.out.mkdir(parents=True, exist_ok=True)
        limits = service.Limits(seconds=self.longest, waiting=self.waiting)
        queue = jobs.Jobs(max(self.waiting, limits.takes))
        studio = service.Service(self.model.load(), limits, queue, out=self.out)
        trainer = training.Trainer(studio, self.model, root)
        port, settings = self.port or free_port(self.host), page.settings(studio, self.host)
        try:
            page.build(studio, trainer).launch(server_port=port, **settings, quiet=False)
        except OSError as error:
            what = f"port={self.port} cannot be used: {error}."
            raise AudioLDMError(what, "Choose another --port.", code=1) from error
        finally:
            trainer.stop()


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
