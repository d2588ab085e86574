"""What makes the same training faster or smaller: compiled blocks, memory layout, recomputed activations, CUDA graphs.

A training step of a small net launches thousands of short kernels, and the GPU waits for the launches; recorded as a
CUDA graph, a whole step is launched as one.   B batch.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Transformer2DModel
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node, tree_flatten, tree_map_only

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError
from audioldm.training.module import Terms, TrainingModule, detached

register_pytree_node(Condition, lambda c: (list(c.parts()), None), lambda parts, _: Condition(*parts))

Recording = tuple[torch.cuda.CUDAGraph, list[Any], Terms, int]
"""the graph, the leaves that it reads, the tensors that it writes, the optimiser steps in it"""


@dataclass(frozen=True)
class Speed:
    """``compile``: inductor compiles a U-Net's transformers one by one; equal ones share the work.

    They are three kinds in AudioLDM's, half a minute; residual blocks besides take minutes and give no more than
    ``channels_last`` does.   That is for GPUs with tensor cores and bf16 (a CPU loses by it), and brings the norms
    and attentions of ``norms``.   ``checkpointing`` stores only the blocks' inputs and computes the rest again in the
    backward pass: a third more time for a fraction of the memory.   ``graph`` records whole steps as CUDA graphs.
    """

    compile: bool = False
    channels_last: bool = False
    checkpointing: bool = False
    graph: bool = False

    def apply(self, module: TrainingModule) -> None:
        """Change the nets that ``module`` trains, in place, and how it steps; names and values of weights stay."""
        for net in module.components().values():
            if self.checkpointing:
                recompute(net)
            if self.channels_last:
                lay_channels_last(net)
            for part in net.modules() if self.compile else ():
                if isinstance(part, Transformer2DModel):
                    # one entry a shape; beyond the limit dynamo would run a block as it is, and say nothing
                    torch._dynamo.config.recompile_limit = 64
                    part.compile(dynamic=False)
        if self.graph:
            record(module)


def recompute(net: nn.Module) -> None:
    """Compute activations again in the backward pass.   Raises AudioLDMError for a net that cannot."""
    if not (isinstance(net, ModelMixin) and net._supports_gradient_checkpointing):
        why = f"{type(net).__name__} cannot recompute its activations."
        raise AudioLDMError(why, "Use speed.checkpointing=false.")
    net.enable_gradient_checkpointing()


def lay_channels_last(net: nn.Module) -> None:
    """Channels last in memory, and the norms and attentions for it where there is a GPU."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if torch.cuda.is_available():
        from audioldm.training.norms import swap

        swap(net)


class RecordedStep:
    """Calls ``step`` as it is ``warm`` times, then records it, and replays it from there on.

    ``step`` takes tensors (B, ...), conditions whose absent parts stay absent, and hashable options.   It does all of
    its work on the GPU (zero_grad, backward, optimisers whose rates are tensors), draws nothing, asks for no value and
    returns tensors.   ``progress`` gives Lightning's count of optimiser steps, which a replay must tell of its own.
    Each set of shapes, parts and options is a recording of its own; what it returns is overwritten by the next replay.
    On a CPU it only calls ``step``.
    """

    def __init__(
        self, step: Callable[..., Terms], *, warm: int = 3, progress: Callable[[], Any] = lambda: None
    ) -> None:
        self.step, self.warm, self.progress = step, warm, progress
        self.calls: dict[Hashable, int] = {}
        self.recordings: dict[Hashable, Recording] = {}

    def __call__(self, *inputs: Any, **options: Any) -> Terms:
        leaves, spec = tree_flatten((inputs, options))
        tensors = [*filter(torch.is_tensor, leaves)]
        if tensors[0].device.type != "cuda":
            return self.step(*inputs, **options)
        key = (repr(spec), *((getattr(leaf, "shape", leaf), getattr(leaf, "dtype", None)) for leaf in leaves))
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] <= self.warm:
            return self.aside(inputs, options)
        if key not in self.recordings:
            self.recordings[key] = self.record(inputs, options)
        elif progress := self.progress():
            # Lightning did not see these steps, and its checkpoints wait for new ones
            for _ in range(self.recordings[key][3]):
                progress.increment_ready()
                progress.increment_completed()
        graph, buffers, terms, _ = self.recordings[key]
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
        progress = self.progress()
        before = progress.total.completed if progress else 0
        buffers = tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"), self.uncached_autocast():
            terms = self.step(*buffers, **options)
        leaves = [leaf for leaf in tree_flatten(buffers)[0] if isinstance(leaf, Tensor)]
        return graph, leaves, terms, progress.total.completed - before if progress else 0


def record(module: TrainingModule) -> None:
    """Let ``module`` replay its ``step``, with backward and optimisers in it.   One GPU, batches of few shapes.

    Raises AudioLDMError for a module whose step cannot be recorded.
    """
    if not module.recordable:
        raise AudioLDMError(f"{type(module).__name__} cannot be recorded.", "Use speed.graph=false.")
    module.recorded = True
    target: Any = module
    step: Callable[..., Terms] = target.step

    progress = lambda: module.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress  # noqa: E731

    def descended(*inputs: Any, **options: Any) -> Terms:
        terms = step(*inputs, **options)
        norm = module.descend(terms["loss"], module.optimizers())
        return detached({**terms, "norm": norm})

    target.step = RecordedStep(descended if module.automatic_optimization else step, progress=progress)
    module.automatic_optimization = False
