"""The server over a real socket: what it serves, what it refuses, and that garbage changes nothing."""

import http.client
import json
import re
import socket
from contextlib import suppress
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from audioldm.errors import AudioLDMError
from audioldm.gate import is_local
from audioldm.listening.folder import answers_of
from audioldm.listening.server import MOST_BYTES, PAGE, STATIC, Server

JSON = {"Content-Type": "application/json"}
JOIN = b"POST /api/join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def ask(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.address[1], timeout=10)
    connection.request(method, path, body, headers or {})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def post(server, path, content, **headers):
    reply, body = ask(server, "POST", path, json.dumps(content), {**JSON, **headers})
    return reply.status, json.loads(body)


def raw(server, data):
    """Send bytes as they are and return all that comes back until the line is closed, or silent for a while."""
    with socket.create_connection(("127.0.0.1", server.address[1]), timeout=5) as line:
        line.sendall(data)
        line.settimeout(0.2 if b"Connection: close" not in data else 5)
        answer = b""
        with suppress(TimeoutError, ConnectionError):
            while part := line.recv(65536):
                answer += part
    return answer


def joined(server):
    code = post(server, "/api/join", {"name": ""})[1]["code"]
    study = server.study
    post(server, "/api/volume", {"code": code, "device": "headphones", "heard": study.rater(code).beeps})
    return code


def test_the_page_and_its_parts(serve):
    server = serve()
    for path, (_name, kind) in STATIC.items():
        for method, least in (("GET", 300), ("HEAD", 0)):
            reply, content = ask(server, method, path)
            assert (reply.status, reply.headers["Content-Type"]) == (200, kind)
            assert len(content) > least or (method == "HEAD" and not content)
            assert int(reply.headers["Content-Length"]) > 300
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert reply.headers["Cache-Control"] == "no-store"
    for path in PAGE.iterdir():
        assert not re.search(r"https?://|//[a-z]+\.", path.read_text()), f"{path} names another host"


def test_a_test_over_http(serve):
    server = serve(training=0)
    status, state = post(server, "/api/join", {"name": "Ada"})
    assert (status, state["phase"]) == (200, "volume")
    code = state["code"]
    played = server.study.rater(code).beeps
    reply, sound = ask(server, "GET", f"/audio/{code}/beeps/0")
    assert reply.headers["Content-Type"] == "audio/wav"
    assert sound == (server.study.test.folder / "audio" / f"beeps{played}.wav").read_bytes()
    status, state = post(server, "/api/volume", {"code": code, "device": "headphones", "heard": played})
    while state["phase"] == "trial":
        index = state["trial"]["index"]
        for slot in range(2):
            assert ask(server, "GET", f"/audio/{code}/{index}/{slot}")[1][:4] == b"RIFF"
        answer = {"code": code, "trial": index, "answer": "B", "heard": [1.0, 1.0]}
        status, state = post(server, "/api/answer", {**answer, "seconds": 4, "switches": 1})
        assert status == 200
    assert state["phase"] == "done"
    assert json.loads(ask(server, "GET", f"/api/state/{code}")[1]) == state
    events, cut = answers_of(server.study.test, {})
    assert (
        cut == 0 and [event["event"] for event in events] == ["join", "volume"] + ["answer"] * state["total"]
    )
    assert all(set(event["stimuli"]) <= set(server.study.test.clips) for event in events[2:])


def test_bodies_that_are_refused(serve):
    server = serve()
    code = joined(server)
    before = server.study.test.responses.read_bytes()
    big = json.dumps({"code": code, "x": "y" * MOST_BYTES})
    cases = [
        (415, "{}", {"Content-Type": "text/plain"}),
        (415, "{}", {}),
        (400, "{", JSON),
        (400, "[" * 5000, JSON),
        (400, "[]", JSON),
        (400, '"x"', JSON),
        (400, b"\xff\xfe{}", JSON),
        (413, big, JSON),
    ]
    for status, body, headers in cases:
        reply, content = ask(server, "POST", "/api/answer", body, headers)
        assert reply.status == status, (body[:20], content)
        assert json.loads(content)["error"]
    assert b" 411 " in raw(server, JOIN + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert server.study.test.responses.read_bytes() == before


def test_other_methods_are_refused(serve):
    server = serve()
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        reply, content = ask(server, method, "/")
        assert reply.status == 405 and "error" in json.loads(content)


PATHS = [
    "/key.json", "/test.json", "/responses.jsonl", "/audio/", "/audio/../key.json", "/../key.json", "/..%2fkey.json",
    "/%2e%2e/key.json", "//etc/passwd", "/etc/passwd", "/page/index.html", "/index.html", "/audio/key.json",
    "/audio/AAAAA-AAAAA/0/0", "/audio/AAAAA-AAAAA/volume", "/audio/CODE/0/../../key.json", "/audio/CODE/0/key.json",
    "/audio/CODE/0/0/../../../../key.json", "/audio/CODE/99999/0", "/audio/CODE/0/%2e%2e", "/app.js/../key.json",
    "/style.css%00.json", "/.git/config", "/api/state/", "/api/state/CODE/..", "/api/answer", "\\..\\key.json",
]  # fmt: skip


def test_no_path_leads_to_a_file(serve):
    server = serve()
    code, name = joined(server), next(iter(server.study.test.clips))
    for path in [*PATHS, f"/audio/{name}", f"/audio/CODE/{name}", f"/{name}"]:
        request = f"GET {path.replace('CODE', code)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = raw(server, request.encode())
        assert re.match(rb"HTTP/1\.1 40[045] ", answer), (path, answer[:200])
        for secret in (server.study.test.design.secret, "root:", '"design"', "[core]"):
            assert secret.encode() not in answer


def test_other_sites_and_rebound_names_are_refused(serve):
    server = serve()
    assert ask(server, "GET", "/", headers={"Host": "evil.example"})[0].status == 421
    assert ask(server, "GET", "/", headers={"Host": "["})[0].status == 421
    assert post(server, "/api/join", {"name": ""}, Origin="http://evil.example")[0] == 403
    own = f"http://127.0.0.1:{server.address[1]}"
    assert post(server, "/api/join", {"name": ""}, Origin=own)[0] == 200
    (line,) = server.study.test.responses.read_text().splitlines()
    assert json.loads(line)["event"] == "join"


def test_only_this_machine_by_default(make):
    server = Server(make())
    assert (server.address[0], server.local, server.key) == ("127.0.0.1", True, "")
    server.stop()
    assert [is_local(host) for host in ("localhost", "::1", "127.0.0.2", "0.0.0.0", "10.0.0.1", "x.org")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_others_need_the_link(make):
    server = Server(make(), host="0.0.0.0")
    server.start()
    try:
        assert server.url.endswith(f"#{server.key}")
        assert "//0.0.0.0" not in server.url, "a phone cannot open that"
        assert len(server.key) >= 12
        for key in ("", "guess", None, 5, "\ud800"):
            status, told = post(server, "/api/join", {"name": "", "key": key})
            assert status == 403, told
        assert post(server, "/api/join", {"name": "", "key": server.key})[0] == 200
    finally:
        server.stop()


def test_a_port_that_is_taken(serve, make):
    server = serve()
    with pytest.raises(AudioLDMError, match="cannot be opened"):
        Server(make("acr"), port=server.address[1])


words = st.sampled_from(["code", "trial", "answer", "heard", "seconds", "switches", "device", "name", "key"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("A")
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.sampled_from(["/api/answer", "/api/volume"]), st.dictionaries(words, values), st.booleans())
@example(path="/api/answer", body={"trial": 0, "answer": "A", "heard": [1e308, 1e309]}, mine=True)
@example(path="/api/answer", body={"trial": 0, "answer": "A", "heard": [10**400, 1]}, mine=True)
@example(path="/api/answer", body={"trial": False, "answer": "A", "heard": [2, 2]}, mine=True)
def test_garbage_in_json_changes_nothing(fuzzed, path, body, mine):
    server, code = fuzzed
    if mine:
        body = {**body, "code": code}
    before = server.study.test.responses.read_bytes()
    status, _ = post(server, path, body)
    assert 400 <= status < 500
    assert server.study.test.responses.read_bytes() == before


@FUZZ
@given(st.binary(max_size=300))
@example(b"GET / HTTP/9.9\r\n\r\n")
@example(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")
@example(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n")
@example(JOIN + b"Content-Length: -5\r\n\r\n{}")
@example(JOIN + b"Content-Length: 90\r\n\r\n{}")
@example(JOIN + b"Content-Length: 2\r\n\r\n[]")
def test_garbage_on_the_line_changes_nothing(fuzzed, data):
    server, _ = fuzzed
    before = server.study.test.responses.read_bytes()
    answer = raw(server, data)
    assert not re.search(rb"HTTP/1\.1 (2|500)", answer), answer[:100]
    assert server.study.test.responses.read_bytes() == before
    assert ask(server, "GET", "/api/test")[0].status == 200, "it still answers"


@FUZZ
@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#?"), max_size=60))
def test_any_path_is_the_page_or_nothing(fuzzed, tail):
    server, code = fuzzed
    for path in (f"/{tail}", f"/audio/{code}/{tail}", f"/audio/{tail}"):
        answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        status = int(answer[9:12])
        sound = re.fullmatch(rf"/audio/{code}/(0*[01]/[01]|(volume|beeps)(/\d+)?)", unquote(path))
        known = path in STATIC or path == "/api/test" or sound is not None
        assert status == 200 if known else 400 <= status < 500
        assert server.study.test.design.secret.encode() not in answer


@pytest.fixture
def fuzzed(serve):
    server = serve()
    return server, joined(server)
