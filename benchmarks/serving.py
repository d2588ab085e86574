"""Requests a second of ``audioldm serve``: many clients at once, by batches and one by one.

    python -m benchmarks.serving out.json embedded S --device cuda --mode fast --clients 16 --seconds 10

"S" is the published shape with random weights, other words are models.   Each client asks again as soon as it is
answered; every answer is read whole.   ``--batch 1`` of the server is one by one.
"""

import argparse
import http.client
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import torch

from benchmarks.measure import Row, machine
from benchmarks.shapes import build, ours

PORT = 8431


def ask(port: int, body: dict[str, Any]) -> float:
    """Seconds that one answer takes.   Raises RuntimeError for one that is no sound."""
    begun = time.perf_counter()
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    line.request("POST", "/v1/audio/generate", json.dumps(body), {"Content-Type": "application/json"})
    answer = line.getresponse()
    content = answer.read()
    line.close()
    if answer.status != 200 or content[:4] != b"RIFF":
        raise RuntimeError(f"{answer.status}: {content[:200]!r}")
    return time.perf_counter() - begun


def load(port: int, clients: int, seconds: float, body: dict[str, Any]) -> Row:
    """``clients`` that ask for ``seconds``; answers a second, in five windows of that time."""
    ends, waits, faults = list[float](), list[float](), list[str]()
    begun = time.perf_counter()

    def client(number: int) -> None:
        seed = 1000 * number
        while time.perf_counter() - begun < seconds:
            try:
                waits.append(ask(port, {**body, "seed": seed}))
                ends.append(time.perf_counter() - begun)
            except Exception as fault:  # counted, and shown
                faults.append(str(fault)[:200])
                return
            seed += 1

    threads = [Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    windows = [sum(i <= 5 * end / seconds < i + 1 for end in ends) * 5 / seconds for i in range(5)]
    rate = {
        "clips_per_s": median(windows),
        "min": min(windows),
        "max": max(windows),
        "n": 5,
        "faults": faults[:3],
    }
    return rate if not waits else {**rate, "median_wait_s": median(waits), "most_wait_s": max(waits)}


def ready(port: int, process: subprocess.Popen[bytes], limit: float = 120.0) -> None:
    """Until the server answers.   Raises RuntimeError where it ended."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < limit:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            line.request("GET", "/health")
            if line.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"no answer in {limit:.0f} s")


def main() -> None:
    """Start every server, then load one after the other; the file is written after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", default="fast")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--tiny", action="store_true", help="a toy in place of S")
    options = parser.parse_args()
    rows: dict[str, Any] = {"machine": machine(options.device), "clients": options.clients}
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        if "S" in options.models:
            ours(build("S", "cpu", tiny=options.tiny)).save_pretrained(folder, dtype=torch.bfloat16)
        servers = {}
        for place, (model, batch) in enumerate((m, b) for m in options.models for b in (options.clients, 1)):
            named = ["-m", folder if model == "S" else model] if model != "embedded" else []
            words = ["serve", *named, "--port", str(PORT + place), "--batch", str(batch)]
            words += ["--device", options.device, "--mode", options.mode]
            process = subprocess.Popen([sys.executable, "-m", "audioldm", *words])
            stack.callback(process.kill)
            servers[model, batch] = PORT + place, process
        for (model, batch), (port, process) in servers.items():
            name = f"{model}, batches of {batch}"
            body = {"input": "rain on a tin roof", "num_inference_steps": options.steps}
            try:
                ready(port, process)
                load(port, 1, 0.5, body), load(port, options.clients, 2.0, body)  # recorded here
                rows[name] = load(port, options.clients, options.seconds, body)
                if batch > 1:
                    rows[f"{model}, one client"] = load(port, 1, options.seconds / 3, body)
            except Exception as error:  # one server that fails must not hide the others
                rows[name] = {"error": str(error)[:300]}
            process.terminate()
            options.out.write_text(json.dumps(rows, indent=1))
            print(name, json.dumps(rows[name]), flush=True)


if __name__ == "__main__":
    main()
