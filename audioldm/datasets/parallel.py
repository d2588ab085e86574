"""Work on many files by several processes, where no file ends the run."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

from audioldm.datasets.manifest import Finding, Row
from audioldm.progress import counted

Result = TypeVar("Result")
WINDOW = 4
"""Items that wait at each process; after a crash they are tried again one by one."""


def sound_results(
    work: Callable[[Row], Result], rows: Sequence[Row], findings: list[Finding], *, processes: int = 0
) -> Iterator[Result]:
    """As ``each``, counted, without the findings, which are added to ``findings``."""
    for _, result in zip(counted(rows, "sounds"), each(work, rows, processes=processes), strict=True):
        if isinstance(result, Finding):
            findings.append(result)
        else:
            yield result


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
    done = 0
    while done < len(rows):
        pool = spawned(processes)
        try:
            for result in ordered(pool, guarded, rows[done:], WINDOW * processes):
                yield result
                done += 1
        except BrokenProcessPool:
            suspects = rows[done : done + WINDOW * processes]
            yield from alone(guarded, suspects)
            done += len(suspects)
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

    def wait() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def ordered(
    pool: ProcessPoolExecutor, work: Callable[[Row], Result], rows: Sequence[Row], window: int
) -> Iterator[Result]:
    """Results in order, at most ``window`` rows ahead of the one that is waited for."""
    source = iter(rows)
    waiting: list[Future[Result]] = [pool.submit(work, row) for row in islice(source, window)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(work, row) for row in islice(source, 1)]


def alone(work: Callable[[Row], Result], rows: Sequence[Row]) -> Iterator[Result | Finding]:
    """Each row in a process that works on nothing else, so that one which ends its process is known."""
    pool = spawned(1)
    try:
        for row in rows:
            try:
                yield pool.submit(work, row).result()
            except BrokenProcessPool:
                yield Finding("failed", row.path, "it ended the process that read it: out of memory?")
                pool = spawned(1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
