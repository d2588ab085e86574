"""What a vocoder and its discriminators are trained on.   B batch, N samples, T frames, F mel bins."""

from dataclasses import dataclass

import torch
from torch import Tensor

from audioldm.losses.adversarial import Outputs
from audioldm.losses.spectral import multi_resolution_stft, multi_scale_mel
from audioldm.nets.discriminators import WaveDiscriminator
from audioldm.signal.mel import LogMel

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
        scores = discriminator(self.levelled(torch.cat([real, output.detach()]), real))
        total = real.new_zeros(())
        for logits, _ in scores:
            right, wrong = logits.float().chunk(2)
            total = total + (right - 1).square().mean() + wrong.square().mean()
        return total

    def of_generator(
        self, discriminator: WaveDiscriminator, output: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        """The adversarial term and feature matching, each summed over discriminators (and layers)."""
        discriminator.requires_grad_(False)
        with torch.no_grad():
            goal: Outputs = discriminator(self.levelled(real, real))
        scores: Outputs = discriminator(self.levelled(output, real))
        discriminator.requires_grad_(True)
        adversarial = features = real.new_zeros(())
        for (logits, layers), (_, goals) in zip(scores, goal, strict=True):
            adversarial = adversarial + (logits.float() - 1).square().mean()
            for layer, wanted in zip(layers, goals, strict=True):
                features = features + (layer.float() - wanted.float()).abs().mean()
        return {"adversarial": adversarial, "features": features}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of those terms that there are."""
        parts = [getattr(self.weights, name) * term for name, term in terms.items()]
        return sum(parts[1:], parts[0])

    @staticmethod
    def levelled(wave: Tensor, real: Tensor) -> Tensor:
        """Waves (n B, 1, N), each raised as its partner in ``real`` (B, 1, N) must be to have the RMS ``LEVEL``."""
        rms = real.square().mean((1, 2), keepdim=True).sqrt().clamp(min=QUIETEST)
        return wave * (LEVEL / rms).repeat(len(wave) // len(real), 1, 1)
