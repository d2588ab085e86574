"""What a window was cut from, as a condition beside the prompt.   B batch, D width of the FiLM vector.

SDXL (arXiv:2307.01952 sec. 2.2) conditions the net on the size and the crop of each training picture, and so keeps
small and cut-off ones without learning to make them; Stable Audio (arXiv:2402.04825 sec. 3.2) does it with seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from audioldm.batch import Condition
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import Component
from audioldm.nets.unet import NetCall

UNITS = {"start": 0.1, "seconds": 0.1, "rate": 100.0, "loudness": 0.1, "clipping": 0.0001}
"""Facts of a window with the step that their sinusoids resolve: the second of its clip at which it starts, the clip's
seconds, rate in Hz, LUFS (its sign is dropped), and the share of its samples that are cut off."""


class MicroConditioning(Component):
    """Facts (B, 5) to vectors (B, dim) that are added to ``Condition.film``; at first exactly 0.   SDXL sec. 2.2.

    ``usual`` are the facts that a sound is made with unless others are asked for: the medians of the training.
    """

    def __init__(
        self, dim: int = 256, waves: int = 32, hidden: int = 128, usual: Sequence[float] = (0.0,) * len(UNITS)
    ) -> None:
        super().__init__()
        self.inside = nn.Linear(len(UNITS) * waves, hidden)
        self.outside = nn.Linear(hidden, dim)
        nn.init.zeros_(self.outside.weight)
        nn.init.zeros_(self.outside.bias)

    def forward(self, facts: Tensor) -> Tensor:
        values = (facts / facts.new_tensor(list(UNITS.values()))).abs().flatten()
        waves = get_timestep_embedding(
            values, self.config.waves, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return self.outside(nn.functional.silu(self.inside(waves.reshape(len(facts), -1))))


def with_facts(condition: Condition, net: MicroConditioning, facts: Tensor) -> Condition:
    """``condition`` with the vectors of ``facts`` (B, 5), or (1, 5) for all, added to its film.

    Add them after the dropping of captions and to the empty prompt as well: SDXL drops the text alone, so guidance
    pushes away from the absent prompt and not from the facts.
    """
    if condition.film is None:
        raise AudioLDMError(
            "The facts of a clip are added to a vector, and this U-Net reads none.", "Use one with film."
        )
    return replace(condition, film=condition.film + net(facts).to(condition.film))


@dataclass(frozen=True)
class MicroControl:
    """The facts that all sounds of a model are made with; those that are not asked for are the usual ones."""

    net: MicroConditioning
    facts: Mapping[str, float]

    def around(self, call: NetCall, unet: UNet2DConditionModel, rows: int | None = None) -> NetCall:
        """``call`` with the facts in every row, guided or not."""
        facts = {**dict(zip(UNITS, self.net.config.usual, strict=True)), **self.facts}
        row = torch.tensor([[facts[name] for name in UNITS]], device=self.net.inside.weight.device)

        def called(x: Tensor, t: Tensor, condition: Condition, **residuals: Tensor) -> Tensor:
            return call(x, t, with_facts(condition, self.net, row), **residuals)

        return called

    def settings(self) -> dict[str, Any]:
        return {"facts": dict(self.facts)}


def parse_facts(texts: Sequence[str]) -> dict[str, float]:
    """FACT=NUMBER, each.   Raises AudioLDMError.

    >>> parse_facts(["rate=44100", "loudness=-20"])
    {'rate': 44100.0, 'loudness': -20.0}
    """
    facts = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            facts[name] = float(value)
        except ValueError:
            name = ""
        if name not in UNITS or not abs(facts[name]) < 1e6:
            raise AudioLDMError(f"micro={text} is no fact.", f"Use FACT=NUMBER; known: {', '.join(UNITS)}.")
    return facts
