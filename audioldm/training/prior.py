"""Trains a prior on a latent cache's pairs of vectors.   DALL-E 2 (arXiv:2204.06125) sec. 2.2.   B batch, D width."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as nnf

from audioldm.batch import LatentBatch
from audioldm.diffusion import objective
from audioldm.nets.clap import TwoTowers, clap_digest
from audioldm.nets.prior import SCHEDULE, Prior
from audioldm.training.module import Terms, TrainingModule


class PriorTraining(TrainingModule):
    """Loss: squared error of x0.   ``drop`` is the chance that a row is trained on the empty prompt's vector ``empty``
    (D,), for guidance; ``blur`` the largest noise on a text's vector, as a share of its length, so that captions which
    training does not have mean something, too.
    """

    part = "prior"
    empty: Tensor

    def __init__(
        self, prior: Prior, *, empty: Tensor, drop: float = 0.1, blur: float = 0.3, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.prior, self.drop, self.blur = prior, drop, blur
        self.register_buffer("empty", empty)

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """E ||z - net(z_t, t, text)||^2 over the sound's vectors z.   DALL-E 2 eq. 2."""
        rng = self.batch_generator()
        amount = self.blur * torch.rand(len(batch.text), 1, generator=rng, device=rng.device).to(batch.text)
        noisy = batch.text + amount * batch.text.shape[-1] ** -0.5 * self.randn(batch.text, rng)
        dropped = self.bernoulli(self.drop, len(noisy), rng)[:, None]
        text = torch.where(dropped, self.empty, nnf.normalize(noisy, dim=-1))
        losses, t = self.losses(batch.audio, text, rng)
        return {"loss": losses.mean(), "losses": losses.detach(), "t": t}

    def losses(self, audio: Tensor, text: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
        """The loss of each row (B,), and its time (B,)."""
        t, z = self.timesteps(SCHEDULE, len(audio), rng), audio * self.prior.scale
        net = lambda x, times: self.prior(x, times, text)  # noqa: E731
        return objective.loss(net, z, t, self.randn(z, rng), SCHEDULE, "x0"), t

    def validation_step(self, batch: LatentBatch, index: int) -> None:
        """The loss; the mean cosine to the true sound of the text's vector and of a drawn one; their distances to the
        sounds' mean, which is the gap between the modalities before and after.
        """
        text, audio, rows = batch.text, batch.audio, len(batch.text)
        losses, _ = self.losses(audio, text, self.validation_generator(index))
        drawn = self.prior.sample(text, self.empty, seeds=list(range(index * rows, (index + 1) * rows)))
        values = {"val/loss": losses.mean()}
        for name, vectors in (("text", text), ("drawn", drawn)):
            values[f"val/cos_{name}"] = (vectors * audio).sum(-1).mean()
            values[f"val/gap_{name}"] = (vectors.mean(0) - audio.mean(0)).norm()
        self.log_dict(values, batch_size=rows)


def build_prior(clap: TwoTowers, **sizes: Any) -> Prior:
    return Prior(clap.dim, clap=clap_digest(clap), **sizes)
