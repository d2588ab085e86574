"""Trains the mel autoencoder. wave -> mel -> posterior -> mel'. Esser 2021 (arXiv:2012.09841); AudioLDM sec. 3.2."""

from typing import Any

import torch
from torch import Generator, Tensor

from audioldm.batch import Batch
from audioldm.losses.adversarial import hinge_discriminator, hinge_generator
from audioldm.losses.latent import kl_to_standard_normal
from audioldm.losses.spectral import mel_pyramid
from audioldm.nets.vae import encode, stride_of
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.module import AdversarialModule, Terms, detached


class VaeTraining(AdversarialModule):
    """Loss: L1 over a mel pyramid + ``kl_weight`` * mean KL per latent value + ``adversarial_weight`` * patch hinge.

    Every term is a mean, so the weights do not depend on the clip's length.   AudioLDM's own balance, put the same way,
    is a kl_weight of 0.0153 (1000 on a mean KL beside errors summed over 65,536 pixels).   The discriminator joins
    after ``adversarial_start`` batches; below that only the autoencoder steps.   Adam's betas are VQGAN's.
    """

    part, betas, decay = "vae", (0.5, 0.9), 0.0

    def __init__(
        self, vae: Any, spec: AudioSpec, *, kl_weight: float = 0.0153, adversarial_weight: float = 0.1,
        **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        self.vae, self.mel = vae, LogMel(spec)
        self.kl_weight, self.adversarial_weight = kl_weight, adversarial_weight

    def training_step(self, batch: Batch, index: int) -> Terms:
        """L1 + kl_weight KL(q || N(0, 1)) - adversarial_weight D(decoded), against D's hinge.   Esser 2021 eq. 6."""
        mel = self.mel(normalise_peak(batch.wave))
        return self.step(mel, self.noise(mel, self.batch_generator()), adversarial=self.adversarial)

    def step(self, mel: Tensor, noise: Tensor, *, adversarial: bool) -> Terms:
        optimizers, net, norms = self.each_optimizer(), self.discriminator, dict[str, Tensor | None]()
        terms, decoded = self.losses(mel, noise)
        total = terms["reconstruction"] + self.kl_weight * terms["kl"]
        if adversarial:
            terms["discriminator"] = loss = hinge_discriminator(net(mel), net(decoded.detach()))
            norms["norm_discriminator"] = self.descend(loss, optimizers[1])
            net.requires_grad_(False)
            terms["generator"] = hinge_generator(net(decoded))
            net.requires_grad_(True)
            total = total + self.adversarial_weight * terms["generator"]
        norms["norm_vae"] = self.descend(total, optimizers[0], clip=1.0)
        return detached({"loss": total, **terms} | norms)

    def losses(self, mel: Tensor, noise: Tensor) -> tuple[Terms, Tensor]:
        """The autoencoder's terms, and the reconstruction (B, 1, T, F); ``noise`` is shaped as the latents."""
        mean, std = encode(self.vae, mel)
        decoded = self.vae.decode(mean + std * noise).sample
        kl = kl_to_standard_normal(mean, std).mean()
        return {"reconstruction": mel_pyramid(decoded, mel), "kl": kl}, decoded

    def noise(self, mel: Tensor, rng: Generator) -> Tensor:
        """Normal numbers shaped as the latents of ``mel`` (B, 1, T, F)."""
        stride, channels = stride_of(self.vae), self.vae.config.latent_channels
        return self.randn(mel.new_empty((len(mel), channels, *(n // stride for n in mel.shape[-2:]))), rng)

    def validation_step(self, batch: Batch, index: int) -> None:
        mel = self.mel(normalise_peak(batch.wave))
        terms, _ = self.losses(mel, self.noise(mel, self.validation_generator(index)))
        self.log_dict({f"val/{k}": v for k, v in terms.items()}, batch_size=len(batch.wave))

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        mel = self.mel(normalise_peak(batch.wave))
        return {"mel/real": mel, "mel/output": self.vae.decode(encode(self.vae, mel)[0]).sample}
