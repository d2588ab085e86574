"""Controls around a U-Net's call: a map read by its net, a sound attended to.   B batch, T latent frames, F bins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf
from torch.utils._pytree import tree_map

from audioldm.batch import Condition
from audioldm.control import nets
from audioldm.control.maps import pictures
from audioldm.control.nets import ControlNet, IPAdapter, MicroConditioning, T2IAdapter
from audioldm.diffusion.windows import WINDOW
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import load_component, read_json
from audioldm.nets.unet import LatentUNet, NetCall
from audioldm.spec import AudioSpec

NETS = (ControlNet, T2IAdapter, IPAdapter)
SHIPPED = Path(__file__).parents[1] / "_embedded" / "control"
"""nets of the embedded model: one for each map, in a folder of its name, and the IP-Adapter"""
IP_ADAPTER = "ip_adapter"
ALIKE = (  # settings of a U-Net that a copy of its encoder must share to add to its skips
    "in_channels", "down_block_types", "mid_block_type", "block_out_channels", "layers_per_block",
    "cross_attention_dim", "class_embed_type", "projection_class_embeddings_input_dim", "class_embeddings_concat",
)  # fmt: skip


@dataclass(frozen=True)
class MapControl:
    """A map that the sound is to follow: its curve from the clip's begin on, its net, its strength."""

    net: ControlNet | T2IAdapter
    curve: Tensor
    spec: AudioSpec
    scale: float = 1.0
    source: str = ""

    def around(self, call: NetCall, unet: LatentUNet, rows: int | None = None) -> NetCall:
        """``call`` with the net's residuals in its first ``rows``, while the curve, or a window's part of it, lasts."""
        if self.scale == 0 or rows == 0:
            return call
        picture = pictures(self.net.config.map, self.curve[None], self.spec)
        drawn = torch.ones_like(picture[..., :1])

        def called(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
            stride, size, led = self.spec.stride, x.shape[2] * self.spec.stride, slice(rows)
            begin, frames = WINDOW.get() or (0, x.shape[2])
            more = (0, 0, 0, frames * stride - picture.shape[2])  # filled with nothing, or cut
            whole = (nnf.pad(part.to(x), more) for part in (picture, drawn))
            visible, share = (part.roll(-begin * stride, 2)[:, :, :size] for part in whole)
            visible = visible.expand(len(x[led]), -1, -1, -1)
            added = self.net.residuals(x[led], t[led], condition.rows(led), visible)

            def weighed(part: Tensor) -> Tensor:
                """By the frames of its level; nothing for the rows that are not led."""
                part = part * nnf.adaptive_avg_pool2d(self.scale * share, (part.shape[2], 1))
                return nnf.pad(part, (0, 0) * (part.dim() - 1) + (0, len(x) - len(part)))

            return call(x, t, condition, **nets.joined(residuals, tree_map(weighed, added)))

        return called

    def settings(self) -> dict[str, Any]:
        config, kind = self.net.config, type(self.net).__name__
        return {"map": config.map, "from": self.source, "scale": self.scale, "net": kind}


@dataclass(frozen=True)
class AudioPromptControl:
    """A sound (its CLAP vector, (1, D) or (B, D)) that the U-Net attends to beside the words."""

    net: IPAdapter
    vector: Tensor
    scale: float = 1.0
    source: str = ""

    def around(self, call: NetCall, unet: LatentUNet, rows: int | None = None) -> NetCall:
        """``call`` with the sound attended to by its first ``rows`` (None: all).   arXiv:2308.06721 eq. 5."""
        if self.scale == 0 or rows == 0:
            return call
        net, attentions = self.net, nets.second_attentions(unet)
        if nets.widths_of(unet) != list(net.config.widths):
            raise ValueError("this IP-Adapter was trained for another U-Net")

        def called(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
            # as many as rows of the call, such as the two of guidance
            sound = net.norm(net.project(self.vector.to(x).repeat(len(x) // len(self.vector), 1)))
            led = torch.arange(len(x), device=x.device) < (len(x) if rows is None else rows)
            share = self.scale * led.to(x)[:, None, None]
            handles = [
                attention.register_forward_hook(net.hook(i, sound, share), with_kwargs=True)
                for i, attention in enumerate(attentions)
            ]
            try:  # any keyword makes a recorded or compiled U-Net step aside: it would run without the hooks
                return call(x, t, condition, **{"cross_attention_kwargs": {}, **residuals})
            finally:
                for handle in handles:
                    handle.remove()

        return called

    def settings(self) -> dict[str, Any]:
        return {"sound": self.source, "scale": self.scale, "net": "IPAdapter"}


@dataclass(frozen=True)
class MicroControl:
    """The facts that all sounds of a model are made with; those that are not asked for are the usual ones."""

    net: MicroConditioning
    facts: Mapping[str, float]

    def around(self, call: NetCall, unet: LatentUNet, rows: int | None = None) -> NetCall:
        """``call`` with the facts in every row, guided or not."""
        facts = {**dict(zip(nets.UNITS, self.net.config.usual, strict=True)), **self.facts}
        row = torch.tensor([[facts[name] for name in nets.UNITS]], device=self.net.inside.weight.device)

        def called(x: Tensor, t: Tensor, condition: Condition, **residuals: Tensor) -> Tensor:
            return call(x, t, nets.with_facts(condition, self.net, row), **residuals)

        return called

    def settings(self) -> dict[str, Any]:
        return {"facts": dict(self.facts)}


Control = MapControl | AudioPromptControl | MicroControl  # What changes a U-Net's call.


def load_net(place: Path | str) -> Any:
    """A ControlNet, T2IAdapter or IPAdapter from the folder that a recipe exported.   Raises AudioLDMError."""
    folder = Path(place).parent if Path(place).is_file() else Path(place)
    return load_component(folder, NETS).requires_grad_(False)


def shipped(name: str, unet: str | None, *, folder: Path = SHIPPED) -> Path | None:
    """The folder of the net for map ``name`` or IP_ADAPTER, if it was trained on the U-Net of this sha256, or None."""
    file = folder / name / "config.json"
    return file.parent if file.is_file() and read_json(file).get("base") == unet else None


def check_fits(net: Any, unet: LatentUNet, spec: AudioSpec, name: str, *, dim: int | None = None) -> None:
    """Raise AudioLDMError unless ``net`` was made for a U-Net of this shape; an IP-Adapter also for ``dim``."""
    widths = tuple(unet.config.block_out_channels)
    strides = getattr(net.config, "stride", None) == spec.stride
    if isinstance(net, ControlNet):
        fits = strides and all(net.encoder.config[key] == unet.config[key] for key in ALIKE)
    elif isinstance(net, T2IAdapter):
        fits = strides and tuple(net.config.levels) == widths
    else:
        fits = list(net.config.widths) == nets.widths_of(unet) and dim in (None, net.config.dim)
    if not fits:
        why = f"The {type(net).__name__} was trained for another U-Net than {name}'s."
        raise AudioLDMError(why, "Train one on this model: audioldm recipes control/t2i_adapter.")


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
        if name not in nets.UNITS or not abs(facts[name]) < 1e6:
            raise AudioLDMError(f"micro={text} is no fact.", f"Use FACT=NUMBER of {', '.join(nets.UNITS)}.")
    return facts
