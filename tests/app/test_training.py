"""Training from the page: stop, go on, and what is refused; a whole one is in test_page."""

import os
import time
from dataclasses import replace

import pytest
from gradio_client import Client

from audioldm.app.training import Trainer, TrainRequest
from audioldm.errors import AudioLDMError

SHORT = TrainRequest(folder="my dogs", prompt="a dog, {barking} = '1'", batches=4)


@pytest.fixture
def idle(trainer):
    """The trainer with nothing going on, before and after."""
    trainer.stop()
    yield trainer
    trainer.stop()


def test_stop_saves_and_the_same_request_goes_on(idle):
    long = replace(SHORT, prompt="", compare="a dog", batches=2000)
    folder = idle.start(long)
    with pytest.raises(AudioLDMError, match="going on"):
        idle.start(SHORT)
    for news in idle.watch():
        if news.curve:
            break
    begin = time.monotonic()
    idle.stop()
    assert time.monotonic() - begin < 30 and idle.process.returncode == 143
    *_, last = idle.watch()
    assert last.line.startswith("Stopped after batch ")
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    again, before = idle.start(long), last.curve[-1][0]
    curve = next(news.curve for news in idle.watch() if news.curve and news.curve[-1][0] > before)
    idle.stop()
    assert curve[: len(last.curve)] == last.curve, "the curve of before, and more of it"
    assert again == folder


def test_what_cannot_be_is_a_sentence(idle, tmp_path):
    os.symlink(tmp_path, idle.root / "away")
    for changed, expected in (
        ({"folder": "../"}, "leads out"),
        ({"folder": "/etc"}, "leads out"),
        ({"folder": "C:\\sounds"}, "leads out"),
        ({"folder": "away"}, "leads out"),
        ({"folder": "empty"}, "holds no sounds"),
        ({"folder": "no such"}, "holds no sounds"),
        ({"batches": 0}, "batches=0"),
        ({"batches": float("nan")}, "batches=nan"),
        ({"prompt": "${oc.env:HOME}"}, "Leave it out"),
        ({"prompt": " "}, "no prompt to hear"),
    ):
        with pytest.raises(AudioLDMError, match=expected):
            idle.start(replace(SHORT, **changed))
    (idle.root / "away").unlink()
    with pytest.raises(AudioLDMError, match="--sounds"):
        Trainer(idle.studio, idle.options).start(SHORT)


def test_a_failure_is_a_line_without_paths(idle):
    idle.start(replace(SHORT, folder="broken"))
    *_, last = idle.watch()
    assert last.line.startswith("The training ended with code ") and str(idle.root) not in last.line


def test_the_interface_refuses_and_stops(address, idle):
    """A training by the page, which calls the same, is in test_page."""
    client = Client(address, verbose=False)
    asked = ["..", SHORT.prompt, "", SHORT.batches]
    assert client.submit(*asked, api_name="/train").result()[0].startswith("folder='..'")
    client.predict(api_name="/stop")
