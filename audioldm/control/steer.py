"""Controls around a U-Net's call: a map fitted to the clip and read by its net, a sound attended to.

B batch, T latent frames, F mel bins.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.control.maps import pictures
from audioldm.control.prompt import AudioPrompt, second_attentions
from audioldm.control.residual import ControlNet, Residuals, T2IAdapter
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import load_component
from audioldm.nets.unet import NetCall
from audioldm.spec import AudioSpec

NETS = (ControlNet, T2IAdapter, AudioPrompt)
ALIKE = (
    "in_channels", "down_block_types", "mid_block_type", "block_out_channels", "layers_per_block",
    "cross_attention_dim", "class_embed_type", "projection_class_embeddings_input_dim", "class_embeddings_concat",
)  # fmt: skip
"""settings of a U-Net that a copy of its encoder must share to add to its skips"""


WINDOW: ContextVar[tuple[int, int] | None] = ContextVar("WINDOW", default=None)
"""first latent frame of what the U-Net is asked about, and latent frames of the whole clip; None: the clip itself"""


@contextmanager
def window_at(begin: int, frames: int) -> Iterator[None]:
    """Within, the U-Net is asked about a window of a clip of ``frames`` latent frames; past its end it begins anew."""
    token = WINDOW.set((begin, frames))
    try:
        yield
    finally:
        WINDOW.reset(token)


class Control(Protocol):
    """What changes a U-Net's call."""

    def around(self, call: NetCall, unet: UNet2DConditionModel, rows: int | None = None) -> NetCall: ...
    def settings(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class MapControl:
    """A map that the sound is to follow: its curve from the clip's begin on, its net, its strength."""

    net: ControlNet | T2IAdapter
    curve: Tensor
    spec: AudioSpec
    scale: float = 1.0
    source: str = ""

    def around(self, call: NetCall, unet: UNet2DConditionModel, rows: int | None = None) -> NetCall:
        """``call`` with the net's residuals in its first ``rows``; where the curve has ended, none.

        A window sees its part of the curve.
        """
        if self.scale == 0 or rows == 0:
            return call
        picture = pictures(self.net.config.map, self.curve[None], self.spec)

        def called(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
            size = x.shape[2] * self.spec.stride
            begin, frames = WINDOW.get() or (0, x.shape[2])
            whole = fitted(picture.to(x), frames * self.spec.stride)
            seen, share = (part.roll(-begin * self.spec.stride, 2)[:, :, :size] for part in whole)
            led = slice(rows)
            own = self.net.residuals(
                x[led], t[led], condition.rows(led), seen.expand(len(x[led]), -1, -1, -1)
            )
            own = filled(scaled(own, self.scale * share), len(x))
            return call(x, t, condition, **joined(residuals, own))

        return called

    def settings(self) -> dict[str, Any]:
        """For a sidecar."""
        kind = type(self.net).__name__
        return {"map": self.net.config.map, "from": self.source, "scale": self.scale, "net": kind}


@dataclass(frozen=True)
class AudioPromptControl:
    """A sound (its CLAP vector (1, D)) that the U-Net attends to beside the words."""

    net: AudioPrompt
    vector: Tensor
    scale: float = 1.0
    source: str = ""

    def around(self, call: NetCall, unet: UNet2DConditionModel, rows: int | None = None) -> NetCall:
        """``call`` with the sound attended to by its first ``rows``."""
        if self.scale == 0 or rows == 0:
            return call
        return self.net.around(call, unet, self.vector, self.scale, rows=rows)

    def settings(self) -> dict[str, Any]:
        """For a sidecar."""
        return {"like": self.source, "scale": self.scale, "net": "AudioPrompt"}


def fitted(picture: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """A picture (B, 1, T', F) cut to ``frames`` or filled with nothing, and where it was drawn (1, 1, frames, 1)."""
    length = min(frames, picture.shape[2])
    drawn = torch.zeros(1, 1, frames, 1, dtype=picture.dtype, device=picture.device)
    drawn[:, :, :length] = 1
    return nnf.pad(picture[:, :, :length], (0, 0, 0, frames - length)), drawn


def scaled(residuals: Residuals, share: Tensor) -> Residuals:
    """Residuals times ``share`` (1, 1, frames, 1) of the mel, averaged to the frames of each level."""

    def times(value: Tensor) -> Tensor:
        return value * nnf.adaptive_avg_pool2d(share, (value.shape[2], 1))

    return {
        name: [times(part) for part in value] if isinstance(value, list) else times(value)
        for name, value in residuals.items()
    }


def filled(residuals: Residuals, rows: int) -> Residuals:
    """Residuals of the first rows, and nothing for those that follow, up to ``rows``."""

    def more(value: Tensor) -> Tensor:
        return (
            torch.cat([value, value.new_zeros(rows - len(value), *value.shape[1:])])
            if len(value) < rows
            else value
        )

    return {
        name: [more(part) for part in value] if isinstance(value, list) else more(value)
        for name, value in residuals.items()
    }


def joined(one: Residuals, other: Residuals) -> Residuals:
    """Sums where both add to the same place."""
    out = dict(one)
    for name, value in other.items():
        if name not in out:
            out[name] = value
        elif isinstance(value, list):
            out[name] = [a + b for a, b in zip(out[name], value, strict=True)]
        else:
            out[name] = out[name] + value
    return out


def steered(
    call: NetCall, controls: Sequence[Control], unet: UNet2DConditionModel, rows: int | None = None
) -> NetCall:
    """``call`` under every control, in its first ``rows`` (None: all); with none it is ``call`` itself."""
    for control in controls:
        call = control.around(call, unet, rows)
    return call


def load_net(place: Path | str) -> Any:
    """A ControlNet, T2IAdapter or AudioPrompt from the folder that a recipe exported.   Raises AudioLDMError."""
    folder = Path(place).parent if Path(place).is_file() else Path(place)
    net: Any = load_component(folder, NETS)
    return net.requires_grad_(False)


def check_fits(
    net: Any, unet: UNet2DConditionModel, spec: AudioSpec, name: str, *, dim: int | None = None
) -> None:
    """Raise AudioLDMError unless ``net`` was made for a U-Net of this shape; an audio prompt also for ``dim``."""
    if isinstance(net, ControlNet):
        own = net.encoder.config
        fits = net.config.stride == spec.stride and all(own[key] == unet.config[key] for key in ALIKE)
    elif isinstance(net, T2IAdapter):
        fits = tuple(net.config.levels) == tuple(unet.config.block_out_channels)
        fits = fits and net.config.stride == spec.stride
    else:
        made_for = [part.to_k.out_features for part in second_attentions(unet).values()]
        fits = list(net.config.widths) == made_for and dim in (None, net.config.dim)
    if not fits:
        raise AudioLDMError(
            f"The {type(net).__name__} was trained for another U-Net than {name}'s.",
            "Train one on this model: audioldm recipes control/t2i_adapter.",
        )
