"""The libraries of the nets, imported without what they would import for other uses."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

UNUSED = ("accelerate", "peft", "scipy", "sklearn", "torchvision")
"""Optional parts of diffusers and transformers that take a fifth of their time and 80 MiB; our nets need none."""
NETS = (
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "transformers.models.clap.modeling_clap",
    "transformers.models.speecht5.modeling_speecht5",
)


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Packages look as if they were not installed, while it lasts; those that are imported already stay.

    >>> with hidden("sndhdr"):
    ...     try:
    ...         import sndhdr
    ...     except ImportError:
    ...         print("not there")
    not there
    """
    names = tuple(name for name in names if name not in sys.modules)
    for name in names:
        sys.modules[name] = None  # type: ignore[assignment]   # the import system's own sign for "not there"
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@contextmanager
def loading() -> Iterator[None]:
    """No search for garbage while libraries and weights are loaded: there is none, and it takes a fifth of the time.

    In a process that lives longer (torch is there already) the collector is left alone.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor is it searched later
        gc.enable()


def import_nets() -> None:
    """Import diffusers' and transformers' nets for a command that only runs them.

    Both libraries remember for the process what they found, so nothing is hidden where others use torch already.
    """
    with hidden(*(() if "torch" in sys.modules else UNUSED)):
        for name in NETS:
            import_module(name)
