"""The page as a server: many at once, nothing mixed or lost, no file outside its folder, a bounded queue."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file

GENERATE = ["", 0.3, 1, 0, 2, 2.0, "ddim"]  # negative, seconds, takes, seed, steps, guidance, sampler


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def asked(client, prompt, seed):
    negative, seconds, takes, _, *rest = GENERATE
    return client.submit(prompt, negative, seconds, takes, seed, *rest, api_name="/generate")


def test_twenty_requests_at_once_are_neither_lost_nor_mixed(client, studio):
    wanted = [(f"rain number {i}", 100 + i) for i in range(20)]
    with ThreadPoolExecutor(20) as pool:
        jobs = list(pool.map(lambda one: asked(client, *one), wanted))
        results = list(pool.map(lambda job: job.result(timeout=300), jobs))
    made = {}
    for path in studio.out.glob("*/rain_number_*.json"):
        record = json.loads(path.read_text())
        made[record["prompt"]] = (record["seed"], path.with_suffix(".wav"))
    assert {prompt: seed for prompt, (seed, _) in made.items()} == dict(wanted)
    for (prompt, seed), (status, first, *_) in zip(wanted, results, strict=True):
        assert status == "Done: 1 of 1.", status
        answer = Path(first["value"] if isinstance(first, dict) else first)
        assert answer.read_bytes() == made[prompt][1].read_bytes(), "everyone gets their own"
        assert f"seed{seed}" in answer.name


def test_no_file_outside_the_folder_can_be_read(address, client, studio, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("do not read")
    for route in ("gradio_api/file=", "file="):
        for path in (
            str(secret),
            "/etc/passwd",
            f"{studio.out}/../{tmp_path.name}/secret.txt",
            f"{studio.out}/%2e%2e/x",
        ):
            got = httpx.get(f"{address}/{route}{path}")
            assert got.status_code in (403, 404), (route, path, got.status_code)
            assert "do not read" not in got.text
    soundfile.write(tmp_path / "private.wav", np.zeros(8000), 8000)
    reference = {"path": str(tmp_path / "private.wav"), "meta": {"_type": "gradio.FileData"}}
    given = ["vary", reference, "", 0, 0, 0.5, 1, False, 1, 0, 2, 2.0, []]
    sent = httpx.post(f"{address}/gradio_api/call/edit", json={"data": given[:-1]})
    answer = httpx.get(f"{address}/gradio_api/call/edit/{sent.json()['event_id']}", timeout=60).text
    assert "event: error" in answer, "a path that was not uploaded is refused"


def test_a_mistake_is_a_sentence(client, tmp_path):
    assert asked(client, "", 0).result()[0].startswith("The prompt is empty.")
    (tmp_path / "fake.wav").write_text("not a sound")
    told = client.predict(
        "vary",
        handle_file(str(tmp_path / "fake.wav")),
        "",
        0,
        0,
        0.5,
        1,
        False,
        1,
        0,
        2,
        2.0,
        api_name="/edit",
    )
    assert told[0].startswith("This file is no sound")


def test_uploads_are_bounded(address):
    big = httpx.post(
        f"{address}/gradio_api/upload", files={"files": ("big.wav", b"\0" * (2 << 20))}, timeout=60
    )
    assert big.status_code == 413


def test_the_queue_is_bounded(studio):
    from audioldm.app import page

    blocks = page.build(studio)
    assert blocks._queue.max_size == studio.limits.waiting
    limits = [fn.concurrency_limit for fn in blocks.fns.values() if fn.concurrency_id == "model"]
    assert limits and set(limits) == {1}


def test_only_this_machine_is_served_unless_asked():
    import inspect

    from audioldm.app.command import serve

    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"
