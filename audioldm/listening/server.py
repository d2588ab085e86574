"""The page and its small API over HTTP.   Only names in a table are ever served: no part of a URL becomes a path."""

import hmac
import json
import re
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from audioldm.errors import AudioLDMError
from audioldm.listening.design import METHODS
from audioldm.listening.folder import Test
from audioldm.listening.study import DEVICES, RefusedError, Session, Study

PAGE = Path(__file__).with_name("page")
STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in ("app", "tasks", "player")
    },
}
STATE = re.compile(r"/api/state/([A-Za-z2-7]{5}-[A-Za-z2-7]{5})")
AUDIO = re.compile(r"/audio/([A-Z2-7]{5}-[A-Z2-7]{5})/(?:(\d{1,5})/(\d{1,2}|ref)|(volume|beeps)(?:/\d)?)")
MOST_BYTES = 16_384
"""of a request's body: an answer has a few hundred"""
TIMEOUT_SECONDS = 30
MOST_CONNECTIONS = 128
"""at a time, a thread each; a rater's browser has a few"""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*",  # a notebook shows the page in a frame
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Reply = tuple[bytes, str]
"""a body and its kind"""


class Server(ThreadingHTTPServer):
    """Serves one study; on any address but this machine's own a pass is needed to join."""

    daemon_threads = True
    # beyond Python's five that wait to be accepted, a connection is tried again only after a second or more
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, test: Test, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.local = is_local(host)
        self.key = "" if self.local else secrets.token_urlsafe(9)
        self.study = Study(test)
        self.slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self.failure: Callable[[str], None] = lambda message: None
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            self.study.close()
            raise AudioLDMError(
                f"{host}:{port} cannot be opened: {error.strerror or error}.", "Use another --port or --host."
            ) from error

    @property
    def url(self) -> str:
        """What a rater opens; it carries the pass where one is needed."""
        host, port = str(self.server_address[0]), self.server_address[1]
        if host == "0.0.0.0":  # every address: name the one by which this machine reaches its network
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
                try:
                    line.connect(("192.0.2.1", 9))  # RFC 5737: nobody's address; nothing is sent
                    host = line.getsockname()[0]
                except OSError:
                    host = socket.gethostname()
        return f"http://{host}:{port}/" + (f"#{self.key}" if self.key else "")

    def start(self) -> threading.Thread:
        """Serve from a thread of its own until ``stop``."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """End ``start``'s thread and let go of the port and the log."""
        self.shutdown()
        self.server_close()
        self.study.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread; where all stay busy for a second it is closed, and a browser asks again."""
        if self.slots.acquire(timeout=1):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, and give its thread back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is the client's affair; a fault of ours is reported."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            self.failure(f"{type(error).__name__}: {error}")


def is_local(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a Host header, without its port; "" for what is none."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "audioldm-listen"
    sys_version = ""
    timeout = TIMEOUT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log of answers is the log."""

    def do_GET(self) -> None:
        """Do what is asked and send what it gives; a refusal becomes its status and one line of JSON."""
        path, post = self.path.partition("?")[0], self.command == "POST"
        has_body = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        try:
            self.check_origin()
            status, (content, kind) = 200, self.post(path) if post else self.get(path)
        except RefusedError as refusal:
            status, (content, kind) = refusal.status, as_json({"error": str(refusal)})
        except (ConnectionError, TimeoutError):  # the client went, or waits, in the middle of its body
            raise
        except OSError as error:
            self.server.failure(f"{self.path}: {error}")
            status, (content, kind) = 500, as_json({"error": "The test's computer failed."})
        # a body that was refused, or that nobody reads, may still be on the line
        self.close_connection |= status != 200 or (has_body and not post)
        self.send(status, content, kind)

    do_HEAD = do_POST = do_GET  # noqa: N815

    def send(self, status: int, content: bytes, kind: str) -> None:
        """The status, the headers and, but for HEAD, the content."""
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def check_origin(self) -> None:
        """Refuse requests that another site made a browser send, and names that were rebound to this machine."""
        host = self.headers.get("Host", "")
        if self.server.local and not is_local(host_name(host)):
            raise RefusedError(421, "This server answers only to localhost.")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            raise RefusedError(403, "Another site may not ask here.")

    def get(self, path: str) -> Reply:
        """The page, what it shows first, a rater's state, or a sound."""
        study = self.server.study
        if path in STATIC:
            name, kind = STATIC[path]
            return (PAGE / name).read_bytes(), kind
        if path == "/api/test":
            about = study.test.about
            names = ("title", "method", "trials_per_rater", "minutes_per_rater")
            shown = {name: about[name] for name in names} | {"id": about["key_sha256"][:12]}
            return as_json({**shown, "tasks": METHODS[about["method"]], "devices": DEVICES})
        if match := STATE.fullmatch(path):
            return as_json(study.state(match[1]))
        if match := AUDIO.fullmatch(path):
            code, trial, slot, check = match.groups()
            return study.audio(code, int(trial or 0), slot or check).read_bytes(), "audio/wav"
        raise RefusedError(404, "There is nothing here.")

    def post(self, path: str) -> Reply:
        """Join, volume check or answer: the rater's new state."""
        study, body = self.server.study, self.body()
        code = body.get("code")
        if path == "/api/join":
            key = str(body.get("key", "")).encode("utf-8", "replace")
            if not hmac.compare_digest(key, self.server.key.encode()):
                raise RefusedError(403, "This link is not complete; ask for it again.")
            code = study.join(body.get("name", ""))
        elif path == "/api/volume":
            study.volume(code, device=body.get("device"), beeps=body.get("heard"))
        elif path == "/api/answer":
            session = Session(body.get("heard"), body.get("seconds"), body.get("switches", 0))
            study.answer(code, body.get("trial"), body.get("answer"), session)
        else:
            raise RefusedError(404, "There is nothing here.")
        return as_json(study.state(code))

    def body(self) -> dict[str, Any]:
        """The JSON object a request carries."""
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(415, "Send application/json.")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length) or "Transfer-Encoding" in self.headers:
            raise RefusedError(411, "Send a Content-Length.")
        if int(length) > MOST_BYTES:
            raise RefusedError(413, f"Send at most {MOST_BYTES} bytes.")
        raw = self.rfile.read(int(length))
        try:
            content = json.loads(raw) if len(raw) == int(length) else None
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"This is not JSON: {error}.") from error
        if not isinstance(content, dict):
            raise RefusedError(400, "Send a whole JSON object.")
        return content

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the protocol itself, in the same form as ours."""
        self.close_connection = True
        self.send(code, *as_json({"error": message or HTTPStatus(code).phrase}))


def as_json(content: dict[str, Any]) -> Reply:
    """A JSON object."""
    return json.dumps(content).encode(), "application/json"
