"""Requests that no browser sends: against the listening server on a real port, and against the app's gate."""

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from harness import Case, Result
from mutations import NASTY, change_bytes, change_json, written
from world import World

Rng = np.random.Generator
METHODS = (
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "",
    "G" * 5000,
    "GET\0",
)
HOSTS = (
    "127.0.0.1",
    "localhost",
    "evil.example",
    "127.0.0.1.evil.example",
    "",
    "[::1]",
    "[",
    "localhost:99999",
    "\xff",
    "a@127.0.0.1",
)
PATHS = (
    "/",
    "/app.js",
    "/api/test",
    "/api/join",
    "/api/answer",
    "/api/volume",
    "/api/state/AAAAA-AAAAA",
    "/audio/AAAAA-AAAAA/0/0",
    "/../../../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "//etc/passwd",
    "/%00",
    "/audio/../../secret/secret.txt",
    "/\xff",
    "x",
    "http://evil.example/",
    "/" + "a" * 60_000,
    "/?" + "a=b&" * 5000,
    "/api/state/" + "A" * 1000,
    "*",
    "",
)
LENGTHS = (None, "0", "5", "-1", "99999999999", "1e9", "x", "", "5, 5", "\t7", "0x10")
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"{" * 100_000,
    b'{"code":',
    b"\xff" * 50,
    b'{"name":"\\ud800"}',
    b"0" * 100_000,
)


def request(rng: Rng) -> bytes:
    """A request, more or less."""

    def one(items: Any) -> Any:
        return items[rng.integers(len(items))]

    path, method = one(PATHS), "POST" if rng.random() < 0.4 else one(METHODS)
    body = written(
        change_json(
            {
                "code": "AAAAA-AAAAA",
                "key": "",
                "name": "x",
                "trial": 0,
                "answer": "A",
                "heard": [1.0, 2.0],
                "seconds": 3,
                "switches": 0,
                "device": "headphones",
            },
            rng,
        )
    )
    if rng.random() < 0.3:
        body = one(BODIES)
    headers = {"Host": one(HOSTS) if rng.random() < 0.4 else "127.0.0.1", "Content-Type": "application/json"}
    if rng.random() < 0.2:
        headers["Origin"] = one(("http://evil.example", "null", "http://127.0.0.1", "", "\xff"))
    if (length := str(len(body)) if rng.random() < 0.6 else one(LENGTHS)) is not None:
        headers["Content-Length"] = length
    if rng.random() < 0.1:
        headers["Transfer-Encoding"] = "chunked"
    if rng.random() < 0.1:
        headers["X" * int(rng.integers(1, 70_000))] = "y"
    lines = [f"{method} {path} {one(('HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/9.9', ''))}"]
    raw = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items())]).encode(
        "latin-1", "replace"
    )
    raw += b"\r\n\r\n" + body
    return change_bytes(raw, rng) if rng.random() < 0.3 else raw


def asked(address: tuple[str, int], raw: bytes) -> bytes:
    """What a connection answers until it is closed, or silent for a while; b"" for nothing."""
    parts = []
    with socket.create_connection(address, timeout=60) as line, suppress(OSError):
        line.sendall(raw)
        line.settimeout(60 if b"Connection: close" in raw else 0.3)
        while part := line.recv(65536):
            parts.append(part)
    return b"".join(parts)


def serving(world: World, room: Path, deed: Callable[[tuple[str, int]], str]) -> Result:
    """``deed`` against a server of the listening test: what it says is wrong, then whether the server is as it was."""
    from audioldm.listening import server as module
    from audioldm.listening.folder import load

    test = room / "test"
    shutil.copytree(world.test, test)
    before, threads = (test / "responses.jsonl").read_bytes(), threading.active_count()
    faults: list[str] = []
    server = module.Server(load(test))
    server.failure = faults.append
    server.start()
    address = ("127.0.0.1", server.address[1])
    try:
        wrong = deed(address)
        reply = asked(
            address,
            f"GET /api/test HTTP/1.1\r\nHost: 127.0.0.1:{address[1]}\r\nConnection: close\r\n\r\n".encode(),
        )
        if b"200 OK" not in reply:
            wrong = wrong or f"afterwards it does not serve: {reply[:200]!r}"
    finally:
        server.stop()
    for _ in range(3000):
        if threading.active_count() <= threads:
            break
        threading.Event().wait(0.02)
    else:
        wrong = wrong or f"{threading.active_count() - threads} threads stay"
    if faults:
        wrong = wrong or f"a fault of the server: {faults[0]}"
    if not (test / "responses.jsonl").read_bytes().startswith(before):
        wrong = wrong or "answers were lost"
    return Result(-1, "", wrong) if wrong else Result(0)


def few_requests(world: World, room: Path, rng: Rng) -> Result:
    """Requests one after the other; every reply is one of HTTP, without a path or a trace of this machine."""

    def deed(address: tuple[str, int]) -> str:
        for _ in range(20):
            raw = request(rng)
            reply = asked(address, raw)
            of_1991 = len(raw.split(b"\n")[0].split()) < 3  # HTTP/0.9 has no version, and a reply no head
            if (
                reply
                and not of_1991
                and not reply.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ", b"<!DOCTYPE", b"{"))
            ):
                return f"{raw[:200]!r} is answered by {reply[:200]!r}"
            status = reply[9:12]
            if (
                b"Traceback" in reply
                or str(room).encode() in reply
                or b"nobody reads" in reply
                or status == b"500"
            ):
                return f"{raw[:200]!r} is answered by {reply[:600]!r}"
            if b"evil" in raw.split(b"\r\n\r\n")[0] and status == b"200" and b"Host: evil" in raw:
                return f"{raw[:200]!r} of a foreign name is served"
        return ""

    return serving(world, room, deed)


def many_connections(world: World, room: Path, rng: Rng) -> Result:
    """Three hundred connections that say nothing, or half a request, and stay."""

    def deed(address: tuple[str, int]) -> str:
        lines = []
        for _ in range(300):
            line = socket.create_connection(address, timeout=60)
            line.sendall(b"POST /api/join HTTP/1.1\r\nHost: 127.0.0.1\r\n"[: int(rng.integers(0, 44))])
            lines.append(line)
        running = threading.active_count()
        for line in lines:
            line.close()
        threading.Event().wait(1.5)
        return f"{running} threads for 300 connections" if running > 150 else ""

    return serving(world, room, deed)


def endless_bodies(world: World, room: Path, rng: Rng) -> Result:
    """Bodies that never end, and bodies behind a refusal: the next request on the line is not read out of them."""

    def deed(address: tuple[str, int]) -> str:
        smuggled = b"GET /api/test HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for head in (
            "Content-Length: 99999999",
            "Transfer-Encoding: chunked",
            f"Content-Length: {len(smuggled)}",
        ):
            raw = f"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n{head}\r\n\r\n".encode()
            reply = asked(address, raw + smuggled)
            if reply.count(b"HTTP/1.1") > 1:
                return f"a body was read as a request: {reply[:400]!r}"
            with socket.create_connection(address, timeout=60) as line:
                try:
                    line.sendall(raw)
                    for _ in range(2000):
                        line.sendall(b"x" * 65536)
                except OSError:
                    continue
                return f"{head}: 128 MB of a body were taken"
        return ""

    return serving(world, room, deed)


async def through(gate: Any, scope: dict[str, Any], messages: Any) -> tuple[int, bytes, int]:
    """Status and body of a reply of the gate, and how many pieces of the request it took."""
    sent: list[dict[str, Any]] = []
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await asyncio.wait_for(gate(scope, receive, send), 20)
    status = next((message["status"] for message in sent if message["type"] == "http.response.start"), 0)
    return status, b"".join(message.get("body", b"") for message in sent), taken


def gated(world: World, room: Path, rng: Rng) -> Result:
    """Requests to the app's gate, before a page that would show every file it is asked for."""
    from audioldm.app.gate import Gate

    folder = room / "files"
    folder.mkdir()
    (folder / "mine.wav").write_bytes(b"RIFF")
    (folder / "mine.html").write_bytes(b"<script>")
    (folder / "link.wav").symlink_to(room / "beside.txt")
    (room / "beside.txt").write_text("nobody reads this")

    async def page(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        _, named, place = scope["path"].partition("file=")
        shown = (
            Path(place).read_bytes()
            if named and "\0" not in place and Path(place).is_file()
            else str(folder).encode() + body
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (shown[:7], shown[7:]):  # a path of this machine is cut in two
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    for local in (True, False):
        gate = Gate(page, folder=folder, host="127.0.0.1" if local else "0.0.0.0")
        for _ in range(40):
            wrong = asyncio.run(one_request(gate, room, rng))
            if wrong:
                return Result(-1, "", wrong)
    return Result(0)


async def one_request(gate: Any, room: Path, rng: Rng) -> str:
    """A random request to the gate; what is wrong with the answer."""

    def one(items: Any) -> Any:
        return items[rng.integers(len(items))]

    targets = (
        "mine.wav",
        "mine.html",
        "link.wav",
        "../beside.txt",
        "../../../etc/passwd",
        "..%2fbeside.txt",
        "mine.wav\0.png",
        "",
    )
    base = one((str(room / "files"), "/audioldm-files", "", str(room), "/etc"))
    path = one(
        (
            "/",
            "/config",
            "/gradio_api/upload",
            f"/gradio_api/file={base}/{one(targets)}",
            f"/file={base}/{one(targets)}",
        )
    )
    host, origin = one(HOSTS), one((None, "http://evil.example", "null", "", "http://[", "http://127.0.0.1"))
    headers = [(b"host", host.encode("latin-1"))] + (
        [(b"origin", origin.encode())] if origin is not None else []
    )
    headers += [(b"content-type", one((b"application/json", b"text/plain", b"multipart/form-data")))]
    body = written(NASTY[rng.integers(len(NASTY))])[:1000]
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    scope = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "headers": headers,
        "method": "POST",
        "query_string": b"",
    }
    status, reply, _ = await through(gate, scope, messages)
    asks = f"{path!r} of {host!r}, {origin!r}"
    if (
        status not in (200, 400, 403, 413, 421)
        or b"nobody reads" in reply
        or b"root:" in reply
        or b"<script>" in reply
    ):
        return f"{asks}: {status} {reply[:200]!r}"
    if status == 200 and ("evil" in host or "evil" in str(origin)):
        return f"{asks} is answered"
    if status == 200 and str(room).encode() in reply and "file=" not in path:
        return f"{asks}: the reply names a path: {reply[:200]!r}"
    return ""


def endless_json(world: World, room: Path, rng: Rng) -> Result:
    """JSON without end is not kept in memory."""
    from itertools import repeat

    from audioldm.app.gate import Gate

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = Gate(page, folder=room, host="127.0.0.1")
    piece = {"type": "http.request", "body": b"x" * 2**20, "more_body": True}
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "path": "/",
        "raw_path": b"/",
        "headers": headers,
        "method": "POST",
        "query_string": b"",
    }
    status, _, taken = asyncio.run(through(gate, scope, repeat(piece, 2000)))
    return Result(0) if status == 413 and taken < 100 else Result(-1, "", f"{status} after {taken} MiB")


def cases(world: World) -> list[Case]:
    """Twenty random requests each to the server, eighty to the gate; and what a flood does."""
    deeds = {
        "server": (few_requests, 6, 20),
        "gate": (gated, 6, 80),
        "connections": (many_connections, 1, 300),
        "bodies": (endless_bodies, 1, 6),
        "endless JSON": (endless_json, 1, 1),
    }
    out = []
    for name, (deed, few, count) in deeds.items():
        for number in range(few * (10 if world.large and few > 1 else 1)):
            rng = np.random.default_rng([world.seed, number, *name.encode()])

            def run(room: Path, deed: Any = deed, rng: Rng = rng) -> Result:
                return deed(world, room, rng)

            out.append(Case(f"HTTP: {name}", str(number), run, (0,), limit=600, count=count))
    return out
