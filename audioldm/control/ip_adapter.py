"""IP-Adapter: a sound as a prompt, through a second attention.   arXiv:2308.06721 sec. 3.2.   D width of CLAP."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.nets.folder import register
from audioldm.nets.unet import NetCall


def second_attentions(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The attention of every transformer block that looks at the text, or in a FiLM model at the latent again."""
    return {name: part for name, part in unet.named_modules() if name.endswith("attn2") and part is not None}


def widths_of(unet: UNet2DConditionModel) -> list[int]:
    """Widths of the keys of those attentions."""
    return [part.to_k.out_features for part in second_attentions(unet).values()]


@register
class IPAdapter(ModelMixin, ConfigMixin):
    """CLAP's embedding of a sound as M tokens, and keys and values for each second attention of a U-Net.

    Its answer is added to that of the U-Net's own attention, on the text or, in a FiLM model, on the latent itself.
    Values begin at zero: the U-Net's answer is then unchanged, bit by bit.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, dim: int, widths: Sequence[int], tokens: int = 4, width: int = 128, base: str = ""
    ) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(dim, tokens * width), nn.Unflatten(-1, (tokens, width)))
        self.norm = nn.LayerNorm(width)
        self.to_k = nn.ModuleList(nn.Linear(width, inner, bias=False) for inner in widths)
        self.to_v = nn.ModuleList(nn.Linear(width, inner, bias=False) for inner in widths)
        for layer in self.to_v:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]

    @classmethod
    def of(
        cls, unet: UNet2DConditionModel, dim: int, *, tokens: int = 4, width: int = 128, base: str = ""
    ) -> "IPAdapter":
        """One that fits ``unet`` and CLAP vectors of ``dim``."""
        return cls(dim=dim, widths=tuple(widths_of(unet)), tokens=tokens, width=width, base=base)

    def around(
        self,
        call: NetCall,
        unet: UNet2DConditionModel,
        vector: Tensor,
        scale: float = 1.0,
        rows: int | None = None,
    ) -> NetCall:
        """``call`` with the sound ``vector`` (B or 1, D) attended to, in its first ``rows`` (None: all).   Eq. 5."""
        attentions = second_attentions(unet).values()
        if widths_of(unet) != list(self.config.widths):
            raise ValueError("this IP-Adapter was trained for another U-Net")

        def called(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
            # as many as rows of the call, such as the two of guidance
            sound = self.norm(self.project(vector.to(x).repeat(len(x) // len(vector), 1)))
            led = torch.arange(len(x), device=x.device) < (len(x) if rows is None else rows)
            share = scale * led.to(x)[:, None, None]
            handles = [
                part.register_forward_hook(self.hook(i, sound, share), with_kwargs=True)
                for i, part in enumerate(attentions)
            ]
            try:  # any keyword makes a recorded or compiled U-Net step aside: it would run without the hooks
                return call(x, t, condition, **{"cross_attention_kwargs": {}, **residuals})
            finally:
                for handle in handles:
                    handle.remove()

        return called

    def hook(self, index: int, sound: Tensor, scale: Tensor) -> Callable[..., Tensor]:
        """Add the attention on the sound's tokens (B, M, width) to the answer of attention ``index``."""

        def add(attn: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor:
            hidden = args[0] if args else kwargs["hidden_states"]  # (B, L, W)

            def split(values: Tensor) -> Tensor:
                return values.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

            answer = nnf.scaled_dot_product_attention(
                split(attn.to_q(hidden)), split(self.to_k[index](sound)), split(self.to_v[index](sound))
            )
            return out + scale * nnf.linear(answer.transpose(1, 2).flatten(2), attn.to_out[0].weight)

        return add
