"""Trains the mel autoencoder. wave -> mel -> posterior -> mel'. Esser 2021 (arXiv:2012.09841); AudioLDM sec. 3.2."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from audioldm.batch import Batch
from audioldm.losses.adversarial import hinge_discriminator, hinge_generator
from audioldm.losses.spectral import mel_pyramid
from audioldm.losses.variational import kl_to_standard_normal
from audioldm.nets.discriminators import PatchDiscriminator
from audioldm.nets.vae import encode, stride_of
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.graphed import RecordedStep
from audioldm.training.steps import Optim, TrainingModule, adamw


class VaeTraining(TrainingModule):
    """Loss: L1 over a mel pyramid + ``kl_weight`` * mean KL per latent value + ``adversarial_weight`` * patch hinge.

    Every term is a mean, so the weights do not depend on the clip's length.   AudioLDM's own balance, put the same way,
    is a kl_weight of 0.0153 (1000 on a mean KL beside errors summed over 65,536 pixels).   The discriminator joins
    after ``adversarial_start`` batches; below that only the autoencoder steps.   ``frozen_encoder`` trains the decoder
    alone: what was encoded, and every U-Net that learned from it, stays valid.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        spec: AudioSpec,
        *,
        discriminator: PatchDiscriminator | None = None,
        kl_weight: float = 0.0153,
        adversarial_weight: float = 0.1,
        adversarial_start: int = 0,
        frozen_encoder: bool = False,
        lr: float = 4.5e-5,
        batches: int,
        warmup: int = 100,
        seed: int = 0,
        graph: bool = False,
        optim: Optim | None = None,
    ) -> None:
        super().__init__(batches=batches, warmup=warmup, seed=seed, optim=optim, graph=graph)
        self.recorded = RecordedStep(self.step, on=graph)
        self.vae, self.discriminator, self.mel = vae, discriminator, LogMel(spec)
        self.kl_weight, self.adversarial_weight = kl_weight, adversarial_weight
        self.adversarial_start, self.lr = adversarial_start, lr
        if frozen_encoder:
            vae.encoder.requires_grad_(False)
            vae.quant_conv.requires_grad_(False)

    def components(self) -> dict[str, torch.nn.Module]:
        """What is exported."""
        return {"vae": self.vae}

    def to_mel(self, batch: Batch) -> Tensor:
        """Waveforms to log-mels (B, 1, T, F)."""
        return self.mel(normalise_peak(batch.wave))

    def losses(self, mel: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The autoencoder's terms, and the reconstruction (B, 1, T, F); ``noise`` is shaped as the latents."""
        mean, std = encode(self.vae, mel)
        made = self.vae.decode(mean + std * noise).sample
        return {"reconstruction": mel_pyramid(made, mel), "kl": kl_to_standard_normal(mean, std).mean()}, made

    def noise(self, mel: Tensor, generator: torch.Generator) -> Tensor:
        """Normal numbers shaped as the latents of ``mel`` (B, 1, T, F)."""
        stride, channels = stride_of(self.vae), self.vae.config.latent_channels
        return self.normal(
            mel.new_empty(len(mel), channels, *(n // stride for n in mel.shape[-2:])), generator
        )

    def training_step(self, batch: Batch, index: int) -> None:
        """One batch."""
        adversarial = self.discriminator is not None and self.seen >= self.adversarial_start
        generator = self.start_batch()
        mel = self.to_mel(batch)
        noise = self.noise(mel, generator)
        terms = self.recorded(mel, noise, options=(adversarial,))
        self.log_terms(terms, "norm_vae", "norm_discriminator")

    def step(self, mel: Tensor, noise: Tensor, adversarial: bool) -> dict[str, Tensor | None]:
        """Discriminator first, on a detached reconstruction; then the autoencoder.   Nothing random in it."""
        optimizers = self.each_optimizer()
        terms, made = self.losses(mel, noise)
        total = terms["reconstruction"] + self.kl_weight * terms["kl"]
        norms: dict[str, Tensor | None] = {}
        if adversarial:
            loss = hinge_discriminator(self.discriminator(mel), self.discriminator(made.detach()))
            norms["norm_discriminator"] = self.descend(loss, optimizers[1])
            self.discriminator.requires_grad_(False)
            terms["discriminator"], terms["generator"] = loss, hinge_generator(self.discriminator(made))
            self.discriminator.requires_grad_(True)
            total = total + self.adversarial_weight * terms["generator"]
        norms["norm_vae"] = self.descend(total, optimizers[0], clip=1.0)
        return {k: v.detach() for k, v in terms.items()} | norms

    def validation_step(self, batch: Batch, index: int) -> None:
        """The autoencoder's terms with fixed noise."""
        mel = self.to_mel(batch)
        terms, _ = self.losses(mel, self.noise(mel, self.validation_generator(index)))
        self.log_dict({f"val/{k}": v for k, v in terms.items()}, batch_size=len(batch.wave))

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Mels to look at: real above made."""
        mel = self.to_mel(batch)
        mean, _ = encode(self.vae, mel)
        return {"mel/real": mel, "mel/made": self.vae.decode(mean).sample}

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """Adam's betas as in the VQGAN line of work."""
        nets = [self.vae] if self.discriminator is None else [self.vae, self.discriminator]
        return [
            adamw(
                net.parameters(),
                self.lr,
                betas=(0.5, 0.9),
                decay=0.0,
                fused=self.optim.fused,
                graph=self.graph,
            )
            for net in nets
        ]
