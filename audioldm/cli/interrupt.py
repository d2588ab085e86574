"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a destructor or a weak reference's callback,
of which torch and diffusers run thousands, it can only report it as ignored, and the program would go on.
"""

import signal
import sys
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, main_thread

PAUSE = 0.05
"""Seconds until an ignored interrupt is tried again, which has left the callback by then."""


def press() -> None:
    """Ctrl-C again, as the terminal would: what the main thread waits for ends, too."""
    if hasattr(signal, "pthread_kill") and (thread := main_thread().ident):
        signal.pthread_kill(thread, signal.SIGINT)
    else:
        interrupt_main()  # Windows: noticed when the wait is over


@contextmanager
def kept_interrupts() -> Iterator[None]:
    """Within, an interrupt that Python had to ignore is raised again a moment later."""
    before, waiting = sys.unraisablehook, set[Timer]()

    def again(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
            return
        timer = Timer(PAUSE, press)
        timer.daemon = True
        waiting.add(timer)
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in waiting:
            timer.cancel()
