"""Work in a thread of its own that tells how far it is and can be stopped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
OnStep = Callable[[int, int], None]


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """The work was stopped from outside."""


@dataclass(frozen=True)
class Progress:
    """Steps done, and steps in all."""

    done: int
    steps: int


@dataclass(frozen=True)
class Done(Generic[T]):
    """What the work gave."""

    result: T


def watch(work: Callable[[OnStep], T]) -> Iterator[Progress | Done[T]]:
    """Progress after every step of ``work(on_step)``, then its result; what it raises is raised here.

    Closing the iterator stops the work at its next step and waits until it has stopped.

    >>> list(watch(lambda on_step: on_step(1, 2) or "sound"))
    [Progress(done=1, steps=2), Done(result='sound')]
    """
    news: SimpleQueue[Progress | Done[T] | BaseException] = SimpleQueue()
    stop = Event()

    def on_step(done: int, steps: int) -> None:
        if stop.is_set():
            raise Stopped
        news.put(Progress(done, steps))

    def run() -> None:
        try:
            news.put(Done(work(on_step)))
        except BaseException as error:  # told to whoever watches
            news.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            item = news.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, Done):
                return
    finally:
        stop.set()
        thread.join()
