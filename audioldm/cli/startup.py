"""What the process of one command does that a library must not: garbage collection and Ctrl-C are arranged for it."""

import gc
import os
import signal
import sys
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Timer, main_thread

UNUSED = ("accelerate", "peft", "scipy", "sklearn", "torchvision")
"""Optional parts of diffusers and transformers that none of the nets needs; a plain install has none of them."""
NETS = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "transformers.models.clap.modeling_clap",
    "transformers.models.speecht5.modeling_speecht5",
)
PAUSE = 0.05
"""Seconds until an ignored interrupt is tried again, which has left the callback by then."""


@contextmanager
def loading() -> Iterator[None]:
    """No search for garbage while libraries and weights are loaded: there is none, and it takes a fifth of the time.

    Afterwards what is loaded is never searched again (``gc.freeze``).   In a process that lives longer (torch is there
    already) the collector is left alone.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        import_nets()
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_nets() -> None:
    """Import diffusers' and transformers' nets.

    ``AUDIOLDM_LEAN=1`` hides installed packages that these libraries would import for other uses, by None in
    ``sys.modules``: 0.8 s of processor time and 80 MiB less where they are installed.   It is off otherwise, because
    both libraries then believe for the life of the process that the packages are missing.
    """
    lean = os.environ.get("AUDIOLDM_LEAN") == "1"
    hidden = [name for name in UNUSED if name not in sys.modules] if lean else []
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]   # None is the import system's "not there"
    try:
        for name in NETS:
            import_module(name)
    finally:
        for name in hidden:
            del sys.modules[name]


def interrupt() -> None:
    """Ctrl-C again, as the terminal would: what the main thread waits for ends, too."""
    if hasattr(signal, "pthread_kill") and (thread := main_thread().ident):
        signal.pthread_kill(thread, signal.SIGINT)
    else:
        interrupt_main()  # Windows: noticed when the wait is over


@contextmanager
def repeated_interrupts() -> Iterator[None]:
    """Within, a Ctrl-C that Python had to ignore is raised again a moment later.

    Python raises KeyboardInterrupt wherever the main thread happens to be.   In a destructor or a weak reference's
    callback, of which torch and diffusers run thousands, it can only report it as ignored, and go on.
    """
    before, timers = sys.unraisablehook, set[Timer]()

    def again(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
            return
        timer = Timer(PAUSE, interrupt)
        timer.daemon = True
        timers.add(timer)
        timer.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()
