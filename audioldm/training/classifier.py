"""Trains a classifier of noisy latents.   cached posterior -> latent -> noised -> class.   Dhariwal & Nichol 2021."""

from typing import Any

from torch import Generator, Tensor
from torch.nn import functional as nnf

from audioldm.batch import LatentBatch
from audioldm.datasets.latents import class_names, read_index
from audioldm.diffusion.prediction import spread
from audioldm.diffusion.schedule import NoiseSchedule
from audioldm.nets.noisy_classifier import NoisyClassifier
from audioldm.training.module import Terms, TrainingModule


class ClassifierTraining(TrainingModule):
    """Loss: cross-entropy of the class, at noise levels of the schedule's times, drawn evenly."""

    part = "classifier"

    def __init__(
        self, classifier: NoisyClassifier, schedule: NoiseSchedule, *, scaling_factor: float,
        decay: float = 0.05, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        self.classifier, self.schedule = classifier, schedule
        self.scaling_factor, self.decay = scaling_factor, decay

    def configure_optimizers(self) -> Any:
        return self.optimise(self.classifier.parameters(), decay=self.decay)

    def training_step(self, batch: Any, index: int) -> Terms:
        """-log p(class | z_t).   Dhariwal & Nichol 2021 sec. 4.1."""
        logits, _ = self.logits(batch, self.batch_generator())
        loss = nnf.cross_entropy(logits, batch.label)
        return {"loss": loss, "cross_entropy": loss.detach()}

    def logits(self, batch: LatentBatch, rng: Generator) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of noised samples of the posteriors, and their times (B,)."""
        z = (batch.mean + batch.std * self.randn(batch.mean, rng)) * self.scaling_factor
        t = self.timesteps(self.schedule, len(z), rng)
        level = self.schedule.sigma_at(t)
        return self.classifier(z + spread(level, z) * self.randn(z, rng), level), t

    def validation_step(self, batch: Any, index: int) -> None:
        """Cross-entropy, and the share that is right by quarter of the times: near chance in the last one."""
        logits, t = self.logits(batch, self.validation_generator(index))
        right = logits.argmax(-1).eq(batch.label).double()
        self.log("val/cross_entropy", nnf.cross_entropy(logits, batch.label), batch_size=len(logits))
        self.log_by_quarter("val/right_t", right, t, self.schedule)


def build_classifier(folder: str, **sizes: Any) -> NoisyClassifier:
    index = read_index(folder)
    of_cache = {"latent_channels": index["latent_channels"], "encoder": index.get("encoder", "")}
    return NoisyClassifier(class_names(folder), **of_cache, **sizes)
