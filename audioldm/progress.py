"""How far long work is: who does it counts, and who shows it listens."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Listener = Callable[[str, float, float], None]  # takes a unit, how much of it is done, and how much there is
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within, ``listener`` is told of everything that is counted."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def is_heard() -> bool:
    return _listener.get() is not None


def tell(unit: str, done: float, total: float) -> None:
    if (listener := _listener.get()) is not None:
        listener(unit, done, total)


def counted(
    items: Collection[Item], unit: str, size: Callable[[Item], float] = lambda item: 1.0
) -> Iterator[Item]:
    """The items, each ``size`` units large; whoever listens is told before each, and at the end."""
    if not is_heard():
        yield from items
        return
    sizes, done = [size(item) for item in items], 0.0
    total = sum(sizes)
    for item, amount in zip(items, sizes, strict=True):
        tell(unit, done, total)
        yield item
        done += amount
    tell(unit, total, total)
