"""What a part costs at least on this machine: its FLOPs and bytes against measured peaks.

The floor of a part is max(FLOPs / peak, bytes / copy rate): every convolution, matrix product and attention at the
rate of a large matrix product, or each layer's weights, input and output moved once, whichever takes longer.   What
lies between the layers (norms, activations, sums) is taken as free, so no implementation of these layers goes below.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import seconds_of

LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Linear)


def matmul_rate(device: str, dtype: torch.dtype, *, size: int = 8192) -> float:
    """FLOP/s of a square matrix product, the best of several."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    return 2 * size**3 / min(seconds_of(lambda: a @ b, device) for _ in range(5))


def copy_rate(device: str, *, mib: int = 1024) -> float:
    """Bytes/s read plus written by a copy, the best of several."""
    a = torch.ones(mib * 2**18, device=device)
    b = torch.empty_like(a)
    b.copy_(a)
    return 2 * a.nbytes / min(seconds_of(lambda: b.copy_(a), device) for _ in range(5))


def cost(module: nn.Module, call: Callable[[], Any], *, width: int) -> dict[str, float]:
    """FLOPs and bytes of ``call``, which runs ``module`` (on the meta device: nothing is computed).

    Multiply-adds count two; ``width`` is the bytes of one number.
    """
    moved = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += inputs[0].numel() + output.numel() + sum(p.numel() for p in layer.parameters())

    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, LAYERS)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    for hook in hooks:
        hook.remove()
    return {"flops": float(counter.get_total_flops()), "bytes": float(moved * width)}


def floor(part: dict[str, float], *, flops_per_s: float, bytes_per_s: float) -> float:
    """Seconds below which the part cannot come."""
    return max(part["flops"] / flops_per_s, part["bytes"] / bytes_per_s)
