"""The page as a server: many at once, nothing mixed or lost, no file outside its folder, a bounded queue."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def asked(client, prompt, seed):
    return client.submit(prompt, "", 0.3, 1, seed, 2, 2.0, "ddim", api_name="/generate")


def edit(address, reference):
    """The events of one edit of a file that the page knows."""
    asked = ["vary", reference, "", 0, 0, 0.5, 1, False, 1, 0, 2, 2.0]
    sent = httpx.post(f"{address}/gradio_api/call/edit", json={"data": asked})
    return httpx.get(f"{address}/gradio_api/call/edit/{sent.json()['event_id']}", timeout=60).text


def test_twenty_requests_at_once_are_neither_lost_nor_mixed(client, studio):
    wanted = [(f"rain number {i}", 100 + i) for i in range(20)]
    with ThreadPoolExecutor(20) as pool:
        jobs = list(pool.map(lambda one: asked(client, *one), wanted))
        results = list(pool.map(lambda job: job.result(timeout=300), jobs))
    output = {}
    for path in studio.results.glob("*/rain_number_*.json"):
        record = json.loads(path.read_text())
        output[record["prompt"]] = (record["seed"], path.with_suffix(".wav"))
    assert {prompt: seed for prompt, (seed, _) in output.items()} == dict(wanted)
    for (prompt, seed), (status, first, *_) in zip(wanted, results, strict=True):
        assert status == "Done: 1 of 1.", status
        answer = Path(first["value"] if isinstance(first, dict) else first)
        assert answer.read_bytes() == output[prompt][1].read_bytes(), "everyone gets their own"
        assert f"seed{seed}" in answer.name


def test_no_file_outside_the_folder_can_be_read(address, client, studio, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("do not read")
    for route in ("gradio_api/file=", "file="):
        others = (f"{studio.out}/../{tmp_path.name}/secret.txt", f"{studio.out}/%2e%2e/x")
        for path in (str(secret), "/etc/passwd", *others):
            got = httpx.get(f"{address}/{route}{path}")
            assert got.status_code in (403, 404), (route, path, got.status_code)
            assert "do not read" not in got.text
    soundfile.write(tmp_path / "private.wav", np.zeros(8000), 8000)
    reference = {"path": str(tmp_path / "private.wav"), "meta": {"_type": "gradio.FileData"}}
    answer = edit(address, reference)
    assert "event: error" in answer, "a path that was not uploaded is refused"


def test_the_queue_is_bounded(studio, trainer):
    from audioldm.app import page

    blocks = page.build(studio, trainer)
    assert blocks._queue.max_size == studio.limits.waiting
    limits = [fn.concurrency_limit for fn in blocks.fns.values() if fn.concurrency_id == "model"]
    assert limits and set(limits) == {1}


def test_an_uploaded_page_is_never_shown(address, studio):
    script = b"<html><script>alert(1)</script></html>"
    for name, kind in (("x.html", "text/html"), ("x.svg", "image/svg+xml"), ("x.wav.htm", "text/html")):
        sent = httpx.post(f"{address}/gradio_api/upload", files={"files": (name, script, kind)}, timeout=60)
        (path,) = sent.json()
        assert path.startswith("/audioldm-files/"), "the reply names no path of this machine"
        for place in (path, path.replace("/audioldm-files", str(studio.out))):
            reply = httpx.get(f"{address}/gradio_api/file={place}")
            assert reply.status_code == 403 and b"script" not in reply.content
    (studio.results / "planted").mkdir(parents=True, exist_ok=True)
    (studio.results / "planted" / "x.html").write_bytes(script)
    assert httpx.get(f"{address}/gradio_api/file={studio.results}/planted/x.html").status_code == 403


def test_no_reply_names_a_path_of_this_machine(address, studio, tmp_path):
    sound = tmp_path / "noise.wav"
    soundfile.write(sound, 0.1 * np.random.default_rng(0).normal(size=8000), 16000)
    (path,) = httpx.post(
        f"{address}/gradio_api/upload", files={"files": ("noise.wav", sound.read_bytes())}
    ).json()
    reference = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = edit(address, reference)
    assert "Done: 1 of 1." in answer and "/audioldm-files/" in answer
    pages = [answer, httpx.get(address).text, httpx.get(f"{address}/config").text]
    assert not [page for page in pages if str(studio.out) in page]
    place = answer[answer.index("/audioldm-files/") :].split('"')[0]
    reply = httpx.get(f"{address}/gradio_api/file={place}")
    assert reply.status_code == 200 and reply.content[:4] == b"RIFF"


def test_what_may_not_be_asked_is_refused_and_no_fault(address):
    port = address.rsplit(":", 1)[1]
    assert httpx.get(address, headers={"Host": f"evil.example:{port}"}).status_code == 421
    for origin in ("http://evil.example", "http://[", "null", ""):
        assert httpx.get(address, headers={"Origin": origin}).status_code == 403
    assert httpx.get(address, headers={"Origin": address}).status_code == 200
    assert httpx.get(address.replace("127.0.0.1", "localhost")).status_code == 200
    assert httpx.get(f"{address}/gradio_api/file=x%00.png").status_code == 403
    long = httpx.post(f"{address}/gradio_api/call/edit", json={"data": ["x" * 2**20]}, timeout=60)
    assert long.status_code == 413 and "at most" in long.json()["error"]
    files = {"files": ("big.wav", b"\0" * (2 << 20))}
    assert httpx.post(f"{address}/gradio_api/upload", files=files, timeout=60).status_code == 413


def test_a_page_for_others_answers_to_addresses_and_its_own_names_only(tmp_path):
    import socket

    from audioldm.app.gate import Gate

    gate = Gate(None, folder=tmp_path, host="0.0.0.0")
    known = ("192.168.1.7", "::1", "localhost", socket.gethostname().lower())
    assert [gate.is_own(name) for name in (*known, "evil.example", "")] == [True] * 4 + [False] * 2
