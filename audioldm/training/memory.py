"""How large a batch the memory holds, measured by real training steps."""

import gc
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import Any

import lightning as L
import torch
from torch import nn

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError, without_memory
from audioldm.nets.unet import LatentUNet, multiple_of, net_call
from audioldm.spec import AudioSpec
from audioldm.training.ema import Averages

LARGEST = 4096
RECOMPUTED = 0.3  # of what a clip keeps, with checkpointing; measured .27 (S, M) and .31 (L)


def largest_batch(fits: Callable[[int], bool], *, limit: int = LARGEST) -> int:
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


def estimate(unet: LatentUNet, spec: AudioSpec, seconds: float, copies: int, share: float = 1.0) -> str:
    """What training a U-Net, on the meta device, takes of memory, and the batch that the GPU which is here holds.

    ``copies`` of its weights in float32 lie there; ``share`` of what a call keeps is kept.
    """
    fixed = 4 * copies * sum(value.numel() for value in unet.parameters())
    shape = unet.config.in_channels, *spec.latent_shape(seconds, multiple_of(unet))[1:]
    clip = kept_bytes(unet, shape) * share
    line = f"about {fixed / 2**30:.1f} GiB, and {clip / 2**30:.2g} for each clip of {seconds:g} s in a batch"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        room = max(0, int((card.total_memory - 2**30 - fixed) / clip))  # a GiB is the driver's
        line += f"; {card.name} ({card.total_memory / 2**30:.0f} GiB) holds {room} clips"
    return line


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fits(experiment: Any, size: int, **trainer: Any) -> bool:
    """Whether whole training steps at ``size`` clips run, and a validation; weights and optimiser are used up by it.

    The count of batches is set to where every loss is in play: a discriminator that joins later costs memory too.
    Nothing is compiled nor searched for: that takes minutes for a dozen sizes, and memory is much the same.   Steps
    are recorded where the run's are, and copies of the weights lie beside, as many as averages and a validation hold.
    """
    module, data = experiment.module, experiment.data
    module.batch_count = getattr(module, "adversarial_start", 0)
    data.batch_size = size
    steps = 5 if module.speed.graph else 2 * module.accumulate  # three before a recording, itself, a replay
    trainer |= {"max_epochs": 1, "limit_train_batches": steps, "limit_val_batches": 1, "benchmark": False}
    trainer |= {"barebones": True, "use_distributed_sampler": False}
    try:
        module.configure_model()
        callbacks = [one for one in experiment.trainer.callbacks if isinstance(one, Averages)]
        followed = [name for one in callbacks for name in one.shares() if trainer.get("accelerator") == "gpu"]
        copies = range(len(followed) + bool(followed))  # the weights themselves lie beside while it validates
        beside = [p.to("cuda", copy=True) for p in module.averaged.parameters() for _ in copies]
        with torch.compiler.set_stance("force_eager"):
            L.Trainer(**trainer).fit(module, data)
        del beside
    except (RuntimeError, MemoryError) as error:
        if not without_memory(error):
            raise
        return False
    finally:
        module.zero_grad(set_to_none=True)
        if module.recorded:
            module.step.recordings.clear()
        release()
    return True


EXPERIMENT: list[Any] = []  # in a process of trials: the experiment, built once


def attempt(build: Callable[[], Any], size: int, trainer: dict[str, Any]) -> bool:
    if not EXPERIMENT:
        EXPERIMENT.append(build())
    return fits(EXPERIMENT[0], size, **trainer)


def probe(build: Callable[[], Any], *, limit: int = LARGEST, method: str, **trainer: Any) -> int:
    """The batch size to use: what ``fits``, on a GPU less a 32nd for fragmentation, else a quarter for what else runs.

    Trials run in a process that leaves no memory behind, and in a new one after a size that did not fit: half a
    recording may stay, native code that meets a full memory may crash, and the kernel may kill.
    ``build`` makes an experiment.   ``method``: how processes start; a GPU's state forbids "fork", and "spawn" pickles
    ``build``.   Raises AudioLDMError where not even one clip fits, and what the experiment has against itself.
    """
    pools: list[ProcessPoolExecutor] = []
    with ExitStack() as stack:

        def trial(size: int) -> bool:
            if not pools:
                context = multiprocessing.get_context(method)
                pools.append(stack.enter_context(ProcessPoolExecutor(1, mp_context=context)))
            try:
                fitted = pools[0].submit(attempt, build, size, trainer).result()
            except BrokenProcessPool:
                fitted = False
            if not fitted:
                pools.pop().shutdown()
            return fitted

        size = largest_batch(trial, limit=limit)
    if size == 0:
        hint = "Use shorter seconds, speed.checkpointing=true, trainer.precision=bf16-mixed, a smaller net."
        raise AudioLDMError("Not even one clip fits the memory.", hint, code=1)
    return max(1, size - size // (32 if trainer.get("accelerator") == "gpu" else 4))
