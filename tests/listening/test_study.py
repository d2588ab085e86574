"""Taking a test without a browser: resuming, refusing, and a log that survives crashes."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from audioldm.errors import AudioLDMError
from audioldm.listening.folder import VOLUME_TRIES, answers_of, load
from audioldm.listening.study import RefusedError, Session, Study
from notebooks.simulated_raters import take

ROOT = Path(__file__).parents[3]
WORTH = {"original": 2.0, "new": 1.0, "old": -1.0}


def pass_volume(study, code):
    study.volume(code, device="headphones", beeps=study.rater(code).beeps)


def played(study, code):
    trial = study.rater(code).trials[study.rater(code).answered]
    return [2.0] * (len(trial.slots) + (trial.reference is not None))


def test_what_the_page_is_told_names_no_system_and_no_catch(study):
    for method in ("ab", "acr", "abx", "mushra"):
        run = study(method)
        code = run.join()
        pass_volume(run, code)
        seen = [json.dumps(run.state(code)["trial"], sort_keys=True)]
        rater = run.rater(code)
        for index in range(len(rater.trials)):
            rater.answered = index
            shown = run.shown(rater)
            assert set(shown) == set(json.loads(seen[0]))
            text = json.dumps(shown)
            assert not [w for w in ("old", "new", "original", "damaged", "catch", ".wav") if w in text]


def test_resumes_where_it_stopped_in_another_process(study, make):
    run = study()
    code = run.join()
    pass_volume(run, code)
    for i in range(3):
        run.answer(code, i, "tie", Session(played(run, code)))
    trials = run.rater(code).trials
    run.close()
    again = Study(load(run.test.folder))
    assert again.state(code)["trial"]["index"] == 3
    assert again.rater(code).trials == trials
    assert again.join() != code, "the next rater has another number"
    again.close()
    run.file = os.open(os.devnull, os.O_RDONLY)  # for the fixture to close


def test_sending_an_answer_twice_keeps_it_once(study):
    run = study()
    code = run.join()
    pass_volume(run, code)
    seconds = played(run, code)
    run.answer(code, 0, "A", Session(seconds))
    size = run.test.responses.stat().st_size
    run.answer(code, 0, "A", Session(seconds))  # the confirmation was lost on its way
    assert run.test.responses.stat().st_size == size
    with pytest.raises(RefusedError, match="not the next one"):
        run.answer(code, 0, "B", Session(seconds))


WRONG = {
    "ab": ["C", 1, None, ["A"], {"A": 1}],
    "abx": ["tie"],
    "acr": [0, 6, 3.0, "3", True, [3]],
    "mushra": [[50] * 3, [50, 50, 50, 101], 50, [50, 50, 50, None]],
}


@pytest.mark.parametrize("method", WRONG)
def test_an_answer_that_is_none_is_refused(study, method):
    run = study(method)
    code = run.join()
    pass_volume(run, code)
    before = run.test.responses.read_bytes()
    for answer in WRONG[method]:
        with pytest.raises(RefusedError) as refused:
            run.answer(code, 0, answer, Session(played(run, code)))
        assert refused.value.status == 422
    assert run.test.responses.read_bytes() == before
    assert run.state(code)["trial"]["index"] == 0


def test_what_was_not_played_cannot_be_judged(study):
    run = study()
    code = run.join()
    pass_volume(run, code)
    for seconds in (
        None,
        [2.0],
        [2.0, 0.1],
        [2.0, float("nan")],
        [2.0, -1],
        ["2", 2],
        [2, 2, 2],
        [True, 2],
        {},
    ):
        with pytest.raises(RefusedError):
            run.answer(code, 0, "A", Session(seconds))
    assert run.rater(code).answered == 0


def test_volume_comes_first_and_has_three_tries(study):
    run = study()
    code = run.join()
    with pytest.raises(RefusedError, match="volume check comes first"):
        run.answer(code, 0, "A", Session([2.0, 2.0]))
    for device, beeps in (("ears", 2), ("headphones", "2"), ([], -1)):
        with pytest.raises(RefusedError):
            run.volume(code, device=device, beeps=beeps)
    for _ in range(VOLUME_TRIES):
        assert run.state(code)["phase"] == "volume"
        run.volume(code, device="earphones", beeps=9)
    assert run.state(code)["phase"] == "trial", "the analysis leaves them out, the page does not trap them"
    with pytest.raises(RefusedError, match="over"):
        run.volume(code, device="earphones", beeps=2)


def test_only_the_present_trial_and_the_next_can_be_heard(study):
    run = study("mushra")
    code = run.join()
    assert run.audio(code, 0, "0").is_file()
    assert run.audio(code, 1, "ref").is_file()
    for trial, slot in ((2, "0"), (0, "9"), (0, "../key.json"), (0, "-1"), (-1, "0"), (99, "0")):
        with pytest.raises(RefusedError):
            run.audio(code, trial, slot)
    reference, hidden = run.audio(code, 0, "ref"), [run.audio(code, 0, str(i)) for i in range(4)]
    assert reference in hidden


def test_two_servers_of_one_test_are_refused(study):
    run = study()
    with pytest.raises(AudioLDMError, match="served by another process"):
        Study(run.test)


def test_many_raters_at_once_lose_nothing(study):
    run = study()
    threads = [
        threading.Thread(target=take, args=(run, WORTH), kwargs={"rng": random.Random(i)}) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events, cut = answers_of(run.test, {})
    per_rater = len(run.rater(run.test.code_of(0)).trials)
    assert cut == 0
    assert sorted(event["rater"] for event in events if event["event"] == "join") == list(range(8))
    assert len([event for event in events if event["event"] == "answer"]) == 8 * per_rater


def test_a_line_cut_off_by_a_crash_costs_that_answer_only(study):
    run = study()
    code = run.join()
    pass_volume(run, code)
    run.answer(code, 0, "A", Session(played(run, code)))
    run.answer(code, 1, "B", Session(played(run, code)))
    run.close()
    whole = run.test.responses.read_bytes()
    run.test.responses.write_bytes(whole[:-20])
    again = Study(run.test)
    assert again.rater(code).answered == 1
    again.answer(code, 1, "tie", Session(played(again, code)))
    events, cut = answers_of(run.test, {})
    assert cut == 1
    assert [event["answer"] for event in events if event["event"] == "answer"] == ["A", "tie"]
    again.close()
    run.file = os.open(os.devnull, os.O_RDONLY)  # for the fixture to close


def test_a_full_disk_refuses_the_answer_and_keeps_the_place(study, monkeypatch):
    run = study()
    code = run.join()
    pass_volume(run, code)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RefusedError, match="No space left") as refused:
            run.answer(code, 0, "A", Session(played(run, code)))
    assert refused.value.status == 507
    assert run.rater(code).answered == 0
    run.answer(code, 0, "A", Session(played(run, code)))
    assert run.rater(code).answered == 1


def test_every_confirmed_answer_survives_a_kill(make):
    """A process that answers and reports each confirmation is killed; all that it reported is on the disk."""
    test = make()
    code = f"""
import sys
from audioldm.listening.folder import load
from audioldm.listening.study import Session, Study
study = Study(load({str(test.folder)!r}))
while True:
    code = study.join("x")
    for i in range(len(study.rater(code).trials)):
        study.answer(code, i, "A", Session(source="notebook"))
        print(study.rater(code).number, i, flush=True)
"""
    words, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    told = [process.stdout.readline() for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    process.wait()
    kept = {(e["rater"], e["trial"]) for e in answers_of(test, {})[0] if e["event"] == "answer"}
    assert len(told) >= 25
    assert {tuple(map(int, line.split())) for line in told if line.endswith("\n")} <= kept


def test_every_line_is_flushed_before_it_is_confirmed_and_stamped_in_utc(study, monkeypatch):
    run, order = study(), []
    write, flush = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda *a: (order.append("write"), write(*a))[1])
    monkeypatch.setattr(os, "fsync", lambda *a: (order.append("fsync"), flush(*a))[1])
    run.join()
    assert order == ["write", "fsync"]
    stamp = answers_of(run.test, {})[0][0]["time"]
    assert abs(time.time() - time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 60


def test_a_log_of_another_test_is_refused(study, make):
    run = study()
    run.join()
    text = run.test.responses.read_text()
    run.close()
    run.test.responses.write_text(text.replace(run.test.about["key"][:16], "0" * 16))
    with pytest.raises(AudioLDMError, match="answers to another test"):
        Study(run.test)
    run.test.responses.write_text('{"event": "party", "rater": 0, "key": "x"}\n')
    with pytest.raises(AudioLDMError, match="unknown kind"):
        Study(run.test)
    run.test.responses.write_text("")
    run.file = os.open(os.devnull, os.O_RDONLY)  # for the fixture to close
