"""What the training shells share: a count of batches that survives a resume, the learning rate that follows it, and
random draws that follow it too, so that training N batches equals training some, stopping, and training the rest.
"""

from math import cos, pi

import lightning as L
import torch

from audioldm.datasets.audio_text import generator


class Counted(L.LightningModule):
    """A LightningModule that knows how many batches it has seen.

    ``seen`` lives in the checkpoint; a plain number, because reading a buffer would wait for the GPU at every batch.
    Lightning's own ``global_step`` counts optimiser steps, so it runs twice as fast where a generator and a
    discriminator are trained; recipes count batches.   Subclasses call ``start_batch`` first.
    """

    def __init__(self, *, batches: int, warmup: int, seed: int) -> None:
        super().__init__()
        self.batches, self.warmup, self.seed = batches, warmup, seed
        self.seen = 0

    def get_extra_state(self) -> torch.Tensor:
        """The count, into ``state_dict``."""
        return torch.tensor(self.seen)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """The count, out of ``state_dict``."""
        self.seen = int(state)

    def start_batch(self) -> torch.Generator:
        """Set this batch's learning rates and return the generator, on the module's device, of all its random draws."""
        seen = self.seen
        optimizers = self.optimizers()
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate_factor(seen, warmup=self.warmup, total=self.batches)
        self.seen += 1
        return generator(self.seed, seen, 0, device=self.device)

    def validation_generator(self, batch_index: int) -> torch.Generator:
        """The same draws at every validation, so that its curve moves only with the model."""
        return generator(self.seed, -1, batch_index, device=self.device)


def rate_factor(seen: int, *, warmup: int, total: int, floor: float = 0.1) -> float:
    """Linear warm-up to 1, then half a cosine down to ``floor`` at ``total`` batches.   SGDR (arXiv:1608.03983) eq. 5.

    >>> [round(rate_factor(n, warmup=10, total=110), 2) for n in (0, 9, 10, 60, 110)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    if seen < warmup:
        return (seen + 1) / warmup
    progress = min(1.0, (seen - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + cos(pi * progress))


def adamw(parameters, lr: float, *, betas: tuple[float, float] = (0.9, 0.999), decay: float = 0.01):  # type: ignore[no-untyped-def]
    """AdamW whose groups remember their full rate; vectors (biases, norms) are not decayed."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": decay, "initial_lr": lr},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0, "initial_lr": lr},
    ]
    fused = all(p.device.type == "cuda" for p in trained)  # one kernel for all tensors instead of dozens
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, fused=fused)
