"""Generation over two workers of Ray: the clips of one process, each once, also after a worker was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("ray", reason="Ray is not here: pip install 'audioldm[ray]'")


def workers():
    """The processes that make a part."""
    places = {
        path.parent: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
    }
    return [int(place.name) for place, line in places.items() if line.startswith(b"ray::make")]


@pytest.mark.slow
def test_two_workers_share_a_prompt_file_and_a_lost_one_is_made_good(tmp_path, tiny_model, command):
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt\n" + "".join(f"rain number {i}\n" for i in range(6)))
    words = ["--prompts", prompts, "-m", tiny_model, "--device", "cpu", "--seconds", "5", "--steps", "8"]
    words += ["--set", "figure=false"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "integrations/ray/generate.py", "--parts", "3", "--", *words, "-o", tmp_path / "two"],
        env={
            **os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}', "RAY_AUTH_MODE": "disabled",  # else a token in the home
        },
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    end = time.monotonic() + 240
    while not list((tmp_path / "two").glob("*.json")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(workers()[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    print(output)
    assert process.returncode == 0, output
    assert command("generate", *words, "-o", tmp_path / "one") == 0
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.wav")} for name in ("one", "two")
    )
    assert len(one) == 6 and one == two
