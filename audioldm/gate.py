"""What stands between the network and an application: who may ask, under which name, and how much may be sent."""

import hmac
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, ClassVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HEADERS = {
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'self'",
}  # fmt: skip
OPEN = ("/health", "/docs", "/openapi.json")  # Paths that need no token


def is_local(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(str(host)).is_loopback
    except ValueError:
        return False


class Gate:
    """ASGI middleware for a server that listens at ``host``; every reply gets ``headers``.

    With a ``token`` it wants to see it; bodies of more than ``most`` bytes are refused, and with ``rebound`` False
    requests under names that may have been rebound to this machine.
    """

    headers: ClassVar[dict[str, str]] = HEADERS

    def __init__(
        self, app: Any, *, host: str, token: str = "", most: int | None = None, rebound: bool = False
    ) -> None:
        self.app, self.host, self.token, self.most, self.rebound = app, host, token, most, rebound

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] != "websocket":
                await self.app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        headers = Headers(scope=scope)
        if refusal := self.refusal(scope, headers):
            await refuse(scope, receive, sealed, *refusal)
        else:
            await self.answer(scope, receive, sealed, headers)

    async def answer(self, scope: Message, receive: Receive, send: Send, headers: Headers) -> None:
        await self.app(scope, receive, send)

    def refusal(self, scope: Message, headers: Headers) -> tuple[int, str] | None:
        """Why a request is not answered: a name that was rebound to this machine, another site, no token, its size."""
        host, name = headers.get("host", ""), None
        with suppress(ValueError):  # what is no name at all
            name = urlsplit(f"//{host}").hostname
        if not (self.rebound or self.is_own(name)):
            return 421, "This server does not answer to that name."
        if headers.get("origin", f"://{host}").partition("://")[2] != host:
            return 403, "Another site may not ask here."
        sent = headers.get("authorization", "").encode("latin-1")
        known = not self.token or hmac.compare_digest(sent, f"Bearer {self.token}".encode())
        if not known and scope["path"] not in OPEN:
            return 401, "Send the server's token as Authorization: Bearer TOKEN."
        return None if self.most is None else too_long(headers, self.most)

    def is_own(self, name: str | None) -> bool:
        """Whether ``name`` is one that this server listens at: no foreign name can be rebound to it."""
        if is_local(self.host):
            return is_local(name)
        try:
            return bool(ip_address(str(name)))
        except ValueError:
            return name in {self.host, "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}


def too_long(headers: Headers, most: int) -> tuple[int, str] | None:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal():
        return 411, "Send a Content-Length."
    return (413, f"Send at most {most} bytes.") if int(length) > most else None


async def refuse(scope: Message, receive: Receive, send: Send, status: int, reason: str) -> None:
    """A status and one line of JSON; whatever is left of a body is not read."""
    await JSONResponse({"error": reason}, status, {"Connection": "close"})(scope, receive, send)
