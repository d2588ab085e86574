"""How large a batch the memory holds: found by trying real training steps."""

import gc
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

import lightning as L
import torch

from audioldm.errors import AudioLDMError

CPU_SIGNS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "can't allocate memory",
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN's way to say it
)
LARGEST = 4096


def out_of_memory(error: BaseException) -> bool:
    """Whether this says that memory ran out; on a CPU torch says so in a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in CPU_SIGNS)


def largest_batch(fits: Callable[[int], bool], *, limit: int = LARGEST) -> int:
    """The largest size up to ``limit`` that ``fits``, to within an eighth; 0 where not even 1 does.

    >>> largest_batch(lambda n: n <= 100), largest_batch(lambda n: n <= 7), largest_batch(lambda n: False)
    (96, 7, 0)
    """
    good, size = 0, 1
    while size <= limit and fits(size):
        good, size = size, size * 2
    bad = min(size, limit + 1)
    while bad - good > max(1, good // 8):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fits(module: Any, data: Any, size: int, **trainer: Any) -> bool:
    """Whether two whole training steps at ``size`` clips run; weights and optimiser are used up by it.

    ``seen`` is set to where every loss is in play, since judges that join later cost memory too.
    """
    module.seen = getattr(module, "adversarial_start", 0)
    data.batch_size = size
    try:
        L.Trainer(
            **trainer, max_steps=-1, max_epochs=1, limit_train_batches=2 * module.optim.accumulate,
            limit_val_batches=0, barebones=True, use_distributed_sampler=False,
        ).fit(module, data)  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        module.zero_grad(set_to_none=True)
        release()
    return True


def answer(build: Callable[[], Any], ours: Connection, theirs: Connection, trainer: dict[str, Any]) -> None:
    """The other process: build an experiment; say of every size that comes whether it ``fits``, or what is wrong."""
    theirs.close()  # a fork's copy, which would keep this process waiting for a parent that is gone
    try:
        experiment = build()
        while True:
            ours.send(fits(experiment.module, experiment.data, ours.recv(), **trainer))
    except EOFError:
        return
    except AudioLDMError as error:
        ours.send(error)


class Trials:
    """``fits``, asked of a process that leaves no memory behind, and of a new one where a size ended it.

    Native code that meets a full memory may crash instead of raising, and the kernel may kill: both mean that a size
    does not fit.   ``method``: how processes start; "fork" is fastest, and a GPU's state forbids it.
    """

    FATAL = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGKILL)

    def __init__(self, build: Callable[[], Any], *, method: str, **trainer: Any) -> None:
        self.build, self.trainer = build, trainer
        self.context: Any = multiprocessing.get_context(method)
        self.process: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self.process is None:
            return
        self.pipe.close()
        if kind is not None:
            self.process.terminate()
        self.process.join()

    def __call__(self, size: int) -> bool:
        """Whether ``size`` clips fit; raises what the experiment has against them."""
        try:
            if self.process is None:
                self.start()
            self.pipe.send(size)
            said = self.pipe.recv()
        except (EOFError, ConnectionError):
            said = self.ended()
        if isinstance(said, AudioLDMError):
            raise said
        return bool(said)

    def start(self) -> None:
        """A process, and the pipe to it."""
        self.pipe, theirs = self.context.Pipe()
        given = (self.build, theirs, self.pipe, self.trainer)
        self.process = self.context.Process(target=answer, args=given)
        self.process.start()
        theirs.close()

    def ended(self) -> bool:
        """What an end without an answer says: by a fatal signal, that memory ran out."""
        self.process.join()
        code, self.process = self.process.exitcode, None
        self.pipe.close()
        if -code in self.FATAL:
            return False
        raise AudioLDMError(
            f"The probe of the batch size ended with code {code}.", "Give batch_size=N.", code=1
        )


def probe(build: Callable[[], Any], *, limit: int = LARGEST, method: str, **trainer: Any) -> int:
    """The batch size to use: what ``fits``, less a quarter for fragmentation, averages of the weights and previews.

    ``build`` makes an experiment (module and data); with ``method`` "spawn" it must be picklable.
    """
    with Trials(build, method=method, **trainer) as trials:
        found = largest_batch(trials, limit=limit)
    if found == 0:
        raise AudioLDMError(
            "Not even one clip fits the memory.",
            "Use shorter seconds, speed.checkpointing=true, trainer.precision=bf16-mixed, or a smaller net.",
            code=1,
        )
    return max(1, found - found // 4)
