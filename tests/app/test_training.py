"""Training from the page: stop, go on, and what is refused; a whole one is in test_page."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gradio_client import Client

from audioldm.app.training import Trainer, Training, TrainRequest, kinds
from audioldm.errors import AudioLDMError

SHORT = TrainRequest(folder="my dogs", prompt="a dog, {barking} = '1'", batches=4, batch_size=2, seed=3)


@pytest.fixture
def idle(trainer):
    """The trainer with nothing going on, before and after."""
    trainer.stop()
    yield trainer
    trainer.stop()


def test_stop_saves_and_the_same_request_goes_on(idle):
    long = replace(SHORT, prompt="", compare="a dog", kind="locon", batches=2000)
    training = idle.start(long)
    with pytest.raises(AudioLDMError, match="going on"):
        idle.start(SHORT)
    for news in idle.watch():
        if news.curve:
            break
    begin = time.monotonic()
    idle.stop()
    assert time.monotonic() - begin < 30 and training.process.returncode == 143
    *_, last = idle.watch()
    assert last.line.startswith("Stopped after batch ")
    assert (training.folder / "checkpoints" / "last.ckpt").is_file()
    again, before = idle.start(long), last.curve[-1][0]
    curve = next(news.curve for news in idle.watch() if news.curve and news.curve[-1][0] > before)
    idle.stop()
    assert curve[: len(last.curve)] == last.curve, "the curve of before, and more of it"
    assert again.folder == training.folder and "resuming" in (again.folder / "log.txt").read_text()


def test_what_cannot_be_is_a_sentence(idle, tmp_path):
    os.symlink(tmp_path, idle.root / "away")
    for changed, expected in (
        ({"folder": "../"}, "leads out"),
        ({"folder": "/etc"}, "leads out"),
        ({"folder": "C:\\sounds"}, "leads out"),
        ({"folder": "away"}, "leads out"),
        ({"folder": "empty"}, "holds no sounds"),
        ({"folder": "no such"}, "holds no sounds"),
        ({"kind": "../tiny/vae"}, "Known: dora"),
        ({"batches": 0}, "batches=0"),
        ({"batches": float("nan")}, "batches=nan"),
        ({"batch_size": 65}, "Use 1 to 64"),
        ({"seed": -1}, "seed=-1"),
        ({"prompt": "${oc.env:HOME}"}, "Leave it out"),
        ({"prompt": " "}, "no prompt to hear"),
    ):
        with pytest.raises(AudioLDMError, match=expected):
            idle.start(replace(SHORT, **changed))
    (idle.root / "away").unlink()
    with pytest.raises(AudioLDMError, match="--sounds"):
        Trainer(idle.studio, idle.options).start(SHORT)


def test_a_failure_is_the_command_s_line_without_paths(idle):
    failure = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    failure.wait()
    training, log = Training(SHORT, idle.studio.out, failure), idle.studio.out / "log.txt"
    log.write_text(f"Epoch 0\raudioldm: {idle.root}/broken/a.wav cannot be read.\n", encoding="utf-8")
    assert idle.complaint(training) == "broken/a.wav cannot be read."
    log.write_text("Killed", encoding="utf-8")
    assert idle.complaint(training) == "The training ended with code 3."


def test_every_kind_has_its_recipe(idle):
    assert {"lora", "loha", "lokr", "locon", "dora", "dreambooth", "textual_inversion"} <= set(kinds())
    for kind in kinds():
        assert TrainRequest(folder="my dogs", kind=kind, prompt="a dog").audible == (
            "<mine>" if kind == "textual_inversion" else "a dog"
        )


@pytest.mark.slow
def test_a_whole_model_and_a_word_are_heard_too(idle):
    for kind in ("textual_inversion", "dreambooth"):
        idle.start(replace(SHORT, kind=kind, batches=1))
        *_, last = idle.watch()
        assert last.line.startswith("Done: "), last.line
        assert (last.adapter is None) == (kind == "dreambooth")
        before, after = last.takes
        assert Path(before["audio"]).read_bytes() != Path(after["audio"]).read_bytes()


def test_the_interface_refuses_and_stops(address, idle):
    """A training by the page, which calls the same, is in test_page."""
    client = Client(address, verbose=False)
    asked = ["..", SHORT.kind, SHORT.prompt, "", SHORT.batches, SHORT.batch_size, SHORT.seed]
    assert client.submit(*asked, api_name="/train").result()[0].startswith("folder='..'")
    client.predict(api_name="/stop")
