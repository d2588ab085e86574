"""Trains what steers a frozen U-Net: a ControlNet, a T2I-Adapter or an audio prompt.   Loss: the U-Net's own."""

from typing import Any

from diffusers import UNet2DConditionModel
from torch import Generator, Tensor

from audioldm.batch import Condition, LatentBatch
from audioldm.control.controls import AudioPromptControl
from audioldm.control.maps import known, pictures
from audioldm.control.nets import ControlNet, IPAdapter, T2IAdapter, joined, widths_of
from audioldm.convert.reference import open_model
from audioldm.datasets.latents import MAP
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import NetCall, net_call
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.module import Terms

SIZES: dict[str, Any] = {"width": 64, "layers": 1, "tokens": 4, "depth": None}
"""of a T2I-Adapter width and layers; of an audio prompt width and tokens; a ControlNet copies the first ``depth``
levels (None: all, and the middle)"""


class ControlTraining(LatentDiffusion):
    """The U-Net of ``model`` (a reference) answers, its weights unmoved; only the net that steers it learns.

    A ControlNet or T2I-Adapter reads ``map``, an audio prompt a window's CLAP vector; ``settings`` also has ``SIZES``.
    """

    part = "control"
    recordable = False

    def __init__(self, model: str | None, kind: str, *, map: str | None = None, **settings: Any) -> None:
        parts, sizes = open_model(model), {name: settings.pop(name) for name in SIZES if name in settings}
        settings |= {"prediction": parts.prediction, "scaling_factor": parts.vae.config.scaling_factor}
        super().__init__(parts.unet.requires_grad_(False), parts.schedule, **settings)
        self.spec = parts.spec
        about: Any = {"stride": self.spec.stride, "base": parts.hashes.get("unet", ""), **sizes}
        self.control: Any = build_control(kind, self.unet, map, dim=len(self.empty), **about)

    def on_fit_start(self) -> None:
        """Refuse windows that carry another map: their curve would be drawn as this one."""
        super().on_fit_start()
        data = getattr(getattr(self.trainer, "datamodule", None), "train", None)
        carried, read = getattr(data, "map", None), getattr(self.control.config, "map", None)
        if read is not None and carried not in (None, f"{MAP}{read}"):
            why = f"task.map={read}, and the data carries {carried.removeprefix(MAP)}."
            raise AudioLDMError(why, f"Set data.map={read}; task.map follows it.")

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """The U-Net's own loss, its weights unmoved: E[w(t) ||target - net(z_t, t, c, control)||^2]."""
        return self.losses(batch, self.batch_generator(), drop=self.drop)

    def losses(self, batch: LatentBatch, rng: Generator, *, drop: float) -> Terms:
        return self.step(*self.draw(batch, rng, drop=drop), call=self.call_for(batch))

    def call_for(self, batch: LatentBatch) -> NetCall:
        """The frozen U-Net, steered by each window's own map or sound."""
        call = net_call(self.unet)
        if isinstance(self.control, IPAdapter):
            return AudioPromptControl(self.control, batch.audio).around(call, self.unet)
        if batch.curve is None:
            raise AudioLDMError(f"The data has no map {self.control.config.map!r}.", "Set data.map.")
        picture = pictures(self.control.config.map, batch.curve, self.spec)

        def steered(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
            more = self.control.residuals(x, t, condition, picture.to(x))
            return call(x, t, condition, **joined(residuals, more))

        return steered

    def train(self, mode: bool = True) -> "ControlTraining":
        super().train(mode)
        self.unet.eval()
        return self


def build_control(
    kind: str, unet: UNet2DConditionModel, map: str | None, *, dim: int, stride: int, base: str, **sizes: Any
) -> Any:
    """A control of ``kind`` for ``unet``, untrained; ``dim`` of a CLAP vector.   AudioLDMError for unknown names."""
    width, layers, tokens, depth = ((SIZES | sizes)[name] for name in ("width", "layers", "tokens", "depth"))
    if kind == "ip_adapter":
        return IPAdapter(dim, widths_of(unet), tokens, width, base)
    if kind not in ("t2i_adapter", "controlnet"):
        raise AudioLDMError(f"kind={kind!r} is no control.", "Known: controlnet, t2i_adapter, ip_adapter.")
    if map is None:
        raise AudioLDMError(f"{kind} needs a map.", "Set task.map=loudness, and data.map to the same.")
    known(map)
    if kind == "t2i_adapter":
        return T2IAdapter.of(unet, map, stride=stride, base=base, width=width, layers=layers)
    if depth is not None and depth > (levels := len(unet.config.block_out_channels)):
        raise AudioLDMError(f"depth={depth} of a U-Net of {levels} levels.", f"Use 1 to {levels}.")
    return ControlNet.of(unet, map, stride=stride, base=base, depth=depth)
