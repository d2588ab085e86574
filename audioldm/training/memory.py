"""How large a batch the memory holds, measured by real training steps."""

import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any

import lightning as L
import torch

from audioldm.errors import AudioLDMError, without_memory

LARGEST = 4096


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
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fits(module: Any, data: Any, size: int, **trainer: Any) -> bool:
    """Whether two whole training steps at ``size`` clips run; weights and optimiser are used up by it.

    The count of batches is set to where every loss is in play: a discriminator that joins later costs memory too.
    """
    module.batch_count = getattr(module, "adversarial_start", 0)
    data.batch_size = size
    try:
        L.Trainer(
            **trainer, max_steps=-1, max_epochs=1, limit_train_batches=2 * module.accumulate,
            limit_val_batches=0, barebones=True, use_distributed_sampler=False,
        ).fit(module, data)  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        if not without_memory(error):
            raise
        return False
    finally:
        module.zero_grad(set_to_none=True)
        release()
    return True


EXPERIMENT: list[Any] = []
"""in a process of trials: the experiment, built once"""


def attempt(build: Callable[[], Any], size: int, trainer: dict[str, Any]) -> bool:
    if not EXPERIMENT:
        EXPERIMENT.append(build())
    return fits(EXPERIMENT[0].module, EXPERIMENT[0].data, size, **trainer)


def probe(build: Callable[[], Any], *, limit: int = LARGEST, method: str, **trainer: Any) -> int:
    """The batch size to use: what ``fits``, less a quarter for fragmentation, averages of the weights and previews.

    Trials run in a process that leaves no memory behind, and in a new one where a size ended it: native code that
    meets a full memory may crash instead of raising, and the kernel may kill; both mean that a size does not fit.
    ``build`` makes an experiment (module and data).   ``method``: how processes start; "fork" is fastest, and a GPU's
    state forbids it; with "spawn" ``build`` must be picklable.   Raises AudioLDMError where not even one clip fits,
    and what the experiment has against itself.
    """
    pools: list[ProcessPoolExecutor] = []
    with ExitStack() as stack:

        def trial(size: int) -> bool:
            if not pools:
                context = multiprocessing.get_context(method)
                pools.append(stack.enter_context(ProcessPoolExecutor(1, mp_context=context)))
            try:
                return pools[0].submit(attempt, build, size, trainer).result()
            except BrokenProcessPool:
                pools.clear()
                return False

        size = largest_batch(trial, limit=limit)
    if size == 0:
        raise AudioLDMError(
            "Not even one clip fits the memory.",
            "Use shorter seconds, speed.checkpointing=true, trainer.precision=bf16-mixed, or a smaller net.",
            code=1,
        )
    return max(1, size - size // 4)
