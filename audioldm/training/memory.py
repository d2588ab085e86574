"""How large a batch the memory holds, measured by real training steps."""

import gc
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import nn

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError, without_memory
from audioldm.nets.unet import LatentUNet, net_call
from audioldm.training.ema import Averages

LARGEST = 4096
RECOMPUTED = 0.3  # of what a clip keeps, with checkpointing; measured .27 (S, M) and .31 (L)


def largest_batch(fits: Callable[[int], float], *, limit: int = LARGEST) -> int:
    """The largest size up to ``limit`` that ``fits``, to within a 32nd; 0 where not even 1 does.

    >>> largest_batch(lambda n: n <= 101), largest_batch(lambda n: n <= 7), largest_batch(lambda n: False)
    (100, 7, 0)
    """
    good, size = 0, 1
    while size <= limit and fits(size):
        good, size = size, size * 2
    bad = min(size, limit + 1)
    while bad - good > max(1, good // 32):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def batch_by_share(share: Callable[[int], float], *, limit: int = LARGEST) -> int:
    """A size whose steps take some nine tenths of a memory, by the ``share`` of it that two small ones took, tried too.

    0 where it cannot be told so.   The share grows evenly; what is left is lost to fragments.

    >>> batch_by_share(lambda n: share if (share := 0.1 + 0.01 * n) < 0.95 else 0.0)
    81
    """
    few, more = (share(size) if size < limit else 0.0 for size in (4, 16))
    size = int(0.9 * min(limit, 16 + 12 * (1 - more) / (more - few))) if 0 < few < more else 0
    while size > 16 and not share(size):
        size = int(0.95 * size)
    return size if size > 16 else 0


def kept_bytes(unet: LatentUNet, shape: Sequence[int]) -> int:
    """Bytes that a bfloat16 call of a U-Net on the meta device keeps of a latent (C, T, F) for its gradients.

    Of attentions not the scores, square in time, which no flash kernel keeps.
    """
    ours = {value.untyped_storage()._cdata for value in nn.Module.to(unet, torch.bfloat16).parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage, scores = tensor.untyped_storage(), tensor.dim() > 2 and tensor.shape[-1] == tensor.shape[-2]
        if not scores and storage._cdata not in ours:
            kept[storage._cdata] = storage
        return tensor

    width, context = unet.config.get("projection_class_embeddings_input_dim"), unet.config.cross_attention_dim
    like: Any = {"device": "meta", "dtype": torch.bfloat16}
    film = None if width is None else torch.empty(1, width, **like)
    tokens = torch.empty(1, 16, context, **like) if isinstance(context, int) else None
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        x, t = torch.empty(1, *shape, **like), torch.zeros(1, device="meta")
        net_call(unet.train())(x, t, Condition(film, tokens))
    return sum(storage.nbytes() for storage in kept.values())


def release() -> int:
    """Give memory back; how many bytes of a GPU this process keeps."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()


def memory_share(experiment: Any, size: int, **trainer: Any) -> float:
    """The share of a GPU's memory that training steps at ``size`` clips, and a validation, took at most; 0: too little.

    1 on a CPU.   Weights and optimiser are used up by it.   The count of batches is set to where every loss is in play.
    Nothing is compiled nor searched for: that takes minutes for a dozen sizes, and memory is much the same.   Steps
    are recorded where the run's are, and copies of the weights lie beside, as many as averages and a validation hold.
    """
    module, data = experiment.module, experiment.data
    module.batch_count = getattr(module, "adversarial_start", 0)
    data.batch_size = size
    steps = 5 if module.speed.graph else 2 * module.accumulate  # three before a recording, itself, a replay
    trainer |= {"max_epochs": 1, "limit_train_batches": steps, "limit_val_batches": 1, "benchmark": False}
    trainer |= {"barebones": True, "use_distributed_sampler": False}
    gpu, held = trainer.get("accelerator") == "gpu", list[int]()  # a recording keeps its gaps, too
    trainer["callbacks"] = [LambdaCallback(on_train_end=lambda *_: held.append(release()))]
    try:
        module.configure_model()
        copies = sum(len(one.shares()) for one in experiment.trainer.callbacks if isinstance(one, Averages))
        copies += bool(copies)  # the weights themselves lie beside while it validates
        beside = [p.to("cuda", copy=True) for p in module.averaged.parameters() for _ in range(copies * gpu)]
        with torch.compiler.set_stance("force_eager"):
            L.Trainer(**trainer).fit(module, data)
        del beside
        if not gpu:
            return 1.0
        free, total = torch.cuda.mem_get_info()
        room = min(free + torch.cuda.memory_reserved(), total * torch.cuda.get_per_process_memory_fraction())
        return max(torch.cuda.max_memory_allocated(), *held) / room
    except (RuntimeError, MemoryError) as error:
        if not without_memory(error):
            raise
        return 0.0
    finally:
        module.zero_grad(set_to_none=True)
        if module.recorded:
            module.step.recordings.clear()
        release()


EXPERIMENT: list[Any] = []  # in a process of trials: the experiment, built once


def attempt(build: Callable[[], Any], size: int, trainer: dict[str, Any]) -> float:
    """Of 0 clips it only builds."""
    if not EXPERIMENT:
        EXPERIMENT.append(build())
    return 0.0 if size == 0 else memory_share(EXPERIMENT[0], size, **trainer) or os._exit(1)


def probe(build: Callable[[], Any], *, limit: int = LARGEST, method: str, **trainer: Any) -> int:
    """The batch size to use: on a GPU by ``batch_by_share``, or the largest less a 32nd; else less a quarter.

    What is left is for fragments, and for what else runs.   Trials run in a process that leaves no memory behind.   A
    size that does not fit ends it: half a recording may stay, native code may crash, and the kernel may kill.
    ``build`` makes an experiment.   ``method``: how processes start; a GPU's state forbids "fork", and "spawn" pickles
    ``build``.   Raises AudioLDMError where not even one clip fits, and what the experiment has against itself.
    """
    gpu, context = trainer.get("accelerator") == "gpu", multiprocessing.get_context(method)
    pools: list[ProcessPoolExecutor] = []
    with ExitStack() as stack:

        def trial(size: int) -> float:
            while len(pools) <= (method == "spawn"):  # the next one imports while this one tries
                pools.append(stack.enter_context(ProcessPoolExecutor(1, mp_context=context)))
                pools[-1].submit(attempt, build, 0, trainer)
            with suppress(BrokenProcessPool):
                return pools[0].submit(attempt, build, size, trainer).result()
            del pools[0]
            return 0.0

        if size := gpu and batch_by_share(trial, limit=limit):
            return size
        size = largest_batch(trial, limit=limit)
    if size == 0:
        hint = "Use shorter seconds, speed.checkpointing=true, trainer.precision=bf16-mixed, a smaller net."
        raise AudioLDMError("Not even one clip fits the memory.", hint, code=1)
    return size - size // (32 if gpu else 4)
