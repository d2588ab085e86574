"""Trains a student of few steps, as a whole U-Net or as a LoRA, from any model.   B batch, R states of trajectories.

The teacher is guided, so the student needs no guidance: one call stands for forty of the teacher's.   A share of the
trajectories begins at noised latents of the data instead of at noise, because that is where the sampler
``consistency`` calls the student again.   Losses: ``diffusion.distill``.
"""

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from audioldm.adapters.adapter import Adapter
from audioldm.adapters.files import read
from audioldm.batch import Condition, LatentBatch
from audioldm.components import Sampling
from audioldm.diffusion import distill
from audioldm.diffusion.grids import GRIDS
from audioldm.diffusion.guidance import classifier_free
from audioldm.diffusion.prediction import Denoiser, as_denoiser, spread
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.diffusion.table import choose
from audioldm.errors import AudioLDMError
from audioldm.nets.discriminators import LatentDiscriminator
from audioldm.nets.unet import net_call
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.training.finetune import FineTune
from audioldm.training.module import Terms, detached


@dataclass(frozen=True)
class Trajectories:
    """How the teacher samples, and how many states of each of its trajectories are learned from.

    ``restarts`` is the share of batches whose trajectories begin at noised latents.
    """

    steps: int = 20
    sampler: str = "dpmpp_2m"
    grid: str = "trailing"
    guidance: float = 2.5
    states: int = 4
    restarts: float = 0.5


class Points(NamedTuple):
    """States x (R, C, T, F) at sigma (R,), the states after them, the ends of their trajectories, the conditions."""

    x: Tensor
    sigma: Tensor
    x_next: Tensor
    sigma_next: Tensor
    end: Tensor
    condition: Condition


class Warmup(FineTune):
    """The student jumps from any state of a guided trajectory to its end (``distill.jump``).

    ``model`` is what it starts as, ``adapter`` a LoRA file to train further; ``teacher`` is a model reference, None
    for ``model``.   ``sampling`` is what the student's file says of how it is sampled.
    """

    file = "turbo.safetensors"
    recordable = True

    def __init__(
        self,
        *,
        teacher: str | None = None,
        trajectories: Trajectories | None = None,
        sampling: dict[str, Any] | None = None,
        adapter: str | None = None,
        **settings: Any,
    ) -> None:
        begin = None if adapter is None else read(Path(adapter))
        if begin is not None and not isinstance(begin, Adapter):
            raise AudioLDMError(f"adapter={adapter} is a word.", "Name a LoRA, such as turbo.safetensors.")
        super().__init__(begin=begin, **settings)
        self.teacher = AudioLDM.from_pretrained(teacher or self.model)
        if self.teacher.spec.latent_channels != self.pipe.spec.latent_channels:
            wrong = f"teacher={teacher} has other latents than {self.pipe.name}."
            raise AudioLDMError(wrong, "Name a model of the same VAE.")
        self.trajectories = trajectories or Trajectories()
        self.sampler = choose(SAMPLERS, self.trajectories.sampler, "sampler")
        grid = choose(GRIDS, self.trajectories.grid, "grid")
        self.sigmas = grid(self.schedule, self.trajectories.steps).float()
        self.sampling = {"steps": 4, "sampler": "consistency", "grid": "trailing", "guidance": 1.0}
        self.sampling |= sampling or {}
        Sampling().merged(**self.sampling)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.teacher.to(self.device, mode="fast" if self.device.type == "cuda" else "exact")

    def denoiser(self, net: Any, condition: Condition) -> Denoiser:
        call = net_call(net)
        return as_denoiser(lambda x, t: call(x, t, condition), self.schedule, prediction=self.prediction)

    @torch.no_grad()
    def trajectory(self, x: Tensor, sigmas: Tensor, condition: Condition, empty: Condition) -> Tensor:
        """(n + 1, B, C, T, F): the guided teacher's states at ``sigmas`` (n + 1,)."""
        guided = classifier_free(self.teacher.denoisers(condition, empty), self.trajectories.guidance)
        # the teacher has a type of its own
        with torch.autocast(x.device.type, enabled=False):
            return distill.trajectory(self.sampler, guided, x.float(), sigmas)

    def points(self, batch: LatentBatch, rng: Generator) -> Points:
        """The first state of each clip's trajectory, and others by chance.   All that is random of a batch."""
        z, _, noise, condition = self.draw(batch, rng, drop=0.0)
        empty, states = self.condition(batch, rng, drop=1.0), self.trajectories.states
        restart, level = torch.rand(2, generator=rng, device=rng.device).tolist()
        steps = len(self.sigmas) - 1
        first = 1 + int(level * (steps - 1)) if restart < self.trajectories.restarts and steps > 1 else 0
        sigmas = self.sigmas[first:]
        x = float(sigmas[0]) * noise + (z if first else 0)
        way = self.trajectory(x, sigmas, condition, empty)
        row = torch.arange(len(z), device=z.device).repeat(states)
        step = (self.uniform(len(row), rng).to(z.device) * (len(sigmas) - 1)).long()
        step[: len(z)] = 0
        levels, after = sigmas.to(z.device), step + 1
        pairs = way[step, row], levels[step], way[after, row], levels[after]
        return Points(*pairs, way[-1, row], condition.rows(row))

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """Draw the teacher's trajectories, and learn from states of them."""
        return self.step(*self.points(batch, self.batch_generator()))

    def step(self, *inputs: Any) -> Terms:  # type: ignore[override]
        """The loss over ``Points``, its share of each state, and their timesteps."""
        points = Points(*inputs)
        losses = self.loss(points)
        t = self.schedule.t_at(points.sigma).to(losses)
        return {"loss": losses.mean(), "losses": losses.detach(), "t": t}

    def loss(self, points: Points) -> Tensor:
        """(R,): E |f(x_t, t, c) - x_end|^2, the end that of the guided teacher."""
        student = self.denoiser(self.unet, points.condition)
        return distill.jump(student, points.x, points.sigma, points.end)

    def losses(self, batch: LatentBatch, rng: Generator, *, drop: float) -> Terms:
        """For validation; nothing is dropped, since the student is never asked without its condition."""
        return Warmup.step(self, *self.points(batch, rng))

    def write(self, folder: Path) -> None:
        """The LoRA as turbo.safetensors, or the whole model; both say how the student is sampled."""
        self.pipe = replace(self.pipe, defaults=self.pipe.defaults.merged(**self.sampling))
        super().write(folder)

    def about(self) -> dict[str, str]:
        return {**super().about(), "sampling": json.dumps(self.sampling)}


class Consistency(Warmup):
    """Neighbours on a trajectory have one end (``distill.consistency``); the target's weights are averaged."""

    def __init__(self, *, decay: float = 0.95, **settings: Any) -> None:
        super().__init__(**settings)
        self.decay, self.target = decay, deepcopy(self.unet).requires_grad_(False)

    def loss(self, points: Points) -> Tensor:
        """(R,): d(f(x_t, t, c), f'(x_s, s, c)), s the step after t."""
        student, target = (self.denoiser(net, points.condition) for net in (self.unet, self.target))
        return distill.consistency(student, target, points.x, points.sigma, points.x_next, points.sigma_next)

    def moving(self) -> dict[str, tuple[Tensor, Tensor]]:
        averages = dict(self.target.named_parameters())
        return {name: (averages[name], p) for name, p in self.unet.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any) -> None:
        """f' <- decay f' + (1 - decay) f."""
        if self.steps_now:
            averages, weights = zip(*self.moving().values(), strict=True)
            torch._foreach_lerp_(averages, weights, 1 - self.decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] |= {f"target.{name}": old for name, (old, _) in self.moving().items()}


class Adversarial(Warmup):
    """The student against half a U-Net that reads the prompt (``distill.relativistic``, ``distill.rolled_prompts``).

    The student denoises noised latents by one call; its answers and the latents get the same noise, and the critic says
    which are real.   ``anchor`` weighs ``distill.jump``, which keeps the student near its teacher.   ``val/diversity``,
    how far apart two sounds of a prompt lie by one call over by the teacher, says when to stop.
    Novack et al. 2025 (ARC, arXiv:2505.08175) sec. 3.
    """

    def __init__(
        self, *, prompt_weight: float = 1.0, r1_weight: float = 0.1, anchor: float = 1.0, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.automatic_optimization = False
        self.prompt_weight, self.r1_weight, self.anchor = prompt_weight, r1_weight, anchor
        self.discriminator = LatentDiscriminator(self.teacher.unet)

    def critic(self, condition: Condition, sigma: Tensor, noise: Tensor) -> distill.Critic:
        """The discriminator at one noise level a row: clean latents (B, C, T, F) -> logits (B, P)."""
        alpha, t = self.schedule.alpha_of(sigma.double()), self.schedule.t_at(sigma).to(noise)

        def logits(z: Tensor) -> Tensor:
            x_t = spread(alpha, z) * (z + spread(sigma, z) * noise)
            answer: Tensor = self.discriminator(x_t, t, condition)
            return answer.float()

        return logits

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """Draw levels and noises; then the critic's step and the student's."""
        rng = self.batch_generator()
        z, _, noise, condition = self.draw(batch, rng, drop=0.0)
        levels = self.sigmas[:-1].to(z.device)

        def level() -> Tensor:
            return levels[(self.uniform(len(z), rng).to(z.device) * len(levels)).long()]

        first, again = level(), level()
        noises = self.randn(z, rng), self.randn(z, rng)
        return self.step(z, noise, first, again, *noises, condition, *self.points(batch, rng))

    def step(self, *inputs: Any) -> Terms:  # type: ignore[override]
        """The critic: softplus(D(fake) - D(real)), prompts, R1.   The student: softplus(D(real) - D(fake)), jump."""
        z, noise, sigma, again, fresh, bump, condition, *points = inputs
        of_student, of_critic = self.optimizers()  # type: ignore[attr-defined]
        fake = self.denoiser(self.unet, condition)(z + spread(sigma, z) * noise, sigma)
        critic = self.critic(condition, again, fresh)
        rolled = self.critic(condition.map(lambda part: part.roll(1, 0)), again, fresh)
        terms = {"critic": distill.relativistic(critic, z, fake.detach()).mean()}
        terms["prompt"] = distill.rolled_prompts(critic, rolled, z).mean()
        terms["r1"] = distill.roughness(critic, z, bump).mean()
        loss = terms["critic"] + self.prompt_weight * terms["prompt"] + self.r1_weight * terms["r1"]
        self.descend(loss, of_critic, clip=1.0)
        self.discriminator.requires_grad_(False)
        terms["student"] = distill.relativistic(critic, fake, z).mean()
        self.discriminator.requires_grad_(True)
        terms["jump"] = self.loss(Points(*points)).mean()
        terms["loss"] = terms["student"] + self.anchor * terms["jump"]
        norm = self.descend(terms["loss"], of_student, clip=1.0)
        return detached({**terms, "norm": norm})

    @torch.no_grad()
    def validation_step(self, batch: LatentBatch, index: int) -> None:
        """The jump's loss, and the diversity of one call over that of the teacher's ends."""
        super().validation_step(batch, index)
        rng = self.validation_generator(index)
        condition, empty = (self.condition(batch, rng, drop=share) for share in (0.0, 1.0))
        noises = [float(self.sigmas[0]) * self.randn(batch.mean, rng) for _ in range(2)]
        level, student = (
            self.sigmas[:1].to(batch.mean).repeat(len(batch.mean)),
            self.denoiser(self.unet, condition),
        )
        ends = [self.trajectory(x, self.sigmas, condition, empty)[-1] for x in noises]
        apart = [(a - b).square().mean().sqrt() for a, b in ([student(x, level) for x in noises], ends)]
        self.log("val/diversity", apart[0] / apart[1], batch_size=len(batch.mean))

    def configure_optimizers(self) -> Any:
        nets = self.unet, self.discriminator
        return [self.optimise(net.parameters(), betas=(0.0, 0.99)) for net in nets]
