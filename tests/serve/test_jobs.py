"""The queue: progress, stops, bounds, batches of what is alike, and nothing lost when one fails."""

import threading

import pytest

from audioldm.errors import AudioLDMError
from audioldm.serve.jobs import BusyError, Job, Jobs, Progress, Stopped, watch


def submits(jobs, work):
    return [lambda: jobs.submit(Job(work, "sound"))]


def test_progress_then_result():
    def work(items, on_step):
        for i in range(3):
            on_step(i + 1, 3)
            looked[i].wait(10)
        return items

    looked = [threading.Event() for _ in range(3)]
    steps = [Progress(1, 3), Progress(2, 3), Progress(3, 3)]
    results = []

    def watching():
        results.append((yield from watch(submits(Jobs(), work), every=0.01)))

    for expected, step, event in zip(steps, watching(), looked, strict=True):
        assert step == expected
        event.set()
    assert results == [["sound"]]


def test_what_the_work_raises_is_raised_to_the_watcher():
    def work(items, on_step):
        raise AudioLDMError("No.")

    with pytest.raises(AudioLDMError, match="No"):
        list(watch(submits(Jobs(), work)))


def test_closing_stops_the_work_at_its_next_step():
    reached, ended = threading.Event(), []

    def work(items, on_step):
        try:
            for i in range(1_000_000):
                on_step(i, 1_000_000)
                reached.set()
        except Stopped:
            ended.append(i)
            raise

    jobs = Jobs()
    watching = watch(submits(jobs, work))
    next(watching)
    assert reached.wait(10)
    watching.close()
    assert ended and ended[0] < 999_999
    assert jobs.counts["stopped"] == 1


@pytest.fixture
def held():
    """A queue of at most 5, batches of 3, whose first job waits for ``go``."""
    jobs, go, begun = Jobs(5, 3), threading.Event(), threading.Event()

    def work(items, on_step):
        begun.set()
        go.wait(10)
        return items

    first = jobs.submit(Job(work, "first"))
    assert begun.wait(10)
    yield jobs, go, first
    go.set()
    jobs.close()


def test_what_is_alike_goes_together_in_order_and_what_is_not_waits_its_turn(held):
    jobs, go, _ = held
    groups = []

    def work(items, on_step):
        groups.append(items)
        return [item.upper() for item in items]

    keys = {"a": 1, "b": 2, "c": 1, "d": 1, "e": 1}
    waiting = [jobs.submit(Job(work, item, key)) for item, key in keys.items()]
    go.set()
    assert [job.future.result(10) for job in waiting] == ["A", "B", "C", "D", "E"]
    assert groups == [["a", "c", "d"], ["b"], ["e"]]


def test_what_is_refused_stops_the_jobs_submitted_before_it(held):
    jobs, go, _ = held
    seen = [jobs.submit(Job(lambda items, on_step: items, i)) for i in range(4)]
    submit = lambda: seen.append(jobs.submit(Job(lambda items, on_step: items, "take"))) or seen[-1]  # noqa: E731
    with pytest.raises(BusyError, match="5 requests wait"):
        list(watch([submit, submit]))
    assert [job.stopping.is_set() for job in seen] == [False] * 4 + [True]
    go.set()


def test_a_full_queue_refuses_and_a_stopped_job_gives_its_place(held):
    jobs, *_ = held
    waiting = [jobs.submit(Job(lambda items, on_step: items, i)) for i in range(5)]
    with pytest.raises(BusyError, match="5 requests wait"):
        jobs.submit(Job(lambda items, on_step: items, 6))
    waiting[2].stop()
    jobs.submit(Job(lambda items, on_step: items, 6))
    assert waiting[2].future.cancelled()


def test_only_what_fails_alone_is_lost(held):
    jobs, go, _ = held

    def work(items, on_step):
        if "bad" in items:
            raise AudioLDMError("NaN")
        return items

    good, bad, other = (jobs.submit(Job(work, item, "key")) for item in ("good", "bad", "other"))
    go.set()
    assert (good.future.result(10), other.future.result(10)) == ("good", "other")
    with pytest.raises(AudioLDMError, match="NaN"):
        bad.future.result(10)


def test_a_closing_queue_finishes_what_waits_and_takes_no_more(held):
    jobs, go, first = held
    late = jobs.submit(Job(lambda items, on_step: items, "late"))
    closing = threading.Thread(target=jobs.close)
    closing.start()
    while not jobs.closing:
        pass
    with pytest.raises(BusyError, match="stopping"):
        jobs.submit(Job(lambda items, on_step: items, "no"))
    go.set()
    closing.join(10)
    assert (first.future.result(0), late.future.result(0)) == ("first", "late")
