"""What stands between the network and the page: who may ask, which files may go out, and under which names."""

import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from audioldm.listening.server import host_name, is_local

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
SERVED = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".png", ".json", ".safetensors")
"""Endings of files that may go out: sounds, pictures, sidecars and adapters; nothing that a browser would run"""
ALIAS = "/audioldm-files"
"""What the folder of files is called in requests and replies"""
MOST_JSON = 2**20
"""bytes of a request: it names uploads and holds none"""
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"frame-ancestors 'self'",
}


class Gate:
    """ASGI middleware; ``folder`` holds uploads and results, ``host`` is where the page listens."""

    def __init__(self, app: Any, *, folder: Path, host: str) -> None:
        self.app, self.host, self.local = app, host, is_local(host)
        real, alias = str(folder.absolute()), ALIAS
        self.names = [(json.dumps(real)[1:-1].encode(), alias.encode()), (real.encode(), alias.encode())]
        self.folder = real

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with its status and one line."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                return
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if (refusal := self.refusal(scope, headers)) is not None:
            await refuse(send, *refusal)
            return
        scope = {**scope, "path": scope["path"].replace(ALIAS, self.folder)}
        scope["raw_path"] = scope["path"].encode()
        is_file = "file=" in scope["path"]
        if "json" in headers.get(b"content-type", ""):
            body = await whole_body(receive)
            if body is None:
                await refuse(send, 413, f"Send at most {MOST_JSON} bytes of JSON.")
                return
            scope, receive = self.translated(scope, receive, body)
        await self.app(scope, receive, send if is_file else self.translating(send))

    def refusal(self, scope: Message, headers: dict[bytes, str]) -> tuple[int, str] | None:
        """Why a request is not answered: a name that was rebound to this machine, another site, a file to keep back."""
        host = headers.get(b"host", "")
        if not self.is_own(host_name(host)):
            return 421, "This server does not answer to that name."
        origin = headers.get(b"origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "Another site may not ask here."
        _, equals, path = unquote(scope["path"]).partition("file=")
        if not equals:
            return None
        try:
            inside = Path(path.replace(ALIAS, self.folder, 1)).resolve()
            served = inside.is_relative_to(Path(self.folder).resolve()) and inside.suffix.lower() in SERVED
        except (OSError, RuntimeError, ValueError):  # a circle of links, a name that no file can have
            served = False
        return None if served else (403, "That file is not served.")

    def is_own(self, name: str) -> bool:
        """Whether ``name`` is one that this server listens at: no foreign name can be rebound to it."""
        if self.local:
            return is_local(name)
        try:
            ip_address(name)
        except ValueError:
            return name in {self.host, "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
        return True

    def translated(self, scope: Message, receive: Receive, body: bytes) -> tuple[Message, Receive]:
        """A request with JSON whose files have their real names."""
        content = body.replace(ALIAS.encode(), self.names[0][0])
        headers = [(n, v) for n, v in scope["headers"] if n.lower() != b"content-length"]
        headers.append((b"content-length", str(len(content)).encode()))
        queue = [{"type": "http.request", "body": content, "more_body": False}]

        async def replay() -> Message:
            return queue.pop() if queue else await receive()

        return {**scope, "headers": headers}, replay

    def translating(self, send: Send) -> Send:
        """Replies in which no path of this machine is named, also where it is cut between two pieces."""
        rest = b""

        async def forward(message: Message) -> None:
            nonlocal rest
            if message["type"] == "http.response.start":
                dropped = {b"content-length", *HEADERS}
                headers = [(n, v) for n, v in message.get("headers", []) if n.lower() not in dropped]
                message = {**message, "headers": [*headers, *HEADERS.items()]}
            elif message["type"] == "http.response.body":
                body = rest + message.get("body", b"")
                for real, alias in self.names:
                    body = body.replace(real, alias)
                keep = 0
                if message.get("more_body"):
                    keep = max(cut(body, real) for real, _ in self.names)
                body, rest = body[: len(body) - keep], body[len(body) - keep :]
                message = {**message, "body": body}
            await send(message)

        return forward


async def whole_body(receive: Receive) -> bytes | None:
    """A request's body; None for one that is longer than MOST_JSON."""
    body = bytearray()
    while len(body) <= MOST_JSON:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body) if len(body) <= MOST_JSON else None
    return None


def cut(body: bytes, name: bytes) -> int:
    """Bytes at the end of ``body`` with which ``name`` may begin.

    >>> cut(b"see /home/u", b"/home/user"), cut(b"see", b"/home")
    (7, 0)
    """
    return next(
        (size for size in range(min(len(body), len(name) - 1), 0, -1) if name.startswith(body[-size:])), 0
    )


async def refuse(send: Send, status: int, reason: str) -> None:
    """A status and one line of JSON."""
    content = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS.items()]})
    await send({"type": "http.response.body", "body": content})
