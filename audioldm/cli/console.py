"""What a user reads: lines, a spinner and a bar on stderr while a command works, its result on stdout."""

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from audioldm.errors import AudioLDMWarning


def printable(text: str) -> str:
    r"""``text`` with control characters, line ends and broken bytes escaped, so that it cannot steer a terminal.

    >>> printable("rain\x1b[2J\n")
    'rain\\x1b[2J\\n'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )


def say(message: str) -> None:
    """One line on stderr that begins with the program's name."""
    print(f"audioldm: {printable(message)}", file=sys.stderr, flush=True)


def would(what: str) -> None:
    """The last line of a dry run: what would be made."""
    say(f"dry run: {what}; nothing was written.")


def show_json(result: Any) -> None:
    """A result for programs, on stdout."""
    print(json.dumps(result, indent=1, ensure_ascii=False))


def show_findings(findings: Iterable[object]) -> None:
    """One line on stderr for each thing that was left out."""
    for finding in findings:
        print(printable(str(finding)), file=sys.stderr)


@contextmanager
def warned(tell: Callable[[str], None] = lambda text: say(f"warning: {text}")) -> Iterator[None]:
    """Our own warnings are told at once, each text once, as lines on stderr; those of others stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", AudioLDMWarning)
        others, known = warnings.showwarning, set[str]()

        def line(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, AudioLDMWarning):
                others(message, category, *place, **more)
            elif str(message) not in known:
                known.add(str(message))
                tell(str(message))

        warnings.showwarning = line
        yield


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner with the seconds while ``what``, which has no parts to count, goes on; nothing without a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description} ..."), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(what, total=None)
        yield


@contextmanager
def progress(total: float | None, unit: str = "steps") -> Iterator[Callable[..., None]]:
    """A bar with rate and time left over ``total`` units; gives the function that moves it by its first argument.

    None is a total that is not known.   Nothing is shown where stderr is no terminal.   Where more is done than was
    planned (a silent clip is sampled again, a failed batch taken apart), the total grows.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        """Units a second."""

        def render(self, task: "object") -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text("" if speed is None else f"{speed:.3g} {unit}/s")

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), Rate(unit), TimeRemainingColumn())
    shown = Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    )
    with shown as bar:
        bar.add_task(unit, total=total)
        [task] = bar.tasks

        def advance(size: float = 1, *_: object) -> None:
            limit = None if total is None else max(total, task.completed + size)
            bar.update(task.id, advance=size, total=limit)

        yield advance
