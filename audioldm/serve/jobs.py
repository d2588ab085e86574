"""A bounded queue in front of one model: first come, first served, and what is alike goes as one batch."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Event, Thread
from typing import Any, NamedTuple

from audioldm.errors import AudioLDMError

PAUSE = 0.01  # seconds without a further request after which a batch that is not full begins
OnStep = Callable[[int, int], None]  # (steps done, steps in all)
Work = Callable[[list[Any], OnStep], Sequence[Any]]
"""What several jobs ask for, to their results in the same order; it calls ``on_step`` often enough to be stopped."""


class Stopped(Exception):  # noqa: N818  (nothing went wrong)
    """The work was stopped from outside."""


class BusyError(AudioLDMError):
    """There is no place in the queue, or it is closing."""


class Progress(NamedTuple):
    """Steps done, and steps in all."""

    done: int
    steps: int


NONE = Progress(0, 0)


@dataclass(eq=False)
class Job:
    """One thing to do; jobs of one ``key`` (by default their own) may be done together by the first one's ``work``."""

    work: Work
    item: Any
    key: Hashable = field(default_factory=object)
    progress: Progress = NONE
    future: "Future[Any]" = field(default_factory=Future)
    stopping: Event = field(default_factory=Event)

    def stop(self) -> None:
        """Do not begin, or end at the next step; jobs that are done together go on until all are to be stopped."""
        self.stopping.set()
        self.future.cancel()


class Jobs:
    """At most ``most`` jobs wait while one thread does others, up to ``batch`` that are alike at once."""

    def __init__(self, most: int = 32, batch: int = 1) -> None:
        self.most, self.batch = most, batch
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.counts: Counter[str] = Counter()  # jobs done, failed and stopped; batches
        self.closing, self.changed = False, Condition()
        self.thread = Thread(target=self.run, daemon=True)
        self.thread.start()

    def submit(self, job: Job) -> Job:
        """Put a job at the end.   Raises BusyError."""
        with self.changed:
            self.waiting = deque(one for one in self.waiting if not one.stopping.is_set())
            if self.closing:
                raise BusyError("The server is stopping.", "Ask again later.", code=1)
            if len(self.waiting) >= self.most:
                raise BusyError(f"{self.most} requests wait already.", "Ask again later.", code=1)
            self.waiting.append(job)
            self.changed.notify_all()
        return job

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.thread.join()

    def run(self) -> None:
        """Do the oldest job and those like it, again and again until the queue is closed and empty."""
        while group := self.take():
            self.running = [job for job in group if job.future.set_running_or_notify_cancel()]
            if self.running:
                self.counts["batches"] += 1
                self.finish(self.running)
            self.running = []

    def take(self) -> list[Job]:
        """Wait for a job, and take it and those like it out of the queue; none once that is closed and empty."""
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.closing)
            while 0 < len(self.waiting) < self.batch and self.changed.wait(PAUSE):
                pass  # clients that were answered together ask again together
            if not self.waiting:
                return []
            group = [job for job in self.waiting if job.key == self.waiting[0].key][: self.batch]
            self.waiting = deque(job for job in self.waiting if job not in group)
        return group

    def finish(self, group: list[Job]) -> None:
        """Do jobs together; where that fails each is done alone, so that only what fails alone is lost."""
        try:
            results = group[0].work([job.item for job in group], partial(advance, group))
        except Stopped as error:
            self.lose(group, "stopped", error)
        except Exception as error:
            if len(group) == 1:
                return self.lose(group, "failed", error)
            for job in group:
                self.finish([job])
        else:
            self.counts["done"] += len(group)
            for job, result in zip(group, results, strict=True):
                job.future.set_result(result)

    def lose(self, group: list[Job], kind: str, error: Exception) -> None:
        self.counts[kind] += len(group)
        for job in group:
            job.future.set_exception(error)  # raised again for whoever waits


def advance(group: list[Job], done: int, steps: int) -> None:
    if all(job.stopping.is_set() for job in group):
        raise Stopped
    for job in group:
        job.progress = Progress(done, steps)


def total(jobs: list[Job]) -> Progress:
    done, steps = zip(*(job.progress for job in jobs), strict=True)
    return Progress(sum(done), len(jobs) * max(steps))


def watch(submits: Sequence[Callable[[], Job]], every: float = 0.1) -> Generator[Progress, None, list[Any]]:
    """Submit jobs; their progress ``every`` so many seconds where there was any, then returns all results.

    What one raises is raised.   Closing the generator stops the jobs at their next step and waits for that.
    """
    jobs, last = list[Job](), NONE
    try:
        for submit in submits:
            jobs.append(submit())
        futures = [job.future for job in jobs]
        while True:
            ended, left = wait(futures, timeout=every, return_when=FIRST_EXCEPTION)
            list(map(Future.result, ended))  # raises what one raised
            if (now := total(jobs)) != last:
                yield (last := now)
            if not left:
                return list(map(Future.result, futures))
    finally:
        for job in jobs:
            job.stop()
        wait([job.future for job in jobs])
