"""What a waiting user sees, on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A spinner on stderr while ``what`` goes on; nothing where stderr is no terminal."""
    from rich.console import Console

    with Console(stderr=True).status(f"{what} ..."):
        yield


@contextmanager
def progress(total: int) -> Iterator[Callable[..., None]]:
    """A bar on stderr over ``total`` clip-steps; gives the function that moves it by its first argument.

    Where more is done than was planned (a silent clip is drawn again, a failed batch taken apart), the total grows.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("generating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        bar.add_task("generating", total=total)
        [task] = bar.tasks

        def advance(size: int, *_: int) -> None:
            bar.update(task.id, advance=size, total=max(total, task.completed + size))

        yield advance
