"""``audioldm generate``: what an interrupt and a full disk leave behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from audioldm.pipeline import outputs

ROOT = Path(__file__).parents[2]


def test_interrupt_leaves_only_whole_clips(tiny_model, tmp_path):
    out = tmp_path / "out"
    words = ["generate", "rain", "-n", "500", "--steps", "2", "--seconds", "0.5"]
    run = subprocess.Popen(
        [sys.executable, "-m", "audioldm", *words, "-m", str(tiny_model), "-o", str(out)],
        # a job that a script put in the background ignores SIGINT, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(out.glob("*_seed2.wav")) and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    printed, err = run.communicate(timeout=120)
    assert run.returncode == 130 and "interrupted" in err and "Traceback" not in err, err
    files = {path.name for path in out.iterdir()}
    stems = {name.rsplit(".", 1)[0] for name in files}
    assert files == {f"{stem}.{kind}" for stem in stems for kind in ("wav", "png", "json")}
    assert 3 <= len(stems) < 500
    assert all(soundfile.info(out / f"{stem}.wav").frames == 8000 for stem in stems)
    assert len(set(printed.split())) >= 3 * (len(stems) - 1)


def test_interrupt_inside_a_weak_reference_is_not_lost(python):
    # Python cannot raise there: without repeat_interrupts the loop would go on to its end.
    done = python("""
import os, signal, time, weakref
from audioldm.cli.startup import repeat_interrupts
class Thing: pass
signal.signal(signal.SIGINT, signal.default_int_handler)
def press(reference):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
repeat_interrupts()
thing = Thing()
reference = weakref.ref(thing, press)
try:
    del thing
    print("ignored")
    began = time.monotonic()
    time.sleep(60)
    print("lost")
except KeyboardInterrupt:
    print("caught", "waiting" if time.monotonic() - began < 30 else "afterwards")
""")
    assert done.stdout.split() == ["ignored", "caught", "waiting"], done.stderr


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_while_writing_leaves_nothing(monkeypatch, tmp_path, failure):
    from audioldm.errors import AudioLDMError

    real = Path.write_bytes

    def fail(path, data):
        real(path, data[:10])
        if ".wav" in path.name:
            raise failure

    (tmp_path / "a.json").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises((KeyboardInterrupt, AudioLDMError)) as caught:
        outputs.publish({tmp_path / "a.json": b"{}", tmp_path / "a.wav": b"RIFF" * 9})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"
    assert isinstance(failure, KeyboardInterrupt) or caught.value.code == 1
