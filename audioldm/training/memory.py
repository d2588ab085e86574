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
Shares = tuple[float, float]  # of a memory: what lies there between steps, and the most taken; 0: too little
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


def batch_by_share(shares: Callable[[int], Shares], *, limit: int = LARGEST) -> int:
    """A size whose steps take some nine tenths of a memory, by the ``shares`` that a small one took, tried too.

    0 where none of the small ones fits.   The share grows evenly; what is left is lost to fragments.

    >>> batch_by_share(lambda n: (1 / 8, share) if (share := 1 / 8 + n / 128) < 0.95 else (0.0, 0.0))
    100
    """
    for few in (32, 8, 2):
        rest, most = shares(few) if few < limit else (0.0, 0.0)
        if most:
            size = int(0.9 * min(limit, few * (1 - rest) / max(most - rest, 1e-9)))
            while size > few and not shares(size)[1]:
                size = int(0.9 * size)
            return max(size, few)
        limit = min(limit, few - 1)
    return 0


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


def release() -> tuple[int, int]:
    """Give memory back; how many bytes of a GPU tensors have, and how many this process keeps."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def memory_shares(experiment: Any, size: int, **trainer: Any) -> Shares:
    """What training steps at ``size`` clips, and a validation, took of a GPU's memory; 0 and 1 on a CPU.

    Weights and optimiser are used up by it.   The count of batches is set to where every loss is in play.
    Nothing is compiled nor searched for: that takes minutes for a dozen sizes, and memory is much the same.   Steps
    are recorded where the run's are, and copies of the weights lie beside, as many as averages and a validation hold.
    """
    module, data = experiment.module, experiment.data
    module.batch_count, data.batch_size = getattr(module, "adversarial_start", 0), size
    steps = 5 if module.speed.graph else 2 * module.accumulate  # three before a recording, itself, a replay
    trainer |= {"max_epochs": 1, "limit_train_batches": steps, "limit_val_batches": 1, "benchmark": False}
    trainer |= {"barebones": True, "use_distributed_sampler": False}
    gpu, held = trainer.get("accelerator") == "gpu", list[int]()  # a recording keeps its gaps, too
    trainer["callbacks"] = [LambdaCallback(on_train_end=lambda *_: held.extend(release()))]
    try:
        module.configure_model()
        copies = sum(len(one.shares()) for one in experiment.trainer.callbacks if isinstance(one, Averages))
        copies += bool(copies)  # the weights themselves lie beside while it validates
        beside = [p.to("cuda", copy=True) for p in module.averaged.parameters() for _ in range(copies * gpu)]
        with torch.compiler.set_stance("force_eager"):
            L.Trainer(**trainer).fit(module, data)
        del beside
        if not gpu:
            return 0.0, 1.0
        (rest, kept), (free, total) = held, torch.cuda.mem_get_info()
        room = min(free + torch.cuda.memory_reserved(), total * torch.cuda.get_per_process_memory_fraction())
        return rest / room, max(torch.cuda.max_memory_allocated(), kept) / room
    except (RuntimeError, MemoryError) as error:
        if not without_memory(error):
            raise
        return 0.0, 0.0
    finally:
        module.zero_grad(set_to_none=True)
        if module.recorded:
            module.step.recordings.clear()
        release()


EXPERIMENT: list[Any] = []  # in a process of trials: the experiment, built once


def attempt(build: Callable[[], Any], size: int, trainer: dict[str, Any]) -> Shares:
    """Of 0 clips it only builds."""
    if not EXPERIMENT:
        EXPERIMENT.append(build())
    shares = memory_shares(EXPERIMENT[0], size, **trainer) if size else (0.0, 1.0)
    return shares if shares[1] else os._exit(1)


def probe(build: Callable[[], Any], *, limit: int = LARGEST, method: str, **trainer: Any) -> int:
    """The batch size to use: on a GPU by ``batch_by_share``, elsewhere the largest less a quarter.

    What is left is for fragments, and for what else runs.   Trials run in a process that leaves no memory behind.   A
    size that does not fit ends it: half a recording may stay, native code may crash, and the kernel may kill.
    ``build`` makes an experiment.   ``method``: how processes start; a GPU's state forbids "fork", and "spawn" pickles
    ``build``.   Raises AudioLDMError where not even one clip fits, and what the experiment has against itself.
    """
    gpu, context = trainer.get("accelerator") == "gpu", multiprocessing.get_context(method)
    pools: list[ProcessPoolExecutor] = []
    with ExitStack() as stack:

        def trial(size: int) -> Shares:
            while len(pools) <= (method == "spawn"):  # the next one imports while this one tries
                pools.append(stack.enter_context(ProcessPoolExecutor(1, mp_context=context)))
                pools[-1].submit(attempt, build, 0, trainer)
            with suppress(BrokenProcessPool):
                return pools[0].submit(attempt, build, size, trainer).result()
            del pools[0]
            return 0.0, 0.0

        size = batch_by_share(trial, limit=limit) if gpu else 0
        size = size or largest_batch(lambda size: trial(size)[1], limit=limit)
    if size == 0:
        hint = "Use shorter seconds, speed.checkpointing=true, trainer.precision=bf16-mixed, a smaller net."
        raise AudioLDMError("Not even one clip fits the memory.", hint, code=1)
    return size if gpu else size - size // 4
