"""pip installs the wheel into an empty environment, as it resolves it today, and the command works there."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: object, cwd: Path, timeout: int = 1800) -> str:
    kept = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_pip_install_then_generate_rain(tmp_path):
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    programs = tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "--no-cache-dir", wheel, cwd=tmp_path)
    lines = run(programs / "audioldm", "generate", "rain", cwd=tmp_path).split()
    assert [Path(line).name for line in lines] == [f"rain_seed0.{kind}" for kind in ("wav", "png", "json")]
    record = json.loads((tmp_path / "out" / "rain_seed0.json").read_text(encoding="utf-8"))
    assert record["sound"]["peak"] > 0.01 and (tmp_path / "out" / "rain_seed0.wav").stat().st_size > 10_000
    text = run(programs / "audioldm", "doctor", cwd=tmp_path)
    assert "torch" in text
