"""A fuzz that cannot lose proves nothing: each kind of loss is planted, and must be counted."""

import os
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from harness import Case, Result, called, command, run_all
from zoo import zoo

from audioldm.errors import AudioLDMError


def fail(error: BaseException):
    raise error


def half_written(room: Path) -> Result:
    (room / ".x.wav.1-00000000.part").write_text("half")
    return Result(0)


PLANTED = {
    "a traceback": (lambda room: called(lambda: fail(KeyboardInterrupt())), "exit code -1"),
    "a fault that nobody expected": (lambda room: called(lambda: fail(KeyError("x"))), "unexpected KeyError"),
    "it raises": (lambda room: fail(ValueError("x")), "ValueError"),
    "a wrong exit code": (lambda room: Result(3), "exit code 3"),
    "no reason": (lambda room: Result(2), "without a line"),
    "a steered terminal": (lambda room: Result(2, err="audioldm: a\x1b[2Jb."), "it printed"),
    "it hangs": (lambda room: time.sleep(60), "took more than"),
    "it dies": (lambda room: os._exit(9), "ended its process"),
    "it runs out of everything": (lambda room: os.kill(os.getpid(), 9), "ended its process"),
    "written outside": (
        lambda room: (room.parent / "x").write_text("x") and Result(0),
        "outside of its folder",
    ),
    "removed outside": (
        lambda room: (room.parent.parent / "rm").unlink() or Result(0),
        "outside of its folder",
    ),
    "a secret is read": (
        lambda room: Result(len((secret_of(room) / "x").read_text()) - 1),
        "outside of its folder",
    ),
    "left half-written": (half_written, "was left behind"),
}


def secret_of(room: Path) -> Path:
    return room.parents[2] / "secret"


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_text("x")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def tallied(cases: list[Case], rooms: Path, jobs: int = 1):
    told: list[str] = []
    return run_all(cases, rooms / "rooms", rooms / "secret", jobs=jobs, tell=told.append), told


@pytest.mark.parametrize("kind", PLANTED)
def test_every_kind_of_loss_is_counted(kind: str, rooms: Path):
    deed, why = PLANTED[kind]
    (rooms / "rooms").mkdir()
    (rooms / "rooms" / "rm").write_text("")
    fine = Case("fine", "fine", lambda room: Result(0))
    tallies, told = tallied([Case(kind, kind, deed, limit=1.0), fine], rooms)
    assert (tallies[kind].tried, tallies[kind].lost) == (1, 1) and why in told[0], told
    assert (tallies["fine"].tried, tallies["fine"].survived, len(told)) == (1, 1, 1), "the next one is tried"


def test_what_is_right_is_refused_or_survives(rooms: Path):
    def mistake() -> None:
        raise AudioLDMError("steps=0 is not a number of steps.", "Use 1 or more.")

    cases = [
        Case("a", "a mistake", lambda room: called(mistake)),
        Case("a", "a command", lambda room: command("doctor", "--json")),
        Case("b", "a file of its own", lambda room: (room / "x").write_text("x") and Result(0)),
        Case("b", "a check that fails", lambda room: Result(0), check=lambda room, result: "no file"),
    ]
    tallies, told = tallied(cases, rooms, jobs=2)
    assert [vars(tallies[kind])[name] for kind in "ab" for name in ("refused", "survived", "lost")] == [
        1,
        1,
        0,
        0,
        1,
        1,
    ]
    assert told == ["LOST b: a check that fails: no file"]


def test_the_zoo_is_large_and_the_same_again(tmp_path: Path):
    sounds, again = zoo(0), zoo(0)
    assert len(sounds) >= 150 and max(Counter(sound.name for sound in sounds).values()) == 1
    assert {sound.fit for sound in sounds} == {"whole", "broken", "odd"}
    for sound, twin in zip(sounds, again, strict=True):
        if sound.name.startswith(("by ffmpeg", "a ", "dangling", "endless", "in a circle")):
            continue
        sound.write(tmp_path / "a.bin")
        twin.write(tmp_path / "b.bin")
        assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes(), sound.name


@pytest.mark.slow  # `make fuzz` runs it at its small size in CI
def test_the_program_runs_a_few_cases_and_says_how_they_went():
    import subprocess

    words = [sys.executable, str(Path(__file__).parent), "--jobs", "1", "--only", "check", "--name", "nan"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sounds: check" in done.stdout and "lost 0" in done.stdout
    words[-1] = "no such case"
    assert subprocess.run(words, capture_output=True, timeout=300).returncode == 1, (
        "nothing tried proves nothing"
    )
