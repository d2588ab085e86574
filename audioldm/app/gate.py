"""What stands between the network and the page: which files may go out, and under which names."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders

from audioldm import gate
from audioldm.gate import Message, Receive, Send, refuse

SERVED = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".png", ".json")  # nothing that a browser would run
ALIAS = "/audioldm-files"  # What the folder of files is called in requests and replies
MOST_JSON = 2**20  # bytes of a request: it names uploads and holds none


class Gate(gate.Gate):
    """ASGI middleware; ``folder`` holds uploads and results, ``host`` is where the page listens."""

    def __init__(self, app: Any, *, folder: Path, host: str) -> None:
        super().__init__(app, host=host)
        self.folder = str(folder.absolute())
        self.names = json.dumps(self.folder)[1:-1].encode(), self.folder.encode()  # in JSON, in plain text

    def refusal(self, scope: Message, headers: Headers) -> tuple[int, str] | None:
        """Why a request is not answered: also a file to keep back."""
        _, equals, name = unquote(scope["path"]).partition("file=")
        try:
            path = Path(name.replace(ALIAS, self.folder, 1)).resolve()
            served = path.is_relative_to(Path(self.folder).resolve()) and path.suffix.lower() in SERVED
        except (OSError, RuntimeError, ValueError):  # a circle of links, a name that no file can have
            served = False
        file = (403, "That file is not served.") if equals and not served else None
        return super().refusal(scope, headers) or file

    async def answer(self, scope: Message, receive: Receive, send: Send, headers: Headers) -> None:
        """Let the page answer under its alias: real paths on the way in, none of this machine's on the way out."""
        path = scope["path"].replace(ALIAS, self.folder)
        scope = {**scope, "path": path, "raw_path": path.encode()}
        if "json" in headers.get("content-type", ""):
            body, more = bytearray(), True
            while more and len(body) <= MOST_JSON:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
            if len(body) > MOST_JSON:
                await refuse(scope, receive, send, 413, f"Send at most {MOST_JSON} bytes of JSON.")
                return
            content = bytes(body).replace(ALIAS.encode(), self.names[0])
            scope["headers"] = list(scope["headers"])
            MutableHeaders(scope=scope)["content-length"] = str(len(content))
            queue, plain = [{"type": "http.request", "body": content, "more_body": False}], receive

            async def replay() -> Message:
                return queue.pop() if queue else await plain()

            receive = replay
        await self.app(scope, receive, send if "file=" in path else self.translating(send))

    def translating(self, send: Send) -> Send:
        """Replies under the alias; the end of a piece with which a real path may begin waits for the next piece."""
        rest = b""
        starts = [name[:size] for name in self.names for size in range(len(name))]

        async def translated(message: Message) -> None:
            nonlocal rest
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["content-length"]
            elif message["type"] == "http.response.body":
                body = rest + message.get("body", b"")
                for name in self.names:
                    body = body.replace(name, ALIAS.encode())
                cut = max(len(start) for start in starts if body.endswith(start))
                end = len(body) - cut * bool(message.get("more_body"))
                body, rest = body[:end], body[end:]
                message = {**message, "body": body}
            await send(message)

        return translated
