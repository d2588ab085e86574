"""From a text's vector to a sound's in CLAP's space (B, D), by diffusion.   DALL-E 2 (arXiv:2204.06125) sec. 2.2."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import PriorTransformer
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.diffusion import grids, guidance, schedule
from audioldm.diffusion.noise import PerSample
from audioldm.diffusion.prediction import Denoiser, as_denoiser
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.nets.folder import Component

SHIPPED = Path(__file__).parents[1] / "_embedded" / "prior"
SCHEDULE, STEPS = schedule.cosine(), 16
OTHER = 2**62  # added to a clip's seed, so that its vector and its latent do not begin with the same numbers


class Prior(Component):
    """PriorTransformer at small size: x_t (B, D), t (B,), text (B, D) to x0, sqrt(D) long, in the space of ``clap``."""

    def __init__(
        self, dim: int = 256, width: int = 160, heads: int = 5, layers: int = 4, clap: str = ""
    ) -> None:
        super().__init__()
        self.scale = dim**0.5  # length of x0
        sizes = {"num_attention_heads": heads, "attention_head_dim": width // heads, "num_layers": layers}
        none = {"num_embeddings": 0, "encoder_hid_proj_type": None}
        self.net = PriorTransformer(embedding_dim=dim, **sizes, **none)

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.net(x, t, text * self.scale).predicted_image_embedding

    def denoiser(self, text: Tensor) -> Denoiser:
        return as_denoiser(lambda x, t: self(x, t, text), SCHEDULE, prediction="x0")

    @torch.no_grad()
    def sample(self, text: Tensor, empty: Tensor, *, seeds: Sequence[int], scale: float = 1.5) -> Tensor:
        """Unit vectors of sounds (B, D) that texts' (B, D) may mean, one a seed; guidance leaves ``empty`` (D,)."""
        sigmas = grids.trailing(SCHEDULE, STEPS)
        pair = guidance.Pair(self.denoiser(text), self.denoiser(empty.expand_as(text)))
        noise = PerSample([seed + OTHER for seed in seeds], text.shape[1:], text.device)()
        x0 = SAMPLERS["dpmpp_2m"](guidance.classifier_free(pair, scale), noise * sigmas[0].item(), sigmas)
        return nnf.normalize(x0, dim=-1)
