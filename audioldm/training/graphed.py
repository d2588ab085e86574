"""Training steps as CUDA graphs.   B batch.

A training step of a small net launches thousands of short kernels, and the GPU waits for the launches; recorded, a
whole step is launched as one.
"""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class RecordedStep:
    """Runs ``step(*inputs, *options)`` as it is ``warm`` times, then records it, and replays it from there on.

    ``step`` takes tensors (B, ...) and hashable options, does all of its own work on the GPU (zero_grad, backward,
    optimisers whose rates are tensors: ``adamw(graph=True)``), draws nothing, asks for no value and returns tensors.
    Each set of shapes and options is a recording of its own; what it returns is overwritten by the next replay.
    Not ``on``, or on a CPU, it only calls ``step``.
    """

    def __init__(self, step: Callable[..., dict[str, Tensor]], *, on: bool = True, warm: int = 3) -> None:
        self.step, self.on, self.warm = step, on, warm
        self.calls: dict[Hashable, int] = {}
        self.recordings: dict[
            Hashable, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], dict[str, Tensor]]
        ] = {}

    def __call__(self, *inputs: Tensor, options: tuple[Hashable, ...] = ()) -> dict[str, Tensor]:
        """What ``step`` returns."""
        if not self.on or inputs[0].device.type != "cuda":
            return self.step(*inputs, *options)
        key = (tuple((part.shape, part.dtype) for part in inputs), options)
        if key not in self.recordings:
            self.calls[key] = self.calls.get(key, 0) + 1
            if self.calls[key] <= self.warm:
                return self.aside(inputs, options)
            self.recordings[key] = self.record(inputs, options)
        graph, held, made = self.recordings[key]
        for own, given in zip(held, inputs, strict=True):
            own.copy_(given)
        graph.replay()
        return made

    @staticmethod
    def whole() -> torch.autocast:
        """Mixed precision as it is, without the cache of converted weights, which would outlive a recording."""
        on = torch.is_autocast_enabled("cuda")
        return torch.autocast("cuda", enabled=on, dtype=torch.get_autocast_dtype("cuda"), cache_enabled=False)

    def aside(self, inputs: tuple[Tensor, ...], options: tuple[Hashable, ...]) -> dict[str, Tensor]:
        """One step on a stream of its own, as a recording needs the ones before it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), self.whole():
            made = self.step(*inputs, *options)
        torch.cuda.current_stream().wait_stream(stream)
        return made

    def record(
        self, inputs: tuple[Tensor, ...], options: tuple[Hashable, ...]
    ) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], dict[str, Tensor]]:
        """The graph, the tensors that it reads, and those that it writes; recording computes nothing."""
        held = tuple(part.detach().clone() for part in inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"), self.whole():
            made = self.step(*held, *options)
        return graph, held, made
