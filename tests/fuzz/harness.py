"""Cases that must not lose anything, each in a child process that is watched from outside.

A case is *refused* (one line, an exit code that says so), or *survived* (exit code 0).   It is *lost* where a traceback
or a fault that nobody expected shows, where a time limit passes, where the process dies, where the exit code is not one
that the case allows, and where a file outside the case's own folder is read or touched, or a half-written one is left.
"""

import contextlib
import io
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIMIT = 300.0
"""Seconds of a case; most take a tenth of one, and only what is stuck takes so many, on a busy machine too."""
MEMORY = 3 * 2**30
"""Bytes that a case may ask for"""
FAULTS = ("Traceback (most recent call last)", "audioldm: unexpected ", "Segmentation fault", "core dumped")
WRITING = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What steers a terminal; a carriage return belongs to a library's progress bar."""


@dataclass(frozen=True)
class Result:
    """What a case gave: its exit code and what it printed."""

    code: int
    out: str = ""
    err: str = ""


@dataclass(frozen=True)
class Case:
    """``run`` does the deed in an empty folder; ``codes`` are the exit codes that are right.

    ``check`` looks at what is there afterwards, and says what is wrong, or nothing.
    """

    kind: str
    name: str
    run: Callable[[Path], Result]
    codes: tuple[int, ...] = (0, 1, 2)
    check: Callable[[Path, Result], str] = lambda room, result: ""
    limit: float = LIMIT
    count: int = 1
    """how many deeds it is"""


@dataclass
class Tally:
    """How the cases of a kind went."""

    tried: int = 0
    refused: int = 0
    survived: int = 0
    lost: int = 0
    seconds: float = 0.0
    losses: list[str] = field(default_factory=list)

    def add(self, name: str, verdict: str, why: str, seconds: float, count: int = 1) -> None:
        """Count a case; of one of many deeds, one is lost."""
        self.tried, self.seconds = self.tried + count, self.seconds + seconds
        many = 1 if verdict == "lost" else count
        setattr(self, verdict, getattr(self, verdict) + many)
        self.survived += count - many
        if verdict == "lost":
            self.losses.append(f"{name}: {why}")


class Watch:
    """Remembers what Python code of this process opened or changed outside a room; a hook cannot be taken off again."""

    def __init__(self) -> None:
        self.room: str | None = None
        self.secret, self.free = "", tuple[str, ...]()
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, words: tuple[Any, ...]) -> None:
        """Called by Python for every event of every library; it must be quick, and must not raise."""
        if self.room is None or not (event == "open" or event in WRITING):
            return
        place = words[0]
        if not isinstance(place, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(place))
        writes = event != "open" or (
            isinstance(words[2], int) and words[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if path.startswith(self.secret) or (writes and not path.startswith((self.room, *self.free))):
            self.seen.append(f"{event} {path}")

    @contextlib.contextmanager
    def over(self, room: Path, secret: Path, free: Sequence[str]) -> Any:
        """Within, what happens outside ``room`` is remembered, and every use of ``secret``."""
        self.seen, self.secret, self.free = [], str(secret), tuple(free)
        self.room = str(room)
        try:
            yield self.seen
        finally:
            self.room = None


watch: Watch | None = None
"""one a process"""


def command(*words: object) -> Result:
    """A command line in this process: its exit code and its lines; what it raises is a traceback, as in a terminal."""
    from audioldm.cli.app import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run([str(word) for word in words])
        except BaseException:
            code = -1
            traceback.print_exc()
    return Result(code, out.getvalue(), err.getvalue())


def called(function: Callable[[], Any]) -> Result:
    """A function of the package, with what the command line makes of its mistakes."""
    from audioldm.cli.app import say_error

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            function()
        except Exception as error:
            code = say_error(error)
        except BaseException:
            code = -1
            traceback.print_exc()
    return Result(code, out.getvalue(), err.getvalue())


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to size and time of every file below ``folder``."""
    out = {}
    for place, _, files in os.walk(folder):
        for name in files:
            about = os.lstat(os.path.join(place, name))
            out[os.path.join(place, name)] = (about.st_size, about.st_mtime_ns)
    return out


def judge(case: Case, room: Path, secret: Path, free: Sequence[str]) -> tuple[str, str]:
    """Run a case: its verdict, and why it is lost."""
    global watch
    watch = watch or Watch()
    before, temporary = tree(secret), set(os.listdir(os.environ["TMPDIR"]))
    with watch.over(room, secret, free) as seen:
        try:
            result = case.run(room)
        except BaseException:
            return "lost", "it raised\n" + traceback.format_exc(limit=-12)
    if why := fault_of(case, result) or case.check(room, result):
        return "lost", why
    if seen:
        return "lost", f"outside of its folder: {seen[0]}"
    if tree(secret) != before:
        return "lost", "a file outside of its folder was changed"
    if half := [path for path in room.rglob("*.part")]:
        return "lost", f"{half[0].name} was left behind"
    left = set(os.listdir(os.environ["TMPDIR"])) - temporary - {".ses"}  # onnxruntime's, one a machine
    if left := {
        name for name in left if not name.startswith("pymp-")
    }:  # multiprocessing's, of a process that was killed
        return "lost", f"{left.pop()} was left in the folder of temporary files"
    return ("survived" if result.code == 0 else "refused"), ""


def fault_of(case: Case, result: Result) -> str:
    """What is wrong with an exit code and the lines printed; "" if nothing."""
    tail = result.err[-1500:]
    if result.code not in case.codes or any(word in result.err + result.out for word in FAULTS):
        return f"exit code {result.code}, allowed {case.codes}: {tail}"
    if steering := CONTROL.search(result.err + result.out):
        return f"it printed {steering[0]!r}: {tail}"
    said = [
        line for line in result.err.splitlines() if line.startswith("audioldm: ") and "warning: " not in line
    ]
    if result.code in (1, 2) and not said and not case.name.endswith("--strict"):
        return f"exit code {result.code} without a line that says why: {tail}"
    return ""


def child(cases: Sequence[Case], start: int, scratch: Path, secret: Path, line: Connection) -> None:
    """Run cases from ``start`` on, and tell of the beginning and the end of each."""
    import torch

    torch.set_num_threads(1)
    hush()
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEMORY, resource.RLIM_INFINITY))
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch / "tmp")
    free = [os.environ["HOME"], str(scratch / "tmp"), "/dev/", "/proc/"]
    for number in range(start, len(cases)):
        room = scratch / f"{number:04d}"
        room.mkdir()
        line.send((number, None))
        os.chdir(room)
        began = time.monotonic()
        verdict, why = judge(cases[number], room, secret, free)
        os.chdir(scratch)
        if verdict != "lost":
            shutil.rmtree(room, ignore_errors=True)
        line.send((number, (verdict, why, time.monotonic() - began)))
    line.send((len(cases), None))
    line.close()
    os._exit(0)  # a library's threads must not hold it up


def address_space() -> int:
    """Bytes that this process has mapped; the libraries map more than they use."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def hush() -> None:
    """What libraries print on their own goes to a file of its own, so that the table can be read."""
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, 1)
    os.dup2(handle, 2)


def run(
    cases: Sequence[Case], scratch: Path, secret: Path, tell: Callable[[Case, str, str, float], None]
) -> None:
    """Every case, in a child that is replaced when it hangs or dies; ``tell`` takes what came of each."""
    (scratch / "tmp").mkdir(parents=True, exist_ok=True)
    context, start = multiprocessing.get_context("fork"), 0
    while start < len(cases):
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(cases, start, scratch, secret, theirs))
        process.start()
        theirs.close()
        at, why = start, ""
        try:
            while at < len(cases):
                if not ours.poll(cases[at].limit):
                    why = f"it took more than {cases[at].limit:g} s"
                    break
                at, done = ours.recv()
                if done is not None:
                    tell(cases[at], *done)
                    at += 1
        except EOFError:
            why = "it ended its process"
        process.kill()
        process.join()
        if at < len(cases):
            tell(
                cases[at],
                "lost",
                f"{why} (exit code {process.exitcode})",
                cases[at].limit if "took" in why else 0.0,
            )
        start = at + 1


def spread(cases: Iterable[Case], parts: int) -> list[list[Case]]:
    """Cases dealt out like cards, each pile of all kinds."""
    piles: list[list[Case]] = [[] for _ in range(parts)]
    for number, case in enumerate(cases):
        piles[number % parts].append(case)
    return [pile for pile in piles if pile]


def run_all(
    cases: Sequence[Case], scratch: Path, secret: Path, *, jobs: int, tell: Callable[[str], None] = print
) -> dict[str, Tally]:
    """Every case by ``jobs`` processes; how it went by kind."""
    tallies: dict[str, Tally] = {case.kind: Tally() for case in cases}
    lock = threading.Lock()

    def count(case: Case, verdict: str, why: str, seconds: float) -> None:
        with lock:
            tallies[case.kind].add(case.name, verdict, why, seconds, case.count)
            if verdict == "lost":
                tell(f"LOST {case.kind}: {case.name}: {why}")

    piles = spread(cases, jobs)
    threads = [
        threading.Thread(target=run, args=(pile, scratch / f"job{number}", secret, count))
        for number, pile in enumerate(piles)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tallies
