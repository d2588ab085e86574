"""Work on many files by several processes, where no file ends the run."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

from audioldm.datasets.manifest import Finding, Row

Result = TypeVar("Result")
PART = 16
"""Rows a process that are given out together; after a crash the rest of them is tried again one by one."""


def each(
    work: Callable[[Row], Result], rows: Sequence[Row], *, processes: int = 0
) -> Iterator[Result | Finding]:
    """``work`` on every row, in order; 0 ``processes`` work here.

    Where it raises, or ends its process, a Finding takes the place of the result.  Processes are spawned: a forked
    torch may wait for threads that it lost.
    """
    guarded = partial(attempt, work)
    if processes < 1:
        yield from map(guarded, rows)
        return
    pool = spawned(processes)
    try:
        for begin in range(0, len(rows), PART * processes):
            part, done = rows[begin : begin + PART * processes], 0
            try:
                for result in pool.map(guarded, part):
                    yield result
                    done += 1
            except BrokenProcessPool:
                pool = spawned(1)
                for row in part[done:]:
                    try:
                        yield pool.submit(guarded, row).result()
                    except BrokenProcessPool:
                        yield Finding("failed", row.path, "it ended the process that read it: out of memory?")
                        pool = spawned(1)
                pool.shutdown(wait=False)
                pool = spawned(processes)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def attempt(work: Callable[[Row], Result], row: Row) -> Result | Finding:
    """``work(row)``, or what it raised as a finding."""
    try:
        return work(row)
    except Exception as error:  # whatever a damaged file makes a library raise
        return Finding("failed", row.path, f"{type(error).__name__}: {error}" if str(error) else repr(error))


def spawned(processes: int) -> ProcessPoolExecutor:
    """A pool of new processes, which end with this one however it ends."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=end_with_parent)


def end_with_parent() -> None:
    """In a process of a pool: a parent that was killed says nothing, and its workers would wait for ever."""
    Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()  # type: ignore[union-attr]
