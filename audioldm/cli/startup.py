"""What the process of one command does that a library must not: imports, garbage, Ctrl-C and its end are arranged."""

import atexit
import builtins
import gc
import os
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NoReturn

PAUSE = 0.05  # Seconds until an ignored interrupt is tried again, which has left the callback by then
UNUSED = ("accelerate", "librosa", "peft", "scipy", "sklearn", "torchvision")  # what libraries load if there


class Later:
    """A module that is imported when something of it is used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


@contextmanager
def later() -> Iterator[None]:
    """Modules that are imported within are imported at their first use, so that ``--help`` waits for no library.

    PEP 810's ``lazy import``, for Python below 3.15.   It takes modules alone, as in ``from audioldm.nets import vae``.
    """
    now = builtins.__import__

    def lazy(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        parts = {part: Later(f"{name}.{part}") for part in fromlist or ()}
        return SimpleNamespace(**parts) if parts else Later(name)

    builtins.__import__ = lazy
    try:
        yield
    finally:
        builtins.__import__ = now


@contextmanager
def loading() -> Iterator[None]:
    """No search for garbage while libraries and weights are loaded, a fifth of the time, and none of ``UNUSED``.

    What is loaded is never searched again (``gc.freeze``).   A longer process (torch is there) is left alone.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    hidden: dict[str, Any] = dict.fromkeys({*UNUSED} - sys.modules.keys())
    sys.modules.update(hidden)  # None is how Python says that a module is not there
    metadata: Any = import_module("importlib.metadata")
    metadata.packages_distributions = cache(metadata.packages_distributions)  # .6 s, and both libraries ask
    gc.disable()
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        gc.enable()


def beside(work: Callable[[], Any]) -> None:
    """Do ``work`` ahead in a thread; what goes wrong there is met again where it is needed."""

    def quietly() -> None:
        with suppress(Exception):
            work()

    threading.Thread(target=quietly, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End the process without taking 8,000 modules apart, a twentieth of a command's time; not beside other threads."""
    if threading.active_count() == 1 and sys.gettrace() is None:
        with suppress(OSError):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


def repeat_interrupts() -> None:
    """From now on a Ctrl-C that Python had to ignore is raised again a moment later.

    Python raises KeyboardInterrupt wherever the main thread happens to be.   In a destructor or a weak reference's
    callback, of which torch and diffusers run thousands, it can only report it as ignored, and go on.
    """
    before = sys.unraisablehook

    def interrupt() -> None:
        if hasattr(signal, "pthread_kill") and (thread := threading.main_thread().ident):
            signal.pthread_kill(thread, signal.SIGINT)  # what the main thread waits for ends, too
        else:
            interrupt_main()  # Windows: noticed when the wait is over

    def again(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
            return
        timer = threading.Timer(PAUSE, interrupt)
        timer.daemon = True
        timer.start()

    sys.unraisablehook = again
