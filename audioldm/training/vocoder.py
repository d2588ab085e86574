"""Trains the vocoder.   wave -> mel -> wave'.   HiFi-GAN (arXiv:2010.05646) with discriminators of spectrograms."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from audioldm.batch import Batch
from audioldm.losses.adversarial import feature_matching, least_squares_discriminator, least_squares_generator
from audioldm.losses.spectral import multi_resolution_stft, multi_scale_mel
from audioldm.nets.discriminators import WaveDiscriminator
from audioldm.nets.hifigan import vocode
from audioldm.nets.vae import stride_of
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.module import AdversarialModule, Terms, detached

LEVEL, QUIETEST = 0.1, 1e-3
"""RMS that discriminators hear every clip at, and the one below which a clip is not raised further."""


@dataclass(frozen=True)
class Weights:
    """Of the terms.   HiFi-GAN has 45 for one mel, BigVGAN-v2 and DAC 15 for seven."""

    multi_scale_mel: float = 15.0
    mel: float = 5.0
    stft: float = 1.0
    adversarial: float = 1.0
    features: float = 2.0


class VocoderLoss:
    """Distances in spectra, and HiFi-GAN's game (arXiv:2010.05646, eq. 1 to 6), summed over discriminators as there.

    Distances are taken at the sounds' own levels.   Discriminators hear both sounds of a pair raised by the same
    factor, which brings the real one to ``LEVEL``: so quiet sounds teach as much as loud ones.
    """

    def __init__(self, weights: Weights | None = None) -> None:
        self.weights = weights or Weights()

    def distances(self, mel: LogMel, output: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Of waves (B, 1, N) in float32: log-mel L1 (natural log, of the model's own ``mel``), DAC's mels, STFT."""
        terms = {"mel": (mel(output) - mel(real)).abs().mean(), "stft": multi_resolution_stft(output, real)}
        if self.weights.multi_scale_mel:
            terms["multi_scale_mel"] = multi_scale_mel(output, real, mel.spec.rate)
        return terms

    def of_discriminator(self, discriminator: WaveDiscriminator, output: Tensor, real: Tensor) -> Tensor:
        """Least squares, summed over discriminators; ``output`` counts as a constant."""
        both = discriminator(self.levelled(torch.cat([real, output.detach()]), real))
        halves = [logits.float().chunk(2) for logits, _ in both]
        return least_squares_discriminator(*([(half[i], []) for half in halves] for i in (0, 1)))

    def of_generator(self, discriminator: WaveDiscriminator, output: Tensor, real: Tensor) -> Terms:
        """The adversarial term and feature matching, each summed over discriminators (and layers)."""
        discriminator.requires_grad_(False)
        with torch.no_grad():
            goal = discriminator(self.levelled(real, real))
        outputs = discriminator(self.levelled(output, real))
        discriminator.requires_grad_(True)
        adversarial = least_squares_generator([(logits.float(), []) for logits, _ in outputs])
        return {"adversarial": adversarial, "features": feature_matching(goal, outputs)}

    def total(self, terms: Terms) -> Tensor:
        """The weighted sum of those terms that there are."""
        parts = [getattr(self.weights, name) * term for name, term in terms.items()]
        return sum(parts[1:], parts[0])

    @staticmethod
    def levelled(wave: Tensor, real: Tensor) -> Tensor:
        """Waves (n B, 1, N), each raised as its partner in ``real`` (B, 1, N) must be to have the RMS ``LEVEL``."""
        rms = real.square().mean((1, 2), keepdim=True).sqrt().clamp(min=QUIETEST)
        return wave * (LEVEL / rms).repeat(len(wave) // len(real), 1, 1)


class VocoderTraining(AdversarialModule):
    """``VocoderLoss``: distances of spectra, and the game of HiFi-GAN (eq. 1 to 7).

    With a ``vae`` (frozen), each clip's input is its mel after the autoencoder with probability ``vae_prob``: the
    vocoder learns to undo what that does (sec. 4.4).   The discriminators join after ``adversarial_start`` batches:
    until the mel is right they have nothing to teach.   ``normalise`` brings each crop to a peak of 0.5.
    """

    part, betas, decay = "vocoder", (0.8, 0.99), 0.01

    def __init__(
        self, vocoder: Any, spec: AudioSpec, *, vae: AutoencoderKL | None = None, vae_prob: float = 0.5,
        normalise: bool = True, weights: Weights | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__(**settings)
        self.vocoder, self.mel, self.hop, self.vae_prob = vocoder, LogMel(spec), spec.hop, vae_prob
        self.losses, self.normalise = VocoderLoss(weights), normalise
        self.vae = None if vae is None else vae.requires_grad_(False).eval()

    @torch.no_grad()
    def input_mels(self, mel: Tensor, pick: Tensor) -> Tensor:
        """What the vocoder reads: mels (B, 1, T, F), where ``pick`` (B,) says so after the autoencoder."""
        if self.vae is None:
            return mel
        frames = mel.shape[-2] // stride_of(self.vae) * stride_of(self.vae)
        decoded = torch.cat([self.vae(mel[..., :frames, :]).sample, mel[..., frames:, :]], dim=-2)
        return torch.where(pick[:, None, None, None], decoded, mel)

    def terms(self, wave: Tensor, pick: Tensor) -> tuple[Terms, Tensor]:
        """Distances between the real and the output wave, and the output (B, 1, N)."""
        # a GPU's FFT takes no bfloat16
        output = vocode(self.vocoder, self.input_mels(self.mel(wave), pick)).to(wave)
        return self.losses.distances(self.mel, output, wave), output

    def prepared(self, batch: Batch) -> Tensor:
        """Waves (B, 1, N), cut to whole hops: the vocoder makes no part of one."""
        wave = batch.wave[..., : batch.wave.shape[-1] // self.hop * self.hop]
        return normalise_peak(wave) if self.normalise else wave

    def training_step(self, batch: Batch, index: int) -> Terms:
        """The weighted sum of ``VocoderLoss``.   HiFi-GAN eq. 7."""
        pick = self.bernoulli(self.vae_prob, len(batch.wave), self.batch_generator())
        return self.step(self.prepared(batch), pick, adversarial=self.adversarial)

    def step(self, wave: Tensor, pick: Tensor, *, adversarial: bool) -> Terms:
        optimizers, net, norms = self.each_optimizer(), self.discriminator, dict[str, Tensor | None]()
        terms, output = self.terms(wave, pick)
        if adversarial:
            norms["discriminator"] = loss = self.losses.of_discriminator(net, output, wave)
            norms["norm_discriminator"] = self.descend(loss, optimizers[1])
            terms |= self.losses.of_generator(net, output, wave)
        total = self.losses.total(terms)
        norms["norm_vocoder"] = self.descend(total, optimizers[0], clip=100.0)
        return detached({"loss": total, **terms} | norms)

    def validation_step(self, batch: Batch, index: int) -> None:
        pick = self.bernoulli(self.vae_prob, len(batch.wave), self.validation_generator(index))
        terms, _ = self.terms(self.prepared(batch), pick)
        self.log_dict({f"val/{k}": v for k, v in terms.items()}, batch_size=len(batch.wave))

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        wave = self.prepared(batch)
        output = vocode(self.vocoder, mel := self.mel(wave))
        return {"wave/real": wave, "wave/output": output, "mel/real": mel, "mel/output": self.mel(output)}
