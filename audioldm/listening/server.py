"""The page and its small API over HTTP.   Only names in a table are ever served: no part of a URL becomes a path."""

import hmac
import json
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from audioldm.errors import AudioLDMError
from audioldm.gate import Gate, is_local
from audioldm.listening.design import METHODS
from audioldm.listening.folder import Test
from audioldm.listening.study import DEVICES, RefusedError, Session, Study

PAGE = Path(__file__).with_name("page")
STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in ("app.js", "tasks.js", "player.js")},
}
SLOTS = ("{trial:int}/{slot}", "{slot}", "{slot}/{try:int}")  # of a trial; of the volume check, or of a try
POSTS = ("join", "volume", "answer")
MOST_BYTES = 16_384  # of a request's body: an answer has a few hundred
MOST_CONNECTIONS = 256  # at a time; a rater's browser has a few


class PageGate(Gate):
    headers: ClassVar[dict[str, str]] = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*",  # a notebook shows the page in a frame
        "Cross-Origin-Resource-Policy": "same-origin", "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }  # fmt: skip


class Server:
    """Serves one study from a thread; on any address but this machine's own a key is needed to join."""

    def __init__(self, test: Test, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.local, self.study = is_local(host), Study(test)
        self.key = "" if self.local else secrets.token_urlsafe(9)
        self.failure: Callable[[str], None] = lambda message: None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self.socket = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
        except OSError as error:
            self.study.close()
            what = f"{host}:{port} cannot be opened: {error.strerror or error}."
            raise AudioLDMError(what, "Use another --port or --host.") from error
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        config = uvicorn.Config(
            self.application(host), http="h11", ws="none", lifespan="off", log_config=None, log_level="critical",
            access_log=False, server_header=False, limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=5,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.thread = Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    @property
    def url(self) -> str:
        """What a rater opens; it carries the key where one is needed."""
        host, port = self.address
        if host == "0.0.0.0":  # every address: name the one by which this machine reaches its network
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
                try:
                    line.connect(("192.0.2.1", 9))  # RFC 5737: nobody's address; nothing is sent
                    host = line.getsockname()[0]
                except OSError:
                    host = socket.gethostname()
        return f"http://{host}:{port}/" + (f"#{self.key}" if self.key else "")

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """End ``start``'s thread and let go of the port and the log."""
        self.server.should_exit = True
        if self.thread.ident is not None:
            self.thread.join()
        self.socket.close()
        self.study.close()

    def application(self, host: str) -> Starlette:
        study, about = self.study, self.study.test.about
        method = study.test.design.method
        shown = {name: about[name] for name in ("title", "trials_per_rater", "minutes_per_rater")}
        shown |= {"id": about["key"][:12], "method": method, "tasks": METHODS[method], "devices": DEVICES}

        def part(request: Request) -> Response:
            name, kind = STATIC[request.url.path]
            return Response((PAGE / name).read_bytes(), media_type=kind)

        def audio(request: Request) -> Response:
            at = request.path_params
            path = study.audio(at["code"], at.get("trial", -1), at["slot"])
            return Response(path.read_bytes(), media_type="audio/wav")

        def fault(_: Request, error: Exception) -> Response:
            if not isinstance(error, h11.ProtocolError):  # which is the client's affair
                self.failure(f"{type(error).__name__}: {error}")
            return JSONResponse({"error": "The test's computer failed."}, 500)

        handlers: dict[Any, Any] = {
            RefusedError: lambda _, error: JSONResponse({"error": str(error)}, error.status),
            HTTPException: lambda _, error: JSONResponse({"error": error.detail}, error.status_code),
            ClientDisconnect: lambda *_: Response(status_code=400),  # nobody is there to read it
            Exception: fault,
        }
        application = Starlette(
            routes=[
                *(Route(path, part) for path in STATIC), Route("/api/test", lambda _: JSONResponse(shown)),
                *(Route(f"/api/{name}", self.post, methods=["POST"]) for name in POSTS),
                *(Route(f"/audio/{{code}}/{rest}", audio) for rest in SLOTS),
                Route("/api/state/{code}", lambda asked: JSONResponse(study.state(asked.path_params["code"]))),
            ],
            middleware=[Middleware(PageGate, host=host, most=MOST_BYTES, rebound=not self.local)],
            exception_handlers=handlers,
        )  # fmt: skip
        application.router.redirect_slashes = False
        return application

    async def post(self, request: Request) -> Response:
        """Join, volume check or answer: the rater's new state."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise RefusedError(415, "Send application/json.")
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"This is not JSON: {error}.") from error
        if not isinstance(body, dict):
            raise RefusedError(400, "Send a JSON object.")
        return JSONResponse(await run_in_threadpool(self.take, request.url.path, body))

    def take(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        study, code = self.study, body.get("code")
        if path == "/api/join":
            key = str(body.get("key", "")).encode("utf-8", "replace")
            if not hmac.compare_digest(key, self.key.encode()):
                raise RefusedError(403, "This link is not complete; ask for it again.")
            code = study.join(body.get("name", ""))
        elif path == "/api/volume":
            study.volume(code, device=body.get("device"), beeps=body.get("heard"))
        else:
            session = Session(body.get("heard"), body.get("seconds"), body.get("switches", 0))
            study.answer(code, body.get("trial"), body.get("answer"), session)
        return study.state(code)
