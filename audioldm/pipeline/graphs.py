"""CUDA graphs: the hundreds of kernels of a net recorded once and launched as one."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UPS = 3
"""Calls before the recording: cuDNN chooses its kernels and inductor compiles in them."""


@dataclass(frozen=True)
class Recording:
    """One graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor | None, ...]
    output: Tensor


class Graphed:
    """A function of tensors, recorded for each combination of shapes that it meets and replayed from then on.

    The last ``keep`` recordings are kept; each holds its own memory.   The function must not read a tensor's value on
    the CPU, nor draw random numbers.   Weights may change in place, their storage may not.
    """

    def __init__(self, function: Callable[..., Tensor], *, keep: int = 4) -> None:
        self.function, self.keep = function, keep
        self.recordings: OrderedDict[tuple[object, ...], Recording] = OrderedDict()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """The function's answer, in memory of its own."""
        key = tuple(None if given is None else (given.shape, given.dtype, given.device) for given in inputs)
        if key not in self.recordings:
            self.recordings[key] = record(self.function, inputs)
            if len(self.recordings) > self.keep:
                self.recordings.popitem(last=False)
        self.recordings.move_to_end(key)
        recording = self.recordings[key]
        for place, given in zip(recording.inputs, inputs, strict=True):
            if place is not None and given is not None:
                place.copy_(given)
        recording.graph.replay()
        return recording.output.clone()


def record(function: Callable[..., Tensor], inputs: tuple[Tensor | None, ...]) -> Recording:
    """Warm up on a stream of its own, as capturing needs it, then record."""
    own = tuple(None if given is None else given.clone() for given in inputs)
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*own)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = function(*own)
    finally:
        torch.backends.cudnn.benchmark = benchmark
    return Recording(graph, own, output)
