"""Which class is a latent of, however much noise is on it?   B batch, C channels, T frames, F bins, K classes."""

from collections.abc import Sequence

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from audioldm.nets.folder import Component


class NoisyClassifier(Component):
    """A residual net over noisy scaled latents, conditioned on the noise level.   Dhariwal & Nichol 2021 sec. 4.1.

    (x = x0 + sigma eps (B, C, T, F), sigma (B,)) to logits (B, K), whatever the schedule.   ``encoder`` is the digest
    of the VAE encoder whose latents it knows (``nets.vae.encoder_digest``).
    """

    def __init__(
        self, classes: Sequence[str], latent_channels: int = 8, widths: Sequence[int] = (48, 96, 128),
        dropout: float = 0.1, encoder: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        time = 4 * widths[0]
        self.level = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(widths[0], time)
        self.enter = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for inside, outside in zip((widths[0], *widths), widths, strict=False):
            sizes = {"in_channels": inside, "out_channels": outside, "temb_channels": time, "groups": 8}
            blocks += [ResnetBlock2D(**sizes, dropout=dropout), Downsample2D(outside, use_conv=True)]
        self.blocks = nn.ModuleList(blocks[:-1])
        last = (nn.Dropout(dropout), nn.Conv2d(widths[-1], widths[-1], 1))
        self.head = nn.Sequential(nn.GroupNorm(8, widths[-1]), nn.SiLU(), *last)
        self.out = nn.Linear(2 * widths[-1], len(classes))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logits of x / (1 + sigma^2), the best linear guess at x0, whose gradient falls as the posterior's."""
        level = sigma.to(torch.promote_types(x.dtype, torch.float32))
        shrink = (1 / (1 + level**2)).to(x.dtype).reshape(-1, 1, 1, 1)
        # Karras et al. 2022: c_noise = log(sigma) / 4, in thousandths
        embedding = self.time(self.level(250 * level.clamp(1e-3, 1e4).log()).to(x.dtype))
        h = self.enter(x * shrink)
        for block in self.blocks:
            h = block(h, embedding) if isinstance(block, ResnetBlock2D) else block(h)
        h = self.head(h).flatten(2)
        return self.out(torch.cat([h.mean(-1), h.amax(-1)], dim=-1))

    def log_prob(self, x: Tensor, sigma: Tensor, index: int) -> Tensor:
        """log p(class ``index`` | x; sigma) (B,), with a gradient to x."""
        return self(x, sigma).log_softmax(-1)[:, index]
