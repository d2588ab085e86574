"""What a user reads: lines, a spinner and a bar on stderr while a command works, its result on stdout."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from audioldm.cli.startup import later
from audioldm.errors import AudioLDMWarning
from audioldm.progress import is_heard, listening, tell

with later():
    from rich import console as rich_console
    from rich import progress as parts


def printable(text: str) -> str:
    r"""``text`` with control characters, line ends and broken bytes escaped, so that it cannot steer a terminal.

    >>> printable("rain\x1b[2J\n")
    'rain\\x1b[2J\\n'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )


def escaped(text: object) -> str:
    """Lines, each printable, with an end."""
    return "\n".join(map(printable, str(text).removesuffix("\n").split("\n"))) + "\n"


def json_text(result: Any) -> str:
    return json.dumps(result, indent=1, ensure_ascii=False) + "\n"


def show_text(text: object) -> None:
    """A result for people, on stdout."""
    print(escaped(text), end="", flush=True)


def show_json(result: Any) -> None:
    """A result for programs, on stdout."""
    print(json_text(result), end="", flush=True)


def note(*lines: object) -> None:
    """Lines beside the result, on stderr."""
    for line in lines:
        print(printable(str(line)), file=sys.stderr, flush=True)


def say(message: str) -> None:
    """One line on stderr that begins with the program's name."""
    note(f"audioldm: {message}")


def would(what: str) -> None:
    """The last line of a dry run: what would be made."""
    say(f"dry run: {what}; nothing was written.")


@contextmanager
def warned(report: Callable[[str], None] = lambda text: say(f"warning: {text}")) -> Iterator[None]:
    """Our own warnings are told at once, each text once, as lines on stderr; those of others stay as they are."""
    with warnings.catch_warnings(action="always", category=AudioLDMWarning):
        others, known = warnings.showwarning, set[str]()  # python forgets what it said when filters change

        def line(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, AudioLDMWarning):
                others(message, category, *place, **more)
            elif str(message) not in known:
                known.add(str(message))
                report(str(message))

        warnings.showwarning = line
        yield


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A bar with rate, time left and time taken over what the work within counts, one after the other.

    For what has no parts it shows the seconds alone.   Within another it is that one; without a terminal it is silent.
    """
    console = rich_console.Console(stderr=True)
    if is_heard() or not console.is_terminal:
        yield
        return
    text, count = parts.TextColumn("{task.description}"), parts.TextColumn("{task.fields[count]}")
    columns = (parts.SpinnerColumn(), text, parts.BarColumn(), count, parts.TimeRemainingColumn())
    about: dict[str, Any] = {"transient": True, "redirect_stdout": sys.stdout.isatty()}
    with parts.Progress(*columns, parts.TimeElapsedColumn(), console=console, **about) as shown:
        shown.add_task(what and f"{what} ...", total=None, unit="", count="")
        [task] = shown.tasks

        def show(unit: str, done: float, total: float) -> None:
            if unit != task.fields["unit"] or not done:
                shown.reset(task.id, total=total, unit=unit, count="")
            speed = f", {task.speed:.3g} {unit}/s" if task.speed else ""
            count = f"{done:.4g}/{total:.4g} {unit}{speed}"
            # the end is always drawn, however soon the next thing is counted
            shown.update(task.id, completed=done, total=total, count=count, refresh=done >= total)

        with listening(show):
            yield


@contextmanager
def progress(total: float, unit: str = "steps") -> Iterator[Callable[..., None]]:
    """A bar over ``total`` units, which grows where more are done; gives the function that moves it by a number."""
    done = 0.0

    def advance(size: float = 1, *_: object) -> None:
        nonlocal done
        done += size
        tell(unit, done, max(total, done))

    with waiting(""):
        tell(unit, done, total)
        yield advance
