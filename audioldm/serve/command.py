"""``audioldm serve``: the model as an API over HTTP."""

import os
from secrets import token_urlsafe

from audioldm.cli.console import say, waiting
from audioldm.cli.options import Between, Command, option
from audioldm.cli.options.groups import ModelOptions
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError

with later():
    import uvicorn

    from audioldm import gate
    from audioldm.serve import api, jobs, service


class Serve(Command):
    """Serve generation and edits over HTTP, for other programs.

    POST /v1/audio/generate and /v1/audio/edit, GET /v1/models, /health, /metrics, and /docs for people. Requests
    wait in a bounded queue; those of one length and settings are made as one batch. Ctrl-C takes no more and
    finishes what waits. With --host other machines may ask, with the token that is printed.

    Examples:
      audioldm serve
      audioldm serve --port 8000 --device cuda --mode fast --batch 32
      AUDIOLDM_TOKEN=secret audioldm serve --host 0.0.0.0
    """

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = option(8000, "Port.", Between(1, 65535))
    longest: float = option(60.0, "Longest sound of a request.", "SECONDS", Between(0, 600, above=True))
    waiting: int = option(128, "Requests that may wait; more are turned away.", Between(1))
    batch: int | None = option(
        None, "Most requests in a batch.  [default: 16 on a GPU; 1 on a CPU: the same bytes]", Between(1)
    )
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        with waiting("loading torch and the model"):
            pipe = self.model.load()
        queue = jobs.Jobs(self.waiting, self.batch or (1 if pipe.device.type == "cpu" else 16))
        served = service.Service(pipe, service.Limits(self.longest, waiting=self.waiting), queue)
        token = "" if gate.is_local(self.host) else os.environ.get("AUDIOLDM_TOKEN") or token_urlsafe(24)
        config = uvicorn.Config(
            api.build(served, host=self.host, token=token), self.host, self.port, log_level="warning",
            timeout_graceful_shutdown=600,
        )  # fmt: skip
        say(f"{pipe.name} at http://{self.host}:{self.port}/v1, described at /docs.")
        if token and "AUDIOLDM_TOKEN" not in os.environ:
            say(f"Authorization: Bearer {token}")
        try:
            uvicorn.Server(config).run()
        except SystemExit as error:
            what = f"port={self.port} cannot be used."
            raise AudioLDMError(what, "Choose another --port.", code=1) from error
