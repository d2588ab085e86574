"""Ctrl-C, a scheduler's SIGTERM and a closed terminal's SIGHUP end a training with its state on the disk."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(BaseException):
    """A signal ended the work; ``batch`` is the one whose state was saved for it.   ``code`` is what shells expect."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name, self.code = signal.Signals(number).name, 128 + number
        self.batch: int | None = None


def stop(number: int, frame: Any = None) -> None:
    """Raise Stopped, wherever the main thread is."""
    raise Stopped(number)


@contextmanager
def handled(handler: Callable[[int, Any], Any] = stop) -> Iterator[None]:
    """Within, ``handler`` receives the signals that stop a process; nothing changes outside the main thread."""
    # a process that nohup started is to ignore SIGHUP
    numbers = NUMBERS if threading.current_thread() is threading.main_thread() else ()
    before = {n: signal.signal(n, handler) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
