"""Long commands in processes of their own: killed at random points, without room on the disk, without memory.

Every command is typed again after a kill, as a user would.   What stood there before is whole at every instant (for
those that say so), nothing half-written or running stays, and in the end all is as if nobody had disturbed it.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import FAULTS, Case, Result, address_space, command
from world import QUICK, TRAIN, World

SAME = (".wav", ".flac", ".opus", ".html", ".jsonl", ".safetensors", ".md", ".png")
"""Endings of files whose bytes are the same each time; others hold a time"""
TIMED = ("provenance.json", "report.html", "report.md")
"""say how long it took, or what came from a cache"""
PATIENCE = 300.0


@dataclass(frozen=True)
class Work:
    """A command line with {out}, {model}, {clips} ...; ``again`` is what is added when it is typed again.

    ``keeps``: what an earlier run wrote stays whole until it is replaced.
    """

    name: str
    words: tuple[str, ...]
    again: tuple[str, ...] = ("--force",)
    keeps: bool = True

    def line(self, world: World, room: Path, *more: str) -> list[str]:
        """The words for a room."""
        names = {
            name: getattr(world, name)
            for name in ("model", "clips", "tables", "adapter", "made", "run", "test")
        }
        return [word.format(out=room / "out", room=room, **names) for word in (*self.words, *more)]


TINY = ("-m", "{model}", "-o", "{out}", *QUICK)
WORKS = (
    Work("generate", ("generate", "rain", "-n", "3", *TINY), ("--resume",)),
    Work("generate --force", ("generate", "rain", "-n", "3", *TINY)),
    Work(
        "edit",
        (
            "edit",
            "vary",
            "{clips}/clip0.wav",
            "-n",
            "2",
            "-m",
            "{model}",
            "-o",
            "{out}",
            "--steps",
            "2",
            "--set",
            "figure=false",
        ),
    ),
    Work(
        "data check",
        ("data", "check", "{clips}/clips.jsonl", "-o", "{out}/m.jsonl", "--report", "{out}/f.jsonl"),
    ),
    Work(
        "data check, 2 workers",
        ("data", "check", "{clips}/clips.jsonl", "-o", "{out}/m.jsonl", "--workers", "2"),
    ),
    Work("data prepare", ("data", "prepare", "folder", "{tables}", "-o", "{out}/m.jsonl")),
    Work("data listen", ("data", "listen", "{clips}/clips.jsonl", "-o", "{out}/page.html")),
    Work("data shard", ("data", "shard", "{clips}/clips.jsonl", "-o", "{out}", "--clips", "1")),
    Work(
        "data encode",
        (
            "data",
            "encode",
            "{clips}/clips.jsonl",
            "-o",
            "{out}",
            "--vae",
            "{model}",
            "--clap",
            "{model}",
            "--seconds",
            "0.64",
            "--windows",
            "3",
        ),
        (),
        keeps=False,
    ),
    Work(
        "train",
        ("train", "tiny/vae", *TRAIN, "batches=6", "callbacks.state.every=2", "run_dir={out}"),
        (),
        keeps=False,
    ),
    Work(
        "train, 2 workers",
        (
            "train",
            "tiny/vae",
            *TRAIN,
            "data=manifests",
            "data.manifests=[{clips}/clips.jsonl]",
            "data.workers=2",
            "batches=4",
            "callbacks.state.every=2",
            "run_dir={out}",
        ),
        (),
        keeps=False,
    ),
    Work("export", ("export", "{model}", "-o", "{out}"), keeps=False),
    Work(
        "listen prepare",
        (
            "listen",
            "prepare",
            "a={clips}",
            "b={tables}",
            "-o",
            "{out}",
            "--captions",
            "{clips}/clips.jsonl",
            "--seed",
            "1",
        ),
    ),
    Work(
        "evaluate",
        (
            "evaluate",
            "{clips}",
            "{made}",
            "--unpaired",
            "--crop",
            "0.6",
            "-o",
            "{out}",
        ),
    ),
    Work(
        "listen analyse",
        ("listen", "analyse", "{test}", "--keep-all", "--resamples", "2000", "-o", "{out}"),
        (),
        keeps=False,
    ),
    Work(
        "evaluate prompts", ("evaluate", "prompts", "{tables}/asked.tsv", "--clips", "{made}", "-o", "{out}")
    ),
    Work(
        "data encode, 2 workers",
        (
            "data",
            "encode",
            "{clips}/clips.jsonl",
            "-o",
            "{out}",
            "--vae",
            "{model}",
            "--clap",
            "{model}",
            "--seconds",
            "0.64",
            "--windows",
            "3",
            "--workers",
            "2",
        ),
        (),
        keeps=False,
    ),
    Work("adapter convert", ("adapter", "convert", "{adapter}", "-o", "{out}/a.safetensors")),
)
SLOW = ("2 workers", "listen analyse", "evaluate prompts")
"""Whose processes take seconds to begin: at the small size they are left out"""


def begin(words: list[str], log: Path, prepare: Callable[[], object] = lambda: None) -> int:
    """A command line in a process and a process group of its own; its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        with open(log, "w") as file:
            prepare()
            result = command(*words)
            file.write(result.out + result.err)
        code = result.code
    finally:
        os._exit(code & 0xFF)


def ended(pid: int, *, patience: float = PATIENCE) -> int:
    """Wait for its end: the exit code, -9 where it was killed, 124 after ``patience``."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


def orphans(pid: int) -> bool:
    """Whether a process of the group still runs after they had the time to notice."""
    until = time.monotonic() + PATIENCE  # a worker that has just been spawned imports the package first
    while time.monotonic() < until:
        try:
            os.killpg(pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    return True


def contents(folder: Path) -> dict[str, bytes]:
    """Name to bytes of what is written: all of it for the kinds that are the same each time."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(("csv/", ".")) and name not in TIMED:
            out[name] = body_of(path) if path.suffix in SAME and path.name != "metrics.jsonl" else b""
    return out


def body_of(path: Path) -> bytes:
    """A file's bytes; of safetensors without the header, whose metadata stand in any order."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :] if path.suffix == ".safetensors" else content


def leftovers(folder: Path) -> list[str]:
    """What nobody needs any more."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.name.endswith((".part", ".old", ".new", ".longer", ".tmp"))
    ]


def differing(before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """The first file that differs."""
    return next(
        (name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)), ""
    )


def killed(work: Work, world: World, kills: int, room: Path, rng: np.random.Generator) -> Result:
    """Once undisturbed, then killed again and again."""
    out, whole, log = room / "out", room / "whole", room / "log"
    began = time.monotonic()
    code = ended(begin(work.line(world, room), log))
    length = time.monotonic() - began
    if code:
        return Result(-1, "", f"undisturbed it ends with {code}: {log.read_text()[-500:]}")
    reference = contents(out)
    shutil.move(out, whole)
    for number in range(kills):
        fresh = number % 2 == 0 or not work.keeps
        shutil.rmtree(out, ignore_errors=True)
        if not fresh:
            shutil.copytree(whole, out)
        moment = float(rng.uniform(0, length))
        pid = begin(work.line(world, room, *(() if fresh else ("--force",))), log)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        ended(pid)
        where = f"kill {number} at {moment:.2f} of {length:.2f} s"
        if orphans(pid):
            return Result(-1, "", f"{where}: a process of it ran on")
        if not fresh:
            now = contents(out)
            if lost := [name for name, content in reference.items() if now.get(name, b"gone") != content]:
                return Result(-1, "", f"{where}: {lost[0]} of the run before is lost")
        code = ended(begin(work.line(world, room, *work.again), log))
        if code:
            return Result(-1, "", f"{where}, typed again: exit code {code}: {log.read_text()[-800:]}")
        if name := differing(reference, contents(out)):
            return Result(-1, "", f"{where}, typed again: {name} is another than undisturbed")
        if left := leftovers(out) + leftovers(room):
            return Result(-1, "", f"{where}, typed again: {left[0]} was left")
    return Result(0)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of so many bytes at ``folder``; False where none may be mounted."""
    folder.mkdir(exist_ok=True)
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], capture_output=True, check=True)


def judged(code: int, log: Path, whole: str) -> Result:
    """A starved command's end, which is a success or one line."""
    text = log.read_text()
    if code not in (0, 1, 2) or any(word in text for word in FAULTS):
        return Result(-1, "", f"{whole}: exit code {code}: {text[-800:]}")
    return Result(code, "", text)


def without_room(work: Work, world: World, room: Path, rng: np.random.Generator) -> Result:
    """The disk takes a part of what is written; with enough room it is done, and nothing was lost."""
    log, full = room / "log", room / "whole"
    if result := command(*work.line(world, full)).code:
        return Result(-1, "", f"undisturbed it ends with {result}")
    needed = sum(path.stat().st_size for path in full.rglob("*") if path.is_file())
    size = int(rng.uniform(0.05, 0.9) * needed) // 4096 * 4096 + 4096
    with small_disk(room / "out", size) as mounted:

        def limit() -> None:
            if not mounted:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, resource.RLIM_INFINITY))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        result = judged(ended(begin(work.line(world, room), log, limit)), log, f"{size} of {needed} bytes")
        if left := leftovers(room):
            return Result(-1, "", f"{size} of {needed} bytes: {left[0]} was left")
        wrong = halves(room / "out", full / "out")
    return Result(-1, "", f"{size} of {needed} bytes: {wrong[0]} is half of it") if wrong else result


def halves(folder: Path, full: Path) -> list[str]:
    """Files that are the beginning of what they should be."""
    whole, now = contents(full), contents(folder)
    return [name for name, content in now.items() if content != whole.get(name, content)]


CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)
"""How torch's C++ ends the process where it gets no memory for an exception, in its backward passes above all"""


def without_memory(work: Work, world: World, room: Path, rng: np.random.Generator) -> Result:
    """The system gives little memory: it is done, or one line says so.

    Where a library crashes, the same command must end well afterwards, as after a kill.
    """
    log, more = room / "log", int(rng.uniform(4, 160)) * 2**20

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + more, resource.RLIM_INFINITY))

    code = ended(begin(work.line(world, room), log, limit))
    if code in CRASHES:
        code = ended(begin(work.line(world, room, *work.again), log))
        if code or leftovers(room):
            return Result(
                -1, "", f"{more >> 20} MiB more: a crash, and then {code}: {log.read_text()[-800:]}"
            )
    return judged(code, log, f"{more >> 20} MiB more")


def cases(world: World) -> list[Case]:
    """Every long command, killed, without room and without memory."""
    kills = 20 if world.large else 2
    quick = [work for work in WORKS if not any(word in work.name for word in SLOW)]
    out = []
    for number, work in enumerate(WORKS if world.large else world.some(quick, 5, "kills")):
        rng = np.random.default_rng([world.seed, number])

        def kill(room: Path, work: Work = work, rng: np.random.Generator = rng) -> Result:
            return killed(work, world, kills, room, rng)

        out.append(Case("kill -9", f"{work.name} x{kills}", kill, (0,), limit=3000, count=kills))
    for number, work in enumerate(WORKS * 5 if world.large else world.some(quick, 5, "starved")):
        rng = np.random.default_rng([world.seed, number, 1])
        for kind, deed in (("full disk", without_room), ("little memory", without_memory)):

            def starve(room: Path, work: Work = work, rng: np.random.Generator = rng, deed=deed) -> Result:
                return deed(work, world, room, rng)

            out.append(Case(kind, f"{work.name} {number}", starve, limit=1000))
    return out
