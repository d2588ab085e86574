"""Training steps as CUDA graphs.   B batch.

A training step of a small net launches thousands of short kernels, and the GPU waits for the launches; recorded, a
whole step is launched as one.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import register_pytree_node, tree_flatten, tree_map_only

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError
from audioldm.training.module import Terms, TrainingModule, detached

register_pytree_node(Condition, lambda c: (list(c.parts()), None), lambda parts, _: Condition(*parts))

Recording = tuple[torch.cuda.CUDAGraph, list[Any], Terms]
"""the graph, the leaves that it reads, the tensors that it writes"""


class RecordedStep:
    """Calls ``step`` as it is ``warm`` times, then records it, and replays it from there on.

    ``step`` takes tensors (B, ...), conditions whose absent parts stay absent, and hashable options.   It does all of
    its work on the GPU (zero_grad, backward, optimisers whose rates are tensors), draws nothing, asks for no value and
    returns tensors.   ``progress`` gives Lightning's count of optimiser steps, which a replay must tell of its own.
    Each set of shapes, parts and options is a recording of its own; what it returns is overwritten
    by the next replay.   On a CPU it only calls ``step``.
    """

    def __init__(
        self, step: Callable[..., Terms], *, warm: int = 3, progress: Callable[[], Any] = lambda: None
    ) -> None:
        self.step, self.warm, self.progress = step, warm, progress
        self.calls: dict[Hashable, int] = {}
        self.recordings: dict[Hashable, Recording] = {}
        self.steps: dict[Hashable, int] = {}

    def __call__(self, *inputs: Any, **options: Any) -> Terms:
        """What ``step`` returns."""
        leaves, spec = tree_flatten((inputs, options))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if tensors[0].device.type != "cuda":
            return self.step(*inputs, **options)
        key = (repr(spec), *map(form, leaves))
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] <= self.warm:
            return self.aside(inputs, options)
        progress = self.progress()
        if key not in self.recordings:
            before = progress.total.completed if progress else 0
            self.recordings[key] = self.record(inputs, options)
            self.steps[key] = progress.total.completed - before if progress else 0
        else:
            count_steps(progress, self.steps[key])
        graph, buffers, terms = self.recordings[key]
        for buffer, tensor in zip(buffers, tensors, strict=True):
            buffer.copy_(tensor)
        graph.replay()
        return terms

    @staticmethod
    def uncached_autocast() -> torch.autocast:
        """Mixed precision as it is, without the cache of converted weights, which would outlive a recording."""
        on = torch.is_autocast_enabled("cuda")
        return torch.autocast("cuda", enabled=on, dtype=torch.get_autocast_dtype("cuda"), cache_enabled=False)

    def aside(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Terms:
        """One step on a stream of its own, as a recording needs the ones before it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), self.uncached_autocast():
            terms = self.step(*inputs, **options)
        torch.cuda.current_stream().wait_stream(stream)
        return terms

    def record(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Recording:
        """The graph, the tensors that it reads, and those that it writes; recording computes nothing."""
        buffers = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"), self.uncached_autocast():
            terms = self.step(*buffers, **options)
        return graph, [leaf for leaf in tree_flatten(buffers)[0] if isinstance(leaf, Tensor)], terms


def form(leaf: Any) -> Hashable:
    """What of an argument makes another recording: a tensor's shape and type, the value of an option."""
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def count_steps(progress: Any, steps: int) -> None:
    """Tell Lightning of optimiser steps that it did not see: its checkpoints wait for new ones."""
    for _ in range(steps):
        progress.increment_ready()
        progress.increment_completed()


def record(module: TrainingModule) -> None:
    """Let ``module`` replay its ``step``, with backward and optimisers in it.   One GPU, batches of few shapes.

    Raises AudioLDMError for a module whose step cannot be recorded.
    """
    if not module.recordable:
        raise AudioLDMError(f"{type(module).__name__} cannot be recorded.", "Use speed.graph=false.")
    module.recorded = True
    target: Any = module
    plain: Callable[..., Terms] = target.step

    def progress() -> Any:
        return module.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress

    if not module.automatic_optimization:
        target.step = RecordedStep(plain, progress=progress)
        return
    module.automatic_optimization = False

    def descended(*inputs: Any, **options: Any) -> Terms:
        terms = plain(*inputs, **options)
        norm = module.descend(terms["loss"], module.optimizers())
        return detached({**terms, "norm": norm})

    target.step = RecordedStep(descended, progress=progress)
