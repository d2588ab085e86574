"""What stands between the network and an application: who may ask, and under which name."""

import hmac
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any

from audioldm.listening.server import host_name, is_local

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"frame-ancestors 'self'",
}
OPEN = ("/health", "/docs", "/openapi.json")
"""Paths that need no token"""


class Gate:
    """ASGI middleware for a server that listens at ``host``; with a ``token`` it wants to see it.

    Bodies of more than ``most`` bytes are refused.
    """

    def __init__(self, app: Any, *, host: str, token: str = "", most: int | None = None) -> None:
        self.app, self.host, self.token, self.most = app, host, token, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with its status and one line."""
        if scope["type"] == "http":
            headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
            if refusal := self.refusal(scope, headers):
                await refuse(send, *refusal)
            else:
                await self.answer(scope, receive, send, headers)
        elif scope["type"] != "websocket":
            await self.app(scope, receive, send)

    async def answer(self, scope: Message, receive: Receive, send: Send, headers: dict[bytes, str]) -> None:
        """Let the application answer."""
        await self.app(scope, receive, send)

    def refusal(self, scope: Message, headers: dict[bytes, str]) -> tuple[int, str] | None:
        """Why a request is not answered: a name that was rebound to this machine, another site, no token, its size."""
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not self.is_own(host_name(host)):
            return 421, "This server does not answer to that name."
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "Another site may not ask here."
        sent = headers.get(b"authorization", "").encode("latin-1")
        known = not self.token or hmac.compare_digest(sent, f"Bearer {self.token}".encode())
        if not known and scope["path"] not in OPEN:
            return 401, "Send the server's token as Authorization: Bearer TOKEN."
        return None if self.most is None else refusal_of_size(headers, self.most)

    def is_own(self, name: str) -> bool:
        """Whether ``name`` is one that this server listens at: no foreign name can be rebound to it."""
        if is_local(self.host):
            return is_local(name)
        try:
            return bool(ip_address(name))
        except ValueError:
            return name in {self.host, "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}


def refusal_of_size(headers: dict[bytes, str], most: int) -> tuple[int, str] | None:
    """Why a body is not read: its size is not said, or more than ``most`` bytes."""
    length = headers.get(b"content-length", "0")
    if b"transfer-encoding" in headers or not length.isdecimal():
        return 411, "Send a Content-Length."
    return (413, f"Send at most {most} bytes.") if int(length) > most else None


async def refuse(send: Send, status: int, reason: str) -> None:
    """A status and one line of JSON."""
    content = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS.items()]})
    await send({"type": "http.response.body", "body": content})
