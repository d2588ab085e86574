"""The U-Net's forward and backward pass as two CUDA graphs.   B batch.

A training step at a small batch launches thousands of short kernels, and the GPU waits for the launches; recorded, each
pass is launched as one.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from audioldm.batch import Condition
from audioldm.nets.unet import net_call


class Bare(nn.Module):
    """The U-Net with nothing but tensors going in, as a recording needs it."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, film: Tensor) -> Tensor:
        """x (B, C, T, F), t (B,), film (B, D) to (B, C, T, F)."""
        return net_call(self.unet)(x, t, Condition(film=film))


class RecordedUnet:
    """A NetCall that is recorded at the first training step of each shape and replayed at all later ones.

    What cannot be recorded runs as it is: validation, a CPU, token conditions.   Weights may change in place (that is
    what an optimiser does); a new shape costs a recording and its memory.   For one GPU: DDP hooks are not replayed.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        self.passes: dict[tuple[Any, ...], Any] = {}

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """As ``net_call(unet)``."""
        live = x.device.type == "cuda" and torch.is_grad_enabled() and self.unet.training
        if not live or condition.film is None or condition.tokens is not None:
            return net_call(self.unet)(x, t, condition)
        inputs = (x, t, condition.film)
        key = tuple((part.shape, part.dtype) for part in inputs)
        if key not in self.passes:
            samples = tuple(part.detach().clone() for part in inputs)
            self.passes[key] = torch.cuda.make_graphed_callables(
                Bare(self.unet).train(), samples, allow_unused_input=True
            )
        return self.passes[key](*inputs)
