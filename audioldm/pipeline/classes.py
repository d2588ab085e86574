"""A class of a trained classifier of noisy latents, for a guide to steer to.   B batch; latents (B, C, T, F)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.nets.folder import load_component, sha256, weight_file
from audioldm.nets.noisy_classifier import NoisyClassifier
from audioldm.nets.vae import encoder_digest

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM


@dataclass(frozen=True)
class ClassOf:
    """One class of a classifier."""

    net: NoisyClassifier
    label: str
    sha256: str = ""

    @classmethod
    def load(cls, place: Path | str, label: str) -> "ClassOf":
        """The class ``label`` of the classifier in a folder, or of its weight file.   Raises AudioLDMError."""
        folder = Path(place).parent if Path(place).is_file() else Path(place)
        net = load_component(folder)
        if not isinstance(net, NoisyClassifier):
            raise AudioLDMError(
                f"guidance-classifier={place} holds a {type(net).__name__}.",
                "Name what `audioldm train embedded/classifier` exported: RUN/model/classifier.",
            )
        if label not in net.config.classes:
            raise AudioLDMError(
                f"guidance-class={label!r} is not a class of {place}.",
                f"Known: {', '.join(net.config.classes)}.",
            )
        return cls(net.requires_grad_(False), label, sha256(weight_file(folder)))

    def settings(self) -> dict[str, Any]:
        """For a sidecar."""
        return {"class": self.label, "sha256": self.sha256}

    def knows(self, pipe: "AudioLDM") -> bool:
        """Whether it was trained on the latents of this very encoder; one cast to other numbers is taken on trust."""
        known = self.net.config.encoder
        return not known or pipe.vae.dtype != torch.float32 or known == encoder_digest(pipe.vae)

    def log_prob(self, pipe: "AudioLDM") -> Callable[[Tensor, Tensor], Tensor]:
        """log p(class | x; sigma) (B,) for the latents of ``pipe``, which must have as many channels."""
        channels = self.net.config.latent_channels
        if channels != pipe.spec.latent_channels:
            raise AudioLDMError(
                f"The classifier knows latents of {channels} channels, {pipe.name} has {pipe.spec.latent_channels}.",
                "Train one on a cache of this model's latents: recipe embedded/classifier.",
            )
        if not self.knows(pipe):
            warnings.warn(
                f"The classifier was trained on latents of another encoder than {pipe.name}'s: train it anew.",
                stacklevel=2,
            )
        index = list(self.net.config.classes).index(self.label)
        net = self.net.to(pipe.device)
        return lambda x, sigma: net.log_prob(x, sigma, index)
