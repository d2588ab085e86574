"""Trains a model on what it drew itself and a reward preferred: expert iteration, and Diffusion-DPO beside it.

The reward is the model's own CLAP, so nothing that reads CLAP may judge the result.   N candidates, B batch.
"""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from audioldm.batch import Condition, LatentBatch
from audioldm.components import Components
from audioldm.datasets.latents import collate_latents
from audioldm.diffusion import objective
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import net_call
from audioldm.pipeline.conditions import clap_scores
from audioldm.pipeline.run import silent
from audioldm.training.finetune import FineTune, kept
from audioldm.training.module import Terms

CUT_OFF = 1e-4  # share of samples at full scale or beyond from which on a clip counts as clipped
REFUSED = -1.0
DRAWN = 32  # clips that are drawn at once


def reward(parts: Components, waves: Tensor, vectors: Tensor) -> Tensor:
    """CLAP's cosine (N,) of waves (N, samples) and captions (N, D); REFUSED for silent and clipped ones."""
    scores = clap_scores(parts, waves, vectors).cpu()
    scores[silent(waves)] = REFUSED
    scores[(waves.abs() >= 1).float().mean(1) > CUT_OFF] = REFUSED
    return scores


class Preference(FineTune):
    """Draws ``clips`` sounds for each of ``captions`` captions of the data before training, and learns from the best.

    ``method`` expert: the U-Net's loss on the ``keep`` share of each caption's clips that the reward prefers, and with
    weight ``real`` on the data (0.5: half and half), as in reward-ranked fine-tuning (Dong et al. 2023,
    arXiv:2304.06767).   dpo: Diffusion-DPO (Wallace et al. 2023) of each caption's best clip against its worst.
    """

    def __init__(
        self, *, method: str = "expert", captions: int = 128, clips: int = 10, keep: float = 0.1, real: float = 0.5,
        beta: float = 2000.0, **settings: Any,
    ) -> None:  # fmt: skip
        if method not in ("expert", "dpo") or clips < 2:
            raise AudioLDMError(f"method={method}, clips={clips}.", "Use expert or dpo, and 2 or more clips.")
        super().__init__(**settings)
        if self.empty_tokens is not None:
            raise AudioLDMError(f"{self.pipe.name} is conditioned on tokens.", "Use one of a CLAP vector.")
        self.method, self.real, self.beta = method, real, beta
        self.captions, self.clips, self.best = captions, clips, max(1, round(keep * clips))
        self.sounds: dict[str, Tensor] = {}
        self.before = [deepcopy(self.unet).requires_grad_(False)] if method == "dpo" else []
        """in a list, so that it is neither trained nor stored"""

    def on_fit_start(self) -> None:
        """Draw the candidates before the model changes, or read those that an earlier start of this run drew."""
        super().on_fit_start()
        identity = {"captions": self.captions, "clips": self.clips, "best": self.best, "seed": self.seed}
        make = partial(self.candidates, self.trainer.datamodule.train)  # type: ignore[attr-defined]
        path, begun = self.run_dir / "drawn.safetensors", self.batch_count > 0
        self.sounds = kept(path, identity | self.pipe.hashes, make, begun=begun)
        self.before = [net.to(self.device) for net in self.before]

    @torch.no_grad()
    def candidates(self, data: Any) -> dict[str, Tensor]:
        """Best and worst scaled latents (captions, kept or 1, C, T, F) by the reward, the vectors, and all rewards."""
        places = torch.randperm(len(data), generator=Generator().manual_seed(self.seed))[: self.captions]
        items = collate_latents([data[place] for place in places.tolist()])
        training, pipe = self.unet.training, self.pipe.to(self.device)
        empty, seconds = pipe.encode_text([""]), items.mean.shape[2] * pipe.spec.seconds_per_latent
        latents, scores = [], []
        vectors = items.text.to(self.device).repeat_interleave(self.clips, 0)
        for first, film in zip(range(0, len(vectors), DRAWN), vectors.split(DRAWN), strict=True):
            seeds = list(range(self.seed + first, self.seed + first + len(film)))
            latent = pipe.sample(Condition(film=film), empty.repeat(len(film)), seeds=seeds, seconds=seconds)
            waves = pipe.decode(latent, seconds=seconds, refine_phase=pipe.defaults.refine_phase)
            latents.append(latent.cpu())
            scores.append(reward(pipe, waves, film))
        self.unet.train(training)
        rewards, whole = (torch.cat(part).unflatten(0, (-1, self.clips)) for part in (scores, latents))
        order, each = rewards.argsort(1, descending=True), torch.arange(len(rewards))[:, None]
        best, worst = (whole[each, place].contiguous() for place in (order[:, : self.best], order[:, -1:]))
        return {"best": best, "worst": worst, "text": items.text, "rewards": rewards}

    def pick(self, rows: int, rng: Generator) -> tuple[LatentBatch, LatentBatch]:
        """``rows`` captions by chance: one of the best clips of each, unscaled, and its worst."""
        sounds, sizes = self.sounds, self.sounds["best"].shape[:2]
        place, slot = (torch.randint(n, (rows,), generator=rng, device=rng.device).cpu() for n in sizes)
        text = sounds["text"][place].to(self.device)
        pair = sounds["best"][place, slot], sounds["worst"][place, 0]
        means = [latent.to(self.device) / self.scaling_factor for latent in pair]
        best, worst = (LatentBatch(mean, torch.zeros_like(mean), text, text) for mean in means)
        return best, worst

    def training_step(self, batch: LatentBatch, index: int) -> Terms:
        """Expert: (1 - real) E[loss | best] + real E[loss | data].   DPO: ``objective.preference``."""
        rng = self.batch_generator()
        best, worst = self.pick(len(batch.mean), rng)
        if self.method == "expert":
            terms = self.losses(best, rng, drop=self.drop)
            if self.real:
                data = self.losses(batch, rng, drop=self.drop)["loss"]
                terms["loss"] = (1 - self.real) * terms["loss"] + self.real * data
            return terms
        z, t, noise, condition = self.draw(best, rng, drop=0.0)
        both, times = torch.cat([z, worst.mean * self.scaling_factor]), torch.cat([t, t])
        inputs = (both, times, torch.cat([noise, noise]), condition.joined(condition))
        with torch.no_grad():
            reference = self.errors(*inputs, net_call(self.before[0], variance=True))
        ours = self.errors(*inputs, net_call(self.unet, variance=True))
        pairs = (errors.unflatten(0, (2, -1)) for errors in (ours, reference))
        losses = objective.preference(*pairs, beta=self.beta)
        return {"loss": losses.mean(), "losses": losses.detach(), "t": t}
