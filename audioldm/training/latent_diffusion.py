"""Trains the latent U-Net.   cached posterior -> latent -> noised -> predicted.   Rombach 2022; AudioLDM sec. 3."""

from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from audioldm.batch import Condition, LatentBatch, choose_rows
from audioldm.diffusion import objective
from audioldm.diffusion.schedule import NoiseSchedule
from audioldm.nets.unet import NetCall, net_call
from audioldm.training.bins import LossBins
from audioldm.training.graphed import RecordedStep
from audioldm.training.steps import Optim, TrainingModule, adamw


class LatentDiffusion(TrainingModule):
    """Loss: weighted squared error of the prediction, per sample, averaged.

    ``text_prob`` 0 conditions on the sound's own CLAP embedding (AudioLDM's idea: captions are not needed), 1 on the
    caption's, between them on either.   ``drop`` is the chance that a sample is trained unconditionally; it acts
    here, once, and nowhere else.   ``draw`` spreads a batch's timesteps, see ``objective.unit_draw``.
    ``empty`` (D,) is CLAP's embedding of the empty prompt.
    ``empty_tokens`` (L, E) is the sequence encoder's answer to it, for a U-Net that attends to tokens.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        schedule: NoiseSchedule,
        *,
        scaling_factor: float,
        empty: Tensor,
        prediction: Literal["eps", "v", "x0", "flow"] = "eps",
        weighting: str = "uniform",
        text_prob: float = 0.0,
        drop: float = 0.1,
        draw: objective.Draw = "low_discrepancy",
        lr: float = 1e-4,
        batches: int,
        warmup: int = 100,
        seed: int = 0,
        graph: bool = False,
        empty_tokens: Tensor | None = None,
        optim: Optim | None = None,
    ) -> None:
        super().__init__(batches=batches, warmup=warmup, seed=seed, optim=optim, graph=graph)
        self.unet, self.schedule = unet, schedule
        self.prediction, self.weighting, self.draw = prediction, weighting, draw
        self.scaling_factor, self.text_prob, self.drop, self.lr = scaling_factor, text_prob, drop, lr
        self.register_buffer("empty", empty)
        self.register_buffer("empty_tokens", empty_tokens, persistent=False)
        self.recorded = RecordedStep(self.step, on=graph)
        self.bins = LossBins(10)

    @property
    def averaged(self) -> UNet2DConditionModel:
        """What the moving average follows."""
        return self.unet

    def components(self) -> dict[str, torch.nn.Module]:
        """What is exported."""
        return {"unet": self.unet}

    def on_fit_start(self) -> None:
        """The schedule's table goes where the batches are."""
        super().on_fit_start()
        self.schedule = self.schedule.to(self.device)

    def drawn(
        self, batch: LatentBatch, generator: torch.Generator, *, drop: float
    ) -> tuple[Tensor, Tensor, Tensor, Condition]:
        """All that is random of a batch: latents z (B, C, T, F), timesteps (B,), noise, and what the U-Net is told."""
        z = (batch.mean + batch.std * self.normal(batch.mean, generator)) * self.scaling_factor
        condition = self.condition(batch, generator, drop=drop)
        t = self.own(
            lambda n: objective.draw_t(n, self.schedule, generator=generator, kind=self.draw),
            len(batch.mean),
        ).to(z.device)
        return z, t, self.normal(z, generator), condition

    def weigh(
        self, z: Tensor, t: Tensor, noise: Tensor, condition: Condition, call: NetCall | None = None
    ) -> Tensor:
        """Per-sample loss (B,) of the U-Net, or of what calls it."""
        answer = call or net_call(self.unet)
        return objective.loss(
            lambda x, steps: answer(x, steps, condition),
            z,
            t,
            noise,
            self.schedule,
            self.prediction,
            self.weighting,
        )

    def losses(self, batch: LatentBatch, generator: torch.Generator, *, drop: float) -> tuple[Tensor, Tensor]:
        """Per-sample loss (B,) and the timesteps (B,) that it was drawn at."""
        z, t, noise, condition = self.drawn(batch, generator, drop=drop)
        return self.weigh(z, t, noise, condition), t

    def condition(self, batch: LatentBatch, generator: torch.Generator, *, drop: float) -> Condition:
        """What the U-Net is told: the sound's or the caption's embedding; nothing for a share ``drop`` of the rows."""
        rows = len(batch.mean)
        pick = self.chance(self.text_prob, rows, generator)[:, None]
        film = torch.where(pick, batch.text, batch.audio)
        dropped = self.chance(drop, rows, generator)
        if batch.tokens is None or self.empty_tokens is None:
            return choose_rows(dropped, Condition(film=self.empty[None]), Condition(film=film))
        null, mask = padded(self.empty_tokens, batch.tokens.shape[1])
        return choose_rows(
            dropped,
            Condition(film=self.empty[None], tokens=null[None], mask=mask[None]),
            Condition(film=film, tokens=batch.tokens, mask=batch.mask),
        )

    def step(self, z: Tensor, t: Tensor, noise: Tensor, *told: Tensor) -> dict[str, Tensor | None]:
        """One step of the optimiser, with nothing random in it; ``told`` is film, then tokens and mask."""
        condition = Condition(**dict(zip(("film", "tokens", "mask"), told, strict=False)))
        losses = self.weigh(z, t, noise, condition)
        norm = self.descend(losses.mean(), self.optimizers())
        return {"losses": losses.detach(), "norm_unet": norm}

    def training_step(self, batch: LatentBatch, index: int) -> None:
        """One batch."""
        z, t, noise, condition = self.drawn(batch, self.start_batch(), drop=self.drop)
        told = [p for p in (condition.film, condition.tokens, condition.mask) if p is not None]
        made = self.recorded(z, t, noise, *told)
        self.report(made["losses"], made["norm_unet"], t)

    def report(self, losses: Tensor, norm: Tensor | None, t: Tensor) -> None:
        """The loss, the gradient's norm, and from time to time the loss by tenth of the timesteps."""
        self.log_terms({"loss": losses.mean(), "norm_unet": norm}, "norm_unet")
        self.bins.add(losses, t, self.schedule.length)
        if self.seen % self.bins.window == 0:
            self.log_dict({f"train/loss_t{i}": v for i, v in self.bins.take().items()})

    def validation_step(self, batch: LatentBatch, index: int) -> None:
        """Loss with fixed draws and nothing dropped, over all timesteps and by quarter of them."""
        losses, t = self.losses(batch, self.validation_generator(index), drop=0.0)
        self.log("val/loss", losses.mean(), batch_size=len(losses))
        for quarter, value in enumerate(objective.loss_by_bin(losses, t, self.schedule, bins=4)):
            if not value.isnan():
                self.log(f"val/loss_t{quarter}", value, batch_size=len(losses))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The reported means go on after a resume."""
        checkpoint["loss_bins"] = self.bins.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As they were."""
        self.bins.load_state_dict(checkpoint.get("loss_bins") or LossBins(self.bins.count).state_dict())

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """AdamW, as AudioLDM."""
        return adamw(self.unet.parameters(), self.lr, fused=self.optim.fused, graph=self.graph)


def padded(tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Tokens (L, E) cut or filled with zeros to (length, E), and which are real (length,)."""
    kept = tokens[:length]
    mask = torch.arange(length, device=tokens.device) < len(kept)
    return torch.nn.functional.pad(kept, (0, 0, 0, length - len(kept))), mask.long()
