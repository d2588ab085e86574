"""Trains the latent U-Net.   cached posterior -> latent -> noised -> predicted.   Rombach 2022; AudioLDM sec. 3."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Generator, Tensor

from audioldm.batch import Condition, LatentBatch, choose_rows
from audioldm.control.nets import MicroConditioning, with_facts
from audioldm.diffusion import objective, posterior
from audioldm.diffusion.schedule import NoiseSchedule
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import NetCall, net_call, with_variance
from audioldm.training.module import Terms, TrainingModule

Trained = Literal["eps", "v", "x0", "flow"]  # what a U-Net can be trained to predict
Streams = tuple[int, int, int]
"""of two token sequences that lie one behind the other: the first one's length, and the width of each"""
SAMPLE = 256  # windows whose median facts are the usual ones
Draws = tuple[Tensor, Tensor, Tensor, Condition]
"""latents z (B, C, T, F), timesteps t (B,), noise (B, C, T, F), condition"""


class LatentDiffusion(TrainingModule):
    """Loss: weighted squared error of the prediction, per sample, averaged.

    ``text_prob`` 0 conditions on the sound's own CLAP embedding (AudioLDM's idea: captions are not needed), 1 on the
    caption's, between them on either.   ``drop`` is the chance that a sample is trained unconditionally, on ``empty``
    (D,), CLAP's embedding of the empty prompt, and ``empty_tokens`` (L, E), the sequence encoder's.   ``draw`` spreads
    a batch's timesteps, see ``objective.unit_draw``.

    ``levels`` are the shares of the schedule's time that are trained on: (0, 0.2) makes a refiner (SDXL sec. 2.5).
    ``offset_noise`` adds to the noise so much of a draw that all frames and bins of a channel have in common
    (Guttenberg 2023, "Diffusion with Offset Noise").   ``learned_variance`` widens the U-Net and adds the bound
    (``posterior.hybrid``).   ``micro`` conditions on what each window was cut from (``control.nets``).
    """

    part = "unet"
    recordable = True
    streams: Streams | None = None
    empty: Tensor
    empty_tokens: Tensor | None

    def __init__(
        self, unet: UNet2DConditionModel, schedule: NoiseSchedule, *, scaling_factor: float, empty: Tensor,
        prediction: Trained = "eps", weighting: objective.Weighting = "uniform", text_prob: float = 0.0,
        drop: float = 0.1, draw: objective.Draw = "low_discrepancy", empty_tokens: Tensor | None = None,
        levels: Sequence[float] = (0.0, 1.0), offset_noise: float = 0.0, learned_variance: bool = False,
        micro: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        width = unet.config.get("projection_class_embeddings_input_dim") or empty.shape[-1]
        if empty.shape[-1] != width:
            why = f"The cache has embeddings of {empty.shape[-1]} numbers; this U-Net takes {width}."
            raise AudioLDMError(why, "Encode with the CLAP that it is for, or set task.unet.film_dim.")
        self.levels, self.offset_noise, self.draw_kind = tuple(map(float, levels)), offset_noise, draw
        self.sample_loss = posterior.hybrid if learned_variance else objective.loss
        self.unet: Any = with_variance(unet) if learned_variance else unet
        self.micro = MicroConditioning(int(width)) if micro else None
        self.schedule, self.prediction, self.weighting = schedule, prediction, weighting
        self.scaling_factor, self.text_prob, self.drop = scaling_factor, text_prob, drop
        self.register_buffer("empty", empty)
        self.register_buffer("empty_tokens", empty_tokens, persistent=False)

    def components(self) -> dict[str, torch.nn.Module]:
        return super().components() | ({} if self.micro is None else {"micro": self.micro})

    def on_fit_start(self) -> None:
        """The median facts of a sample of the windows are the usual ones, for those who do not say any."""
        super().on_fit_start()
        self.schedule = self.schedule.to(self.device)
        if self.micro is None or any(self.micro.config.usual):
            return
        if self.recorded:
            raise AudioLDMError("speed.graph=true does not record task.micro.", "Set speed.graph=false.")
        data: Any = self.trainer.datamodule.train  # type: ignore[attr-defined]
        places = torch.randperm(len(data), generator=Generator().manual_seed(self.seed))[:SAMPLE]
        facts = [data[place].facts for place in places.tolist()]
        if any(fact is None for fact in facts):
            why = "The data does not say what its windows were cut from."
            raise AudioLDMError(why, "Encode it again with --force.")
        self.micro.register_to_config(usual=torch.stack(facts).abs().median(0).values.tolist())

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """E[w(t) ||target - net(z_t, t, c)||^2] over z ~ q(z|x), t and noise.   Rombach 2022 eq. 2."""
        z, t, noise, condition = self.draw(batch, self.batch_generator(), drop=self.drop)
        return self.step(z, t, noise, condition)

    def validation_step(self, batch: LatentBatch, index: int) -> None:
        """Loss with fixed draws and nothing dropped, over all timesteps and by quarter of them."""
        terms = self.losses(batch, self.validation_generator(index), drop=0.0)
        self.log("val/loss", terms["loss"], batch_size=len(batch.mean))
        self.log_by_quarter("val/loss_t", terms["losses"], terms["t"], self.schedule)

    def losses(self, batch: LatentBatch, rng: Generator, *, drop: float) -> Terms:
        """The terms of one batch; a recorded ``step`` would learn from it, too."""
        return type(self).step(self, *self.draw(batch, rng, drop=drop))

    def step(
        self, z: Tensor, t: Tensor, noise: Tensor, condition: Condition, call: NetCall | None = None
    ) -> Terms:
        """The loss, its share of each sample (B,) and the timesteps (B,); ``call`` takes the place of the U-Net."""
        losses = self.errors(z, t, noise, condition, call or net_call(self.unet, variance=True))
        return {"loss": losses.mean(), "losses": losses.detach(), "t": t}

    def errors(self, z: Tensor, t: Tensor, noise: Tensor, condition: Condition, net: NetCall) -> Tensor:
        """The loss of each sample (B,)."""
        rest = self.schedule, self.prediction, self.weighting
        return self.sample_loss(lambda x, steps: net(x, steps, condition), z, t, noise, *rest)

    def draw(self, batch: LatentBatch, rng: Generator, *, drop: float) -> Draws:
        """All that is random of a batch.   Raises AudioLDMError for latents that the U-Net does not take."""
        channels, taken = batch.mean.shape[1], self.unet.config.in_channels
        if channels != taken:
            why = f"The cache has latents of {channels} channels; this U-Net takes {taken}."
            raise AudioLDMError(why, "Encode with the VAE that it is for, or set task.unet.latent_channels.")
        z = (batch.mean + batch.std * self.randn(batch.mean, rng)) * self.scaling_factor
        condition = self.condition(batch, rng, drop=drop)
        if self.micro is not None:
            usual = z.new_tensor([self.micro.config.usual])
            condition = with_facts(condition, self.micro, usual if batch.facts is None else batch.facts)
        t = self.timesteps(self.schedule, len(z), rng, self.draw_kind, levels=self.levels)
        noise = self.randn(z, rng)
        if self.offset_noise:
            noise = noise + self.offset_noise * self.randn(z[:, :, :1, :1], rng)
        return z, t, noise, condition

    def condition(self, batch: LatentBatch, rng: Generator, *, drop: float) -> Condition:
        """The sound's or the caption's embedding, and its tokens; the empty prompt's for a share ``drop`` of rows."""
        pick = self.bernoulli(self.text_prob, len(batch.mean), rng)[:, None]
        film = torch.where(pick, batch.text, batch.audio)
        dropped = self.bernoulli(drop, len(batch.mean), rng)
        if batch.tokens is None or self.empty_tokens is None:
            return choose_rows(dropped, Condition(film=self.empty[None]), Condition(film=film))
        ones = torch.ones(1, len(self.empty_tokens), dtype=torch.long, device=self.empty_tokens.device)
        null = Condition(self.empty[None], self.empty_tokens[None], ones).padded(batch.tokens.shape[1], 0)
        both = choose_rows(dropped, null, Condition(film, batch.tokens, batch.mask))
        if self.streams is None:
            return both
        (length, first, second), tokens, mask = self.streams, both.tokens, both.mask
        assert tokens is not None
        assert mask is not None
        parts = tokens[:, :length, :first], mask[:, :length], tokens[:, length:, :second], mask[:, length:]
        return Condition(both.film, *parts)
