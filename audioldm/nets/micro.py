"""What a crop was cut from, as a condition beside the prompt.   B batch, D width of the FiLM vector.

SDXL (arXiv:2307.01952 sec. 2.2) conditions the net on the size and the crop of each training picture, and so keeps
small and cut-off ones without learning to make them; Stable Audio (arXiv:2402.04825 sec. 3.2) does it with seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from audioldm.batch import Condition
from audioldm.nets.folder import register

FIELDS = ("start", "seconds", "rate", "crop")
"""Second of the file where the crop starts; seconds of the whole file; its own sample rate in Hz; seconds cropped."""

Facts = Tensor | Sequence[float] | Mapping[str, Tensor | Sequence[float] | float]
"""One row (4,) for all or (B, 4), in the order of FIELDS; or each field by name, a number or (B,)."""


def sinusoidal_embedding(values: Tensor, dim: int, *, period: float = 10000.0) -> Tensor:
    """Cosines, then sines, of each value at dim/2 angular speeds from 1 down to nearly 1 / period: (...) to (..., dim).

    e(v) = [cos w_i v, sin w_i v], w_i = period^(-2i / dim): Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.5, used for
    the time by DDPM (arXiv:2006.11239 app. B); this order is the U-Net's own (diffusers: flip_sin_to_cos).   Computed
    in float32 or wider.   e(a) . e(b) depends on a - b only.   Raises ValueError for an odd or non-positive ``dim``.

    >>> sinusoidal_embedding(torch.tensor([0.0, 1000.0]), 4)[0].tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"dim={dim} must be even and positive: every speed has a cosine and a sine")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    index = torch.arange(dim // 2, dtype=values.dtype, device=values.device)
    angles = values[..., None] * torch.exp(-log(period) * index / (dim // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rows(facts: Facts) -> Tensor:
    """Facts in any of their forms as float32 (B, 4).   Raises ValueError for a wrong name or shape, or a bad number.

    >>> rows({"start": [0.0, 5.0], "seconds": 30.0, "rate": 44100, "crop": 10.0}).tolist()
    [[0.0, 30.0, 44100.0, 10.0], [5.0, 30.0, 44100.0, 10.0]]
    """
    if isinstance(facts, Mapping):
        if set(facts) != set(FIELDS):
            raise ValueError(f"micro-conditioning needs exactly {', '.join(FIELDS)}; got {', '.join(facts)}")
        columns = (torch.as_tensor(facts[name]).float() for name in FIELDS)
        table = torch.stack(torch.broadcast_tensors(*columns), dim=-1)
    else:
        table = torch.as_tensor(facts).float()
    table = table[None] if table.dim() == 1 else table
    if table.dim() != 2 or table.shape[1] != len(FIELDS):
        raise ValueError(f"micro-conditioning must be (B, {len(FIELDS)}), got {tuple(table.shape)}")
    if not bool((table.isfinite() & (table >= 0)).all()):
        raise ValueError(f"micro-conditioning must be finite and not negative, got {table.tolist()}")
    return table


@register
class MicroConditioning(ModelMixin, ConfigMixin):
    """FIELDS of each clip (B, 4) to a vector (B, film_dim) that is added to ``Condition.film``.

    Each fact, in units of ``units``, gets ``dim`` sinusoids; two linear layers read the four together.   The last one
    starts at zero, so before training the vector is exactly 0 and a trained U-Net answers as it did without it.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        film_dim: int = 512,
        dim: int = 128,
        hidden: int = 512,
        units: Sequence[float] = (0.1, 0.1, 100.0, 0.1),
    ) -> None:
        super().__init__()
        if len(units) != len(FIELDS) or min(units) <= 0:
            raise ValueError(f"units={tuple(units)}: one positive size for each of {', '.join(FIELDS)}")
        self.inside = nn.Linear(len(FIELDS) * dim, hidden)
        self.act = nn.SiLU()
        self.outside = nn.Linear(hidden, film_dim)
        nn.init.zeros_(self.outside.weight)
        nn.init.zeros_(self.outside.bias)

    def forward(self, facts: Facts) -> Tensor:
        """Facts to vectors (B, film_dim)."""
        weight = self.inside.weight
        table = rows(facts).to(weight.device)
        waves = sinusoidal_embedding(table / table.new_tensor(self.config.units), self.config.dim)
        return self.outside(self.act(self.inside(waves.flatten(1).to(weight.dtype))))


def with_micro(condition: Condition, vector: Tensor) -> Condition:
    """``condition`` with ``vector`` (B, D), or (1, D) for all, added to its film.   Raises ValueError without film.

    Add it after ``drop_condition`` and to the negative prompt as well: SDXL drops the text alone, so guidance pushes
    away from the absent prompt and not from the facts.
    """
    if condition.film is None:
        raise ValueError("micro-conditioning is added to film, but the condition has none")
    if vector.shape[-1] != condition.film.shape[-1] or len(vector) not in (1, len(condition.film)):
        raise ValueError(f"film is {tuple(condition.film.shape)}, micro-conditioning {tuple(vector.shape)}")
    return replace(condition, film=condition.film + vector.to(condition.film))
