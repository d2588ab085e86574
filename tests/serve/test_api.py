"""The API by a real server on a free port: sounds, sentences, gates, streams, and a load in which nothing is lost."""

import asyncio
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import httpx
import numpy as np
import pytest
import soundfile
import uvicorn

from audioldm.app.page import free_port
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.serve.api import build
from audioldm.serve.jobs import Jobs
from audioldm.serve.service import Limits, Service

ASK = {"input": "rain", "audio_length": 0.3, "num_inference_steps": 2, "seed": 7}


@pytest.fixture(scope="module")
def service(tiny_model):
    return Service(AudioLDM.from_pretrained(tiny_model), Limits(seconds=5.0, upload_mb=1), Jobs(128))


@pytest.fixture(scope="module")
def url(service):
    port = free_port("127.0.0.1")
    app = build(service, host="127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(30)
    assert service.jobs.closing


def wave_of(response):
    assert response.status_code == 200, response.text
    return soundfile.read(io.BytesIO(response.content), dtype="int16")


def ask(url, **changes):
    return httpx.post(f"{url}/v1/audio/generate", json={**ASK, **changes}, timeout=60)


def test_a_sound_is_the_pipeline_s_own(url, service):
    wave, rate = wave_of(ask(url))
    mine = service.pipe("rain", seeds=[7], seconds=0.3, steps=2)[0].numpy()
    assert rate == 16000 and np.array_equal(wave, np.rint(mine.clip(-1, 1) * 32767).astype(np.int16))


def test_formats_and_seeds(url):
    assert ask(url, response_format="flac").headers["content-type"] == "audio/flac"
    assert ask(url, response_format="mp3").content[:1] == b"\xff"
    drawn = ask(url, seed=None)
    assert drawn.content == ask(url, seed=int(drawn.headers["x-seed"])).content


def test_a_stream_is_the_sound_and_begins_before_its_end(url, service):
    asked = {**ASK, "audio_length": 5, "num_inference_steps": 4, "stream": True}
    with httpx.stream("POST", f"{url}/v1/audio/generate", json=asked, timeout=60) as response:
        pieces = response.iter_raw()
        content = next(pieces) + next(pieces)
        busy = bool(service.jobs.running)
        content += b"".join(pieces)
    assert busy, "the first piece comes while the rest is made"
    right = service.pipe("rain", seeds=[7], seconds=5, steps=4)[0]
    wave = np.frombuffer(content[44:], "<i2")
    assert np.array_equal(wave, (right.clamp(-1, 1) * 32767).round().short().numpy())
    refused = httpx.post(f"{url}/v1/audio/generate", json={**asked, "input": ""})
    assert refused.status_code == 422


def test_an_edit_of_an_upload(url, service):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(0).normal(size=8000), 16000, format="WAV")
    fields = {"kind": "vary", "input": "rain", "strength": "0.5", "seed": "3", "num_inference_steps": "2"}

    def send(**more):
        files = {"audio": ("a.wav", file.getvalue())}
        return httpx.post(f"{url}/v1/audio/edit", data={**fields, **more}, files=files, timeout=60)

    wave, _ = wave_of(send())
    assert len(wave) == 8000 and np.array_equal(wave, wave_of(send())[0])
    assert len(wave_of(send(kind="continue", audio_length="0.5"))[0]) == 16000
    assert "edit='sing' is unknown" in send(kind="sing").json()["error"]
    assert send(kind="inpaint").status_code == 422


def test_what_cannot_be_is_a_sentence(url):
    for changed, expected in (
        ({"input": " "}, "The prompt is empty"),
        ({"audio_length": 9}, "seconds=9 is more than 5"),
        ({"num_inference_steps": 0}, "steps=0"),
        ({"guidance_scale": -1}, "guidance=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"model": "gpt"}, "model='gpt' is not served"),
        ({"response_format": "midi"}, "response_format: "),
        ({"speed": 2}, "speed: extra inputs"),
        ({"stream": True, "response_format": "mp3"}, "stream goes with"),
    ):
        response = ask(url, **changed)
        assert response.status_code == 422 and expected in response.json()["error"]


def test_models_health_metrics_and_the_description(url):
    assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "tiny"
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    ask(url)
    counts = dict(re.findall(r"^(audioldm_\w+) (\S+)$", httpx.get(f"{url}/metrics").text, re.M))
    assert int(counts["audioldm_jobs_done_total"]) > 0 and float(counts["audioldm_sound_seconds_total"]) > 0.2
    assert "audio_length" in json.dumps(httpx.get(f"{url}/openapi.json").json())
    assert "swagger" in httpx.get(f"{url}/docs").text


def test_strangers_are_refused(url, service):
    assert httpx.get(f"{url}/health", headers={"Host": "evil.example"}).status_code == 421
    assert httpx.get(f"{url}/health", headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.post(f"{url}/v1/audio/generate", content=b"x" * 2**21).status_code == 413

    async def asked(**headers):
        app = httpx.ASGITransport(app=build(service, host="0.0.0.0", token="secret"))
        async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as client:
            paths = ("/v1/models", "/health")
            return [(await client.get(path, headers=headers)).status_code for path in paths]

    assert asyncio.run(asked()) == [401, 200]
    assert asyncio.run(asked(Authorization="Bearer wrong")) == [401, 200]
    assert asyncio.run(asked(Authorization="Bearer secret")) == [200, 200]


def test_a_client_that_leaves_stops_its_work(url, service):
    before = service.jobs.counts["stopped"]
    long = {**ASK, "audio_length": 5, "num_inference_steps": 200}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/audio/generate", timeout=0.5, json=long)
    end = time.monotonic() + 30
    while service.jobs.counts["stopped"] == before and time.monotonic() < end:
        time.sleep(0.05)
    assert service.jobs.counts["stopped"] == before + 1


def load(url, service, requests, clients):
    """Send ``requests`` by ``clients`` at once; every reply must be its own prompt's and seed's sound, to the byte."""
    kinds = [(f"rain number {i}", i, 0.1 + 0.1 * (i % 3)) for i in range(24)]
    right = {
        kind: hashlib.sha256(ask(url, input=kind[0], seed=kind[1], audio_length=kind[2]).content).digest()
        for kind in kinds
    }
    assert len(set(right.values())) == len(kinds)
    results = Counter()

    async def client(session, queue):
        while queue:
            prompt, seed, seconds = kind = kinds[queue.pop() % len(kinds)]
            body = {**ASK, "input": prompt, "seed": seed, "audio_length": seconds}
            reply = await session.post(f"{url}/v1/audio/generate", json=body)
            same = hashlib.sha256(reply.content).digest() == right[kind]
            results[(reply.status_code, same)] += 1

    async def all_clients():
        queue = list(range(requests))
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=clients)) as session:
            await asyncio.gather(*(client(session, queue) for _ in range(clients)))

    asyncio.run(all_clients())
    assert results == {(200, True): requests}


def test_a_load_loses_and_mixes_nothing(url, service):
    load(url, service, 72, 24)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_requests_lose_and_mix_nothing(url, service):
    load(url, service, 10_000, 64)


def test_a_batch_of_different_prompts_is_each_alone(tiny_model):
    jobs = Jobs(32, 8)
    service = Service(AudioLDM.from_pretrained(tiny_model), Limits(), jobs)
    hold = service.generating("hold", seed=0, seconds=1.0, steps=20)
    asked = [(f"rain number {i}", i) for i in range(8)]
    waiting = [service.generating(prompt, seed=seed, seconds=0.3, steps=2) for prompt, seed in asked]
    hold.future.result(60)
    results = [job.future.result(60).wave for job in waiting]
    assert jobs.counts["batches"] == 2
    for (prompt, seed), wave in zip(asked, results, strict=True):
        alone = service.pipe(prompt, seeds=[seed], seconds=0.3, steps=2)[0]
        assert (wave - alone).abs().max() <= 2 / 32768, "a batch moves rounding only"


def test_the_command_serves_and_stops_by_a_signal(tiny_model):
    port = free_port("127.0.0.1")
    words = ["-m", "audioldm", "serve", "--port", str(port), "-m", str(tiny_model), "--device", "cpu"]
    server = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    url, end, replies = f"http://127.0.0.1:{port}", time.monotonic() + 60, []
    while time.monotonic() < end:
        try:
            httpx.get(f"{url}/health")
            break
        except httpx.TransportError:
            time.sleep(0.2)
    long = {"audio_length": 5, "num_inference_steps": 60}
    thread = threading.Thread(target=lambda: replies.append(ask(url, **long).status_code))
    thread.start()
    while not httpx.get(f"{url}/health").json()["running"]:
        time.sleep(0.01)
    server.send_signal(signal.SIGINT)
    thread.join(60)
    assert replies == [200], "what was asked for before the end is answered"
    server.wait(30)
    assert "described at /docs" in server.stderr.read()
