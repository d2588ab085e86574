"""How large a batch the memory holds: found by trying real training steps."""

import gc
from collections.abc import Callable
from typing import Any

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


def probe(module: Any, data: Any, *, limit: int = LARGEST, **trainer: Any) -> int:
    """The batch size to use: what ``fits``, less a quarter for fragmentation, averages of the weights and previews."""
    found = largest_batch(lambda size: fits(module, data, size, **trainer), limit=limit)
    if found == 0:
        raise AudioLDMError(
            "Not even one clip fits the memory.",
            "Use shorter seconds, speed.checkpointing=true, trainer.precision=bf16-mixed, or a smaller net.",
            code=1,
        )
    return max(1, found - found // 4)
