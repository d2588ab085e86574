"""``audioldm listen``: from folders to a report on the command line, and its refusals."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audioldm.listening.folder import load
from audioldm.listening.study import Study
from notebooks.simulated_raters import take

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        for i in range(3):
            path = tmp_path / name / f"clip{i}.wav"
            soundfile.write(path, 0.1 * rng.normal(size=8000).astype(np.float32), 16_000)
            path.with_suffix(".json").write_text(json.dumps({"prompt": f"sound number {i}"}))
    return tmp_path


def test_prepare_and_analyse(command, folders, capsys):
    places = (folders / "old", f"better={folders / 'new'}", "-o", folders / "test")
    assert command("listen", "prepare", *places) == 0
    out = capsys.readouterr().out
    assert "ab, 2 systems x 3 prompts" in out
    assert "12 raters x 3 prompts find a true preference of 60% in" in out
    assert f"next: audioldm listen serve {folders / 'test'}" in out
    assert command("listen", "analyse", folders / "test") == 1
    assert "no answers yet" in capsys.readouterr().err
    study = Study(load(folders / "test"))
    for i in range(3):
        take(study, {"better": 2.0, "old": 0.0}, rng=random.Random(i))
    study.close()
    assert command("listen", "analyse", folders / "test", "--resamples", 500) == 0
    out = capsys.readouterr().out
    assert "better over old" in out
    assert "3 of 3 raters are simulated" in out
    assert (folders / "test/analysis/report.html").is_file()
    assert command("listen", "analyse", folders / "test", "--resamples", 500, "--json") == 0
    assert json.loads(capsys.readouterr().out)["raters_counted"] == 3
    assert command("listen", "prepare", *places, "--force") == 2
    assert "holds answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("prepare", "old", "old", "-o", "t"), "Two systems are called 'old'"),
        (("prepare", "old", "nowhere", "-o", "t"), "There is no folder nowhere"),
        (("prepare", "old", "new", "-o", "t", "--method", "mos"), "--method"),
        (("prepare", "old", "new", "-o", "t", "--raters", "0"), "raters=0 is out of range"),
        (("prepare", "old", "new", "-o", "old"), "old exists"),
        (("serve", "nowhere"), "There is no nowhere/test.json"),
        (("serve", "nowhere", "--port", "70000"), "port=70000 is out of range"),
        (("analyse", "nowhere"), "There is no nowhere/test.json"),
        (("analyse", "nowhere", "--resamples", "5"), "resamples=5"),
    ],
)
def test_wrong_use_is_one_line(command, folders, capsys, monkeypatch, words, expected):
    monkeypatch.chdir(folders)
    before = sorted(folders.rglob("*"))
    assert command("listen", *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err
    assert sorted(folders.rglob("*")) == before


def test_serve_until_interrupted(command, folders):
    assert command("listen", "prepare", folders / "old", folders / "new", "-o", folders / "test") == 0
    words = [sys.executable, "-m", "audioldm", "listen", "serve", str(folders / "test"), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=environment,
        # a job that a script put in the background ignores SIGINT, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        with urllib.request.urlopen(url + "api/test", timeout=10) as reply:
            assert json.load(reply)["method"] == "ab"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "stopped; next: audioldm listen analyse" in rest
