"""Trains a student of few steps, as a whole U-Net or as a LoRA, from any model.   B batch, R states, K levels kept.

The teacher is guided, so the student needs no guidance.   The levels of the student's sampler cut the way down into
segments, and it learns to cross each by one step.   The teacher's trajectories are kept in a ``Bank`` on the device and
learned from many times; each batch's prompts replace the oldest by new ones.   Losses: ``diffusion.distill``.
"""

import json
from collections.abc import Sequence
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
from audioldm.datasets.draws import Place, generator
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
from audioldm.progress import counted
from audioldm.training.finetune import FineTune
from audioldm.training.module import Terms, detached


@dataclass(frozen=True)
class Trajectories:
    """How the teacher samples, how many trajectories are kept, and from how many of their states a step learns.

    ``shares`` (K - 1,): how often a segment is learned from; ``between``: the share of vectors between two prompts'.
    """

    steps: int = 20
    sampler: str = "dpmpp_2m"
    grid: str = "trailing"
    guidance: float = 2.5
    kept: int = 4096
    states: int = 64
    shares: Sequence[int] = ()
    between: float = 0.0


def between(condition: Condition, share: float, rng: Generator) -> Condition:
    """``condition`` with a ``share`` of its rows' vectors somewhere between themselves and the next row's."""
    film = condition.film
    if not share or film is None:
        return condition
    row = torch.rand(2, len(film), 1, generator=rng, device=rng.device).to(film)
    mixed = film.lerp(film.roll(1, 0), row[1] * (row[0] < share))
    return replace(condition, film=mixed * (film.norm(dim=1, keepdim=True) / mixed.norm(dim=1, keepdim=True)))


class Points(NamedTuple):
    """States x (R, C, T, F) at sigma (R,), the kept states after them, where segments end, the conditions."""

    x: Tensor
    sigma: Tensor
    x_next: Tensor
    sigma_next: Tensor
    end: Tensor
    condition: Condition


class Bank:
    """The last ``size`` trajectories at ``sigmas`` (K,), in half precision, and their conditions.

    ``ends`` (K - 1,): where the segments of the states but the last end; ``shares`` (K - 1,): how often each is drawn.
    """

    def __init__(self, size: int, sigmas: Tensor, ends: Tensor, shares: Sequence[int] = ()) -> None:
        self.size, self.count, self.sigmas, self.ends = size, 0, sigmas, ends
        often = torch.tensor(shares or [1] * len(ends), device=ends.device)
        self.order = torch.arange(len(ends), device=ends.device).repeat_interleave(often)
        self.alphas = (1 + sigmas.double() ** 2).rsqrt().float()
        self.ways, self.condition = torch.empty(0), Condition()

    def add(self, ways: Tensor, condition: Condition) -> None:
        """Trajectories (K, B, C, T, F) and their conditions, in place of the oldest."""
        ways = (ways * spread(self.alphas, ways)).transpose(0, 1).half()
        if not len(self.ways):
            self.ways = ways.new_zeros(self.size, *ways.shape[1:])
            self.condition = condition.map(lambda part: part.new_zeros(self.size, *part.shape[1:]))
        if ways.shape[1:] != self.ways.shape[1:]:
            raise AudioLDMError("A student learns from windows of one length.", "Encode without --buckets.")
        longest = tuple(map(max, self.condition.lengths(), condition.lengths()))
        self.condition, condition = self.condition.padded(*longest), condition.padded(*longest)
        place = (self.count + torch.arange(len(ways), device=ways.device)) % self.size
        for old, new in zip((self.ways, *self.condition.parts()), (ways, *condition.parts()), strict=True):
            if old is not None and new is not None:
                old[place] = new
        self.count += len(ways)

    def state(self, row: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """x (R, C, T, F) and sigma (R,) of trajectories ``row`` (R,) at kept levels ``step`` (R,)."""
        x = self.ways[row, step].float()
        return x / spread(self.alphas[step], x), self.sigmas[step]

    def rows(self, count: int, rng: Generator) -> Tensor:
        """Trajectories by chance (R,)."""
        share = torch.rand(count, generator=rng, device=rng.device).to(self.ways.device)
        return (share * min(self.count, self.size)).long()

    def draw(self, count: int, rng: Generator) -> Points:
        """``count`` states of trajectories by chance, of the kept levels but the last in proportion to ``shares``."""
        row = self.rows(count, rng)
        step = self.order[(torch.arange(count, device=row.device) + self.count) % len(self.order)]
        states = *self.state(row, step), *self.state(row, step + 1)
        return Points(*states, self.ends[step], self.condition.rows(row))


def segments(visited: list[float], levels: list[float], everywhere: bool) -> tuple[list[int], list[float]]:
    """Which of the teacher's levels are kept (K), and where a student of ``levels`` jumps from each (K - 1).

    >>> segments([9, 6, 3, 0], [9, 3, 0], True), segments([9, 6, 3, 0], [9, 3, 0], False)
    (([0, 1, 2, 3], [3, 3, 0]), ([0, 2, 3], [3, 0]))
    """
    if not set(levels) <= set(visited):
        wrong = f"The teacher's {len(visited) - 1} steps do not visit the student's {len(levels) - 1} levels."
        raise AudioLDMError(wrong, "Set task.trajectories.steps to a multiple of task.sampling.steps.")
    kept = [i for i, level in enumerate(visited) if everywhere or level in levels]
    return kept, [next(level for level in levels if level < visited[i]) for i in kept[:-1]]


class Segments(FineTune):
    """The student crosses each segment of a guided trajectory by one step (``distill.segment``).

    ``model`` is what it starts as, ``adapter`` a LoRA file to train further; ``teacher`` is a model reference, None
    for ``model``.   ``sampling`` is how the student is sampled, and its levels, among the teacher's, are where segments
    begin.   ``everywhere`` learns from all of the teacher's states; with one segment that is a jump from any point of a
    trajectory to its end.   Raises AudioLDMError for levels that the teacher does not visit.
    """

    file = "turbo.safetensors"
    recordable = True
    ends: Tensor

    def __init__(
        self, *, teacher: str | None = None, trajectories: Trajectories | None = None,
        sampling: dict[str, Any] | None = None, adapter: str | None = None, everywhere: bool = False,
        **settings: Any,
    ) -> None:  # fmt: skip
        begin = None if adapter is None else read(Path(adapter))
        if not isinstance(begin, Adapter | None):
            raise AudioLDMError(f"adapter={adapter} is a word.", "Name a LoRA, such as turbo.safetensors.")
        super().__init__(begin=begin, **settings)
        self.teacher = AudioLDM.from_pretrained(teacher or self.model)
        if self.teacher.spec.latent_channels != self.pipe.spec.latent_channels:
            wrong = f"teacher={teacher} has other latents than {self.pipe.name}."
            raise AudioLDMError(wrong, "Name a model of the same VAE.")
        self.trajectories = about = trajectories or Trajectories()
        self.sampler = choose(SAMPLERS, about.sampler, "sampler")
        self.sigmas = choose(GRIDS, about.grid, "grid")(self.schedule, about.steps).float()
        usual = {"steps": 4, "sampler": "ddim", "grid": "trailing", "guidance": 1.0}
        self.sampling = usual | (sampling or {})
        few = Sampling().merged(**self.sampling)
        self.levels_of_student = choose(GRIDS, few.grid, "grid")(self.schedule, few.steps).float()
        self.kept, ends = segments(self.sigmas.tolist(), self.levels_of_student.tolist(), everywhere)
        if len(self.trajectories.shares) not in (0, len(ends)):
            wrong = f"{len(self.trajectories.shares)} shares for {len(ends)} segments."
            raise AudioLDMError(wrong, "Give task.trajectories.shares one number a segment, or none.")
        self.register_buffer("ends", torch.tensor(ends), persistent=False)

    def on_fit_start(self) -> None:
        """Fill the bank as it is before the next batch, whether or not a run was stopped there."""
        super().on_fit_start()
        # bfloat16 would leave errors in the states that are as large as a good student's
        half: Any = {"mode": "fast", "dtype": torch.float16} if self.device.type == "cuda" else {}
        self.teacher.to(self.device, **half)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        met, batches = self.batch_count, -(-self.trajectories.kept // data.batch_size)
        self.bank = self.empty_bank(batches * data.batch_size)
        self.bank.count = met * data.batch_size
        for stream, first, last in ((1, met, batches), (0, max(0, met - batches), met)):
            loader = data.loader(Place(first, self.trainer.global_rank, self.trainer.world_size))
            for k, batch in zip(counted(range(first, last), "batches of trajectories"), loader, strict=False):
                rng = generator(self.seed, k, stream, device=self.device)
                self.bank.add(*self.drawn(batch.to(self.device), rng))

    def empty_bank(self, size: int) -> Bank:
        return Bank(size, self.sigmas[self.kept].to(self.device), self.ends, self.trajectories.shares)

    def denoiser(self, net: Any, condition: Condition) -> Denoiser:
        call = net_call(net)
        return as_denoiser(lambda x, t: call(x, t, condition), self.schedule, prediction=self.prediction)

    @torch.no_grad()
    def drawn(self, batch: LatentBatch, rng: Generator) -> tuple[Tensor, Condition]:
        """The guided teacher's states (K, B, C, T, F) at the kept levels, from noise, and the batch's condition."""
        _, _, noise, condition = self.draw(batch, rng, drop=0.0)
        condition = between(condition, self.trajectories.between, rng)
        pair = self.teacher.denoisers(condition, self.condition(batch, rng, drop=1.0))
        guided = classifier_free(pair, self.trajectories.guidance)
        # the teacher has a type of its own
        with torch.autocast(self.device.type, enabled=False):
            x = float(self.sigmas[0]) * noise.float()
            return distill.trajectory(self.sampler, guided, x, self.sigmas)[self.kept], condition

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """Draw the teacher's trajectories of this batch, and learn from states of the bank."""
        rng = self.batch_generator()
        self.bank.add(*self.drawn(batch, rng))
        return self.step(*self.bank.draw(self.trajectories.states, rng))

    def step(self, *inputs: Any) -> Terms:  # type: ignore[override]
        """The loss over ``Points``, its share of each state, and their timesteps."""
        losses = self.loss(Points(*inputs))
        t = self.schedule.t_at(inputs[1]).to(losses)
        return {"loss": losses.mean(), "losses": losses.detach(), "t": t}

    def loss(self, points: Points) -> Tensor:
        """(R,): E |x_end - one step of the student from x_t|^2, both on the guided teacher's trajectory."""
        student = self.denoiser(self.unet, points.condition)
        return distill.segment(student, points.x, points.sigma, points.x_next, points.end)

    def losses(self, batch: LatentBatch, rng: Generator, *, drop: float) -> Terms:
        """For validation; nothing is dropped, since the student is never asked without its condition."""
        bank = self.empty_bank(len(batch.mean))
        bank.add(*self.drawn(batch, rng))
        return Segments.step(self, *bank.draw(len(batch.mean) * len(bank.ends), rng))

    def write(self, folder: Path) -> None:
        """The LoRA as turbo.safetensors, or the whole model; both say how the student is sampled."""
        self.pipe = replace(self.pipe, defaults=self.pipe.defaults.merged(**self.sampling))
        super().write(folder)

    def about(self) -> dict[str, str]:
        return {**super().about(), "sampling": json.dumps(self.sampling)}


class Consistency(Segments):
    """Neighbours have one step to their segment's end (``distill.consistency``); the target's weights are averaged."""

    def __init__(self, *, decay: float = 0.95, **settings: Any) -> None:
        super().__init__(**settings | {"everywhere": True})
        self.decay, self.target = decay, deepcopy(self.unet).requires_grad_(False)
        pairs = zip(self.target.named_parameters(), self.unet.parameters(), strict=True)
        self.moving = {name: (old, new) for (name, old), new in pairs if new.requires_grad}

    def loss(self, points: Points) -> Tensor:
        """(R,): d(step of f from x_t, step of f' from x_s), s the state after t, both to where t's segment ends."""
        student, target = (self.denoiser(net, points.condition) for net in (self.unet, self.target))
        return distill.consistency(student, target, points[:2], points[2:4], points.end)

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any) -> None:
        """f' <- decay f' + (1 - decay) f."""
        super().on_train_batch_end(*args)
        if self.steps_now:
            averages, weights = zip(*self.moving.values(), strict=True)
            torch._foreach_lerp_(averages, weights, 1 - self.decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] |= {f"target.{name}": old for name, (old, _) in self.moving.items()}


class Adversarial(Segments):
    """The last segment against half a U-Net that reads the prompt (``distill.relativistic``, ``rolled_prompts``).

    The student's last step and the teacher's end of the same trajectory get the same noise, and the critic says which
    is the teacher's: it sees the grain that a mean squared error leaves out.   ``anchor`` weighs ``distill.segment``
    over all segments.   ``val/diversity``, how far apart two sounds of a prompt lie by the student over by the
    teacher, says when to stop.   Novack et al. 2025 (ARC, arXiv:2505.08175) sec. 3.
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
        noised = lambda z: spread(alpha, z) * (z + spread(sigma, z) * noise)  # noqa: E731
        return lambda z: self.discriminator(noised(z), t, condition).float()

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """Draw trajectories, and levels and noises for the critic; then its step and the student's."""
        rng = self.batch_generator()
        self.bank.add(*self.drawn(batch, rng))
        row, levels = self.bank.rows(len(batch.mean), rng), self.sigmas[:-1].to(self.device)
        last = torch.full_like(row, len(self.bank.ends) - 1)
        start, (z, _) = self.bank.state(row, last), self.bank.state(row, last + 1)
        level = levels[(self.uniform(len(z), rng) * len(levels)).long()]
        draws = level, self.randn(z, rng), self.randn(z, rng)
        points = self.bank.draw(self.trajectories.states, rng)
        return self.step(*start, z, self.bank.condition.rows(row), *draws, *points)

    def step(self, *inputs: Any) -> Terms:  # type: ignore[override]
        """The critic: softplus(D(fake) - D(real)), prompts, R1.   The student: softplus(D(real) - D(fake)), anchor."""
        x, sigma, z, condition, level, noise, bump, *points = inputs
        of_student, of_critic = self.optimizers()  # type: ignore[attr-defined]
        fake = self.denoiser(self.unet, condition)(x, sigma)
        critic = self.critic(condition, level, noise)
        rolled = self.critic(condition.map(lambda part: part.roll(1, 0)), level, noise)
        terms = {"critic": distill.relativistic(critic, z, fake.detach()).mean()}
        terms["prompt"] = distill.rolled_prompts(critic, rolled, z).mean()
        terms["r1"] = distill.roughness(critic, z, bump).mean()
        loss = terms["critic"] + self.prompt_weight * terms["prompt"] + self.r1_weight * terms["r1"]
        self.descend(loss, of_critic, clip=1.0)
        self.discriminator.requires_grad_(False)
        terms["student"] = distill.relativistic(critic, fake, z).mean()
        self.discriminator.requires_grad_(True)
        terms["segment"] = self.loss(Points(*points)).mean()
        terms["loss"] = terms["student"] + self.anchor * terms["segment"]
        norm = self.descend(terms["loss"], of_student, clip=1.0)
        return detached({**terms, "norm": norm})

    @torch.no_grad()
    def validation_step(self, batch: LatentBatch, index: int) -> None:
        """The segments' loss, and the diversity of the student over that of the teacher's ends."""
        super().validation_step(batch, index)
        rng, ends = self.validation_generator(index), []
        for _ in range(2):
            ways, condition = self.drawn(batch, rng)
            student = SAMPLERS["ddim"](self.denoiser(self.unet, condition), ways[0], self.levels_of_student)
            ends.append((student, ways[-1]))
        apart = [(a - b).square().mean().sqrt() for a, b in zip(*ends, strict=True)]
        self.log("val/diversity", apart[0] / apart[1], batch_size=len(batch.mean))

    def configure_optimizers(self) -> Any:
        return [self.optimise(net.parameters(), betas=(0.0, 0.99)) for net in (self.unet, self.discriminator)]
