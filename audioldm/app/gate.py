"""What stands between the network and the page: which files may go out, and under which names."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from audioldm.serve import gate
from audioldm.serve.gate import HEADERS, Message, Receive, Send, refuse

SERVED = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".png", ".json", ".safetensors")
"""Endings of files that may go out: sounds, pictures, sidecars and adapters; nothing that a browser would run"""
ALIAS = "/audioldm-files"
"""What the folder of files is called in requests and replies"""
MOST_JSON = 2**20
"""bytes of a request: it names uploads and holds none"""


class Gate(gate.Gate):
    """ASGI middleware; ``folder`` holds uploads and results, ``host`` is where the page listens."""

    def __init__(self, app: Any, *, folder: Path, host: str) -> None:
        super().__init__(app, host=host)
        real, alias = str(folder.absolute()), ALIAS
        self.names = [(json.dumps(real)[1:-1].encode(), alias.encode()), (real.encode(), alias.encode())]
        self.folder = real

    async def answer(self, scope: Message, receive: Receive, send: Send, headers: dict[bytes, str]) -> None:
        """Let the page answer under its alias, of which real paths are made on the way in."""
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
        """Why a request is not answered: also a file to keep back."""
        if (refusal := super().refusal(scope, headers)) is not None:
            return refusal
        _, equals, path = unquote(scope["path"]).partition("file=")
        if not equals:
            return None
        try:
            inside = Path(path.replace(ALIAS, self.folder, 1)).resolve()
            served = inside.is_relative_to(Path(self.folder).resolve()) and inside.suffix.lower() in SERVED
        except (OSError, RuntimeError, ValueError):  # a circle of links, a name that no file can have
            served = False
        return None if served else (403, "That file is not served.")

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
