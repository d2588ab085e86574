"""Trains the vocoder.   wave -> mel -> wave'.   HiFi-GAN (arXiv:2010.05646) with UnivNet's spectrogram judges."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import SpeechT5HifiGan

from audioldm.batch import Batch
from audioldm.losses.adversarial import feature_matching, least_squares_discriminator, least_squares_generator
from audioldm.losses.spectral import multi_resolution_stft
from audioldm.nets.discriminators import WaveDiscriminator
from audioldm.nets.hifigan import vocode
from audioldm.nets.vae import stride_of
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.graphed import RecordedStep
from audioldm.training.steps import Optim, TrainingModule, adamw


class VocoderTraining(TrainingModule):
    """Loss: ``mel_weight`` * L1 of log-mels + multi-resolution STFT + least-squares GAN + 2 * feature matching.

    HiFi-GAN eq. 7 has mel_weight 45.   With a ``vae`` (frozen), each clip's input is its mel after the autoencoder with
    probability ``vae_prob``, while the target stays the real sound: the vocoder learns to undo what the autoencoder
    does, as HiFi-GAN's fine-tuning on synthesised mels (sec. 4.4).   The judges join after ``adversarial_start``
    batches: until the mel is right they have nothing to teach, and they cost more than the generator.
    """

    def __init__(
        self,
        vocoder: SpeechT5HifiGan,
        spec: AudioSpec,
        *,
        discriminator: WaveDiscriminator | None = None,
        vae: AutoencoderKL | None = None,
        vae_prob: float = 0.5,
        mel_weight: float = 45.0,
        feature_weight: float = 2.0,
        stft_weight: float = 2.0,
        adversarial_start: int = 0,
        lr: float = 2e-4,
        batches: int,
        warmup: int = 100,
        seed: int = 0,
        graph: bool = False,
        optim: Optim | None = None,
    ) -> None:
        super().__init__(batches=batches, warmup=warmup, seed=seed, optim=optim, graph=graph)
        self.recorded = RecordedStep(self.step, on=graph)
        self.vocoder, self.discriminator, self.mel = vocoder, discriminator, LogMel(spec)
        self.hop = spec.hop
        self.mel_weight, self.feature_weight, self.stft_weight = mel_weight, feature_weight, stft_weight
        self.adversarial_start, self.lr, self.vae_prob = adversarial_start, lr, vae_prob
        self.vae = None if vae is None else vae.requires_grad_(False).eval()

    def components(self) -> dict[str, torch.nn.Module]:
        """What is exported."""
        return {"vocoder": self.vocoder}

    @torch.no_grad()
    def heard(self, mel: Tensor, pick: Tensor) -> Tensor:
        """What the vocoder is given: mels (B, 1, T, F), where ``pick`` (B,) says so after the autoencoder."""
        if self.vae is None:
            return mel
        frames = mel.shape[-2] // stride_of(self.vae) * stride_of(self.vae)
        made = torch.cat([self.vae(mel[..., :frames, :]).sample, mel[..., frames:, :]], dim=-2)
        return torch.where(pick[:, None, None, None], made, mel)

    def terms(self, wave: Tensor, pick: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Distances between real and made, and the made wave (B, 1, N)."""
        mel = self.mel(wave)
        made = vocode(self.vocoder, self.heard(mel, pick)).to(wave)  # a GPU's FFT takes no bfloat16
        terms = {"mel": (self.mel(made) - mel).abs().mean(), "stft": multi_resolution_stft(made, wave)}
        return terms, made

    def prepared(self, batch: Batch) -> Tensor:
        """Waves (B, 1, N) at full scale, cut to whole hops: the vocoder makes no part of one."""
        return normalise_peak(batch.wave[..., : batch.wave.shape[-1] // self.hop * self.hop])

    def training_step(self, batch: Batch, index: int) -> None:
        """One batch."""
        adversarial = self.discriminator is not None and self.seen >= self.adversarial_start
        pick = self.chance(self.vae_prob, len(batch.wave), self.start_batch())
        wave = self.prepared(batch)
        terms = self.recorded(wave, pick, options=(adversarial,))
        self.log_terms(terms, "norm_vocoder", "norm_discriminator")

    def step(self, wave: Tensor, pick: Tensor, adversarial: bool) -> dict[str, Tensor | None]:
        """Judges first, on a detached wave; then the generator.   Nothing random in it."""
        optimizers = self.each_optimizer()
        terms, made = self.terms(wave, pick)
        total = self.mel_weight * terms["mel"] + self.stft_weight * terms["stft"]
        norms: dict[str, Tensor | None] = {}
        if adversarial:
            loss = least_squares_discriminator(self.discriminator(wave), self.discriminator(made.detach()))
            norms["norm_discriminator"] = self.descend(loss, optimizers[1])
            self.discriminator.requires_grad_(False)
            with torch.no_grad():
                real = self.discriminator(wave)
            fake = self.discriminator(made)
            self.discriminator.requires_grad_(True)
            terms["discriminator"] = loss
            terms["generator"], terms["feature"] = least_squares_generator(fake), feature_matching(real, fake)
            total = total + terms["generator"] + self.feature_weight * terms["feature"]
        norms["norm_vocoder"] = self.descend(total, optimizers[0], clip=100.0)
        return {k: v.detach() for k, v in terms.items()} | norms

    def validation_step(self, batch: Batch, index: int) -> None:
        """Distances on held-out clips."""
        pick = self.chance(self.vae_prob, len(batch.wave), self.validation_generator(index))
        terms, _ = self.terms(self.prepared(batch), pick)
        self.log_dict({f"val/{k}": v for k, v in terms.items()}, batch_size=len(batch.wave))

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Real and made, to hear and to see."""
        wave = self.prepared(batch)
        mel = self.mel(wave)
        made = vocode(self.vocoder, mel)
        return {"wave/real": wave, "wave/made": made, "mel/real": mel, "mel/made": self.mel(made)}

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """HiFi-GAN's betas."""
        nets = [self.vocoder] if self.discriminator is None else [self.vocoder, self.discriminator]
        return [
            adamw(
                net.parameters(),
                self.lr,
                betas=(0.8, 0.99),
                decay=0.01,
                fused=self.optim.fused,
                graph=self.graph,
            )
            for net in nets
        ]
