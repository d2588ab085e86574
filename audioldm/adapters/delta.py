"""How a few numbers become the change of a weight.   Pure: tensors in, tensors out.

A weight is (out, in) or (out, in, *kernel); a convolution counts as the matrix (out, in * kernel).   Factors have the
names and shapes of the LyCORIS and kohya files, so that files need no rewriting.   r is the rank.

lora    up @ down                       Hu et al. 2021 (arXiv:2106.09685) eq. 3; on convolutions it is called LoCon
loha    (w1_a @ w1_b) * (w2_a @ w2_b)   Hyeon-Woo et al. 2022 (FedPara, arXiv:2108.06098) prop. 1: rank up to r^2
lokr    kron(w1, w2)                    Yeh et al. 2024 (LyCORIS, arXiv:2309.14859) sec. 3.3; w2 may be w2_a @ w2_b
dora    m (W + D) / |W + D| - W         Liu et al. 2024 (arXiv:2402.09353) eq. 5, D as in lora, norms by output row
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

Factors = Mapping[str, Tensor]


def lora(weight: Tensor, factors: Factors, scale: float) -> Tensor:
    """Change of ``weight``: scale * up (out, r) @ down (r, in * kernel)."""
    return scale * shaped(factors["lora_up"].flatten(1) @ factors["lora_down"].flatten(1), weight)


def loha(weight: Tensor, factors: Factors, scale: float) -> Tensor:
    """Change of ``weight``: scale times the elementwise product of two products of rank r."""
    first = factors["hada_w1_a"] @ factors["hada_w1_b"]
    return scale * shaped(first * (factors["hada_w2_a"] @ factors["hada_w2_b"]), weight)


def lokr(weight: Tensor, factors: Factors, scale: float) -> Tensor:
    """Change of ``weight``: scale times the Kronecker product of w1 (l, m) and w2 (out / l, in / m, *kernel)."""
    first, second = half(factors, "lokr_w1"), half(factors, "lokr_w2")
    (rows, columns), kernel = first.shape, weight.shape[2:]
    second = second.reshape(len(second), -1, *kernel)
    product = torch.kron(first.reshape(rows, columns, *(1 for _ in kernel)), second)
    return scale * shaped(product.flatten(1), weight)


def shaped(matrix: Tensor, weight: Tensor) -> Tensor:
    """The matrix (out, in * kernel) in the shape of ``weight``; ValueError where it is that of another weight."""
    if matrix.shape != weight.flatten(1).shape:
        raise ValueError(f"factors of a weight of {tuple(matrix.shape)}, not {tuple(weight.shape)}")
    return matrix.reshape(weight.shape)


def half(factors: Factors, name: str) -> Tensor:
    """One side of the Kronecker product, given whole or as a product of low rank."""
    return factors[name] if name in factors else factors[f"{name}_a"] @ factors[f"{name}_b"]


def dora(weight: Tensor, factors: Factors, scale: float) -> Tensor:
    """Change of ``weight``: its direction moves by ``lora``, its rows' lengths are learned beside.

    The length is a constant for the gradient (sec. 4.3); a row of zeros has no direction, and is left at ``lora``.
    """
    moved = weight + lora(weight, factors, scale)
    length = row_norms(moved).detach()
    learned = factors["dora_scale"].flatten()
    # the ratio first: while nothing is learned it is 1 to the last bit
    ratio = torch.where(length > 0, learned / length.clamp(min=torch.finfo(length.dtype).tiny), 1.0)
    return ratio.reshape(-1, *(1 for _ in weight.shape[1:])) * moved - weight


def row_norms(weight: Tensor) -> Tensor:
    """Euclidean length (out,) of each output's weights."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1)


DELTAS: dict[str, Callable[[Tensor, Factors, float], Tensor]]
DELTAS = {"lora": lora, "loha": loha, "lokr": lokr, "dora": dora}
"""Kind to change; LoCon is ``lora`` with convolutions among its targets."""


def start_lora(weight: Tensor, rank: int, generator: Generator) -> dict[str, Tensor]:
    """Random ``down``, zero ``up``.   Shapes (r, in, *kernel) and (out, r, 1, 1) for a convolution."""
    out, *rest = weight.shape
    down = uniform((rank, *rest), generator)
    return {"lora_down": down, "lora_up": torch.zeros(out, rank, *(1 for _ in rest[1:]))}


def start_loha(weight: Tensor, rank: int, generator: Generator) -> dict[str, Tensor]:
    """Three random factors and a zero one, with LyCORIS' deviations 0.1, 1 and 1."""
    out, width = weight.shape[0], weight[0].numel()
    return {
        "hada_w1_a": 0.1 * torch.randn(out, rank, generator=generator),
        "hada_w1_b": torch.randn(rank, width, generator=generator),
        "hada_w2_a": torch.zeros(out, rank),
        "hada_w2_b": torch.randn(rank, width, generator=generator),
    }


def start_lokr(weight: Tensor, rank: int, generator: Generator) -> dict[str, Tensor]:
    """Random w1, zero w2; w2 has low rank where ``rank`` is below half of its longer side, else it is whole."""
    (rows, out), (columns, inside) = (factorise(n) for n in weight.shape[:2])
    kernel, factors = weight.shape[2:], {"lokr_w1": uniform((rows, columns), generator)}
    if rank < max(out, inside) / 2:
        factors["lokr_w2_a"] = uniform((out, rank), generator)
        factors["lokr_w2_b"] = torch.zeros(rank, inside * math.prod(kernel))
    else:
        factors["lokr_w2"] = torch.zeros(out, inside, *kernel)
    return factors


STARTS: dict[str, Callable[[Tensor, int, Generator], dict[str, Tensor]]] = {
    "lora": start_lora, "loha": start_loha, "lokr": start_lokr,
    "dora": lambda weight, *how: start_lora(weight, *how) | {"dora_scale": row_norms(weight.detach().float())},
}  # fmt: skip
"""Kind to factors (float32) whose change is exactly 0."""


def factorise(number: int) -> tuple[int, int]:
    """Two factors, the smaller first and as large as possible: 160 to (10, 16), 7 to (1, 7)."""
    small = next(d for d in range(math.isqrt(number), 0, -1) if number % d == 0)
    return small, number // small


def uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Between -1 and 1 over the root of the inputs' number: torch's own start of a linear layer."""
    return 1 / math.sqrt(math.prod(shape[1:])) * (2 * torch.rand(*shape, generator=generator) - 1)
