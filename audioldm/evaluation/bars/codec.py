"""What the vocoder and the VAE lose, on real held-out sounds.   B batch, N samples, T frames, F bins."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.evaluation.bars.bar import Bar
from audioldm.evaluation.bars.sounds import SEED, Crowd, Framing
from audioldm.losses.spectral import multi_resolution_stft
from audioldm.nets.hifigan import vocode
from audioldm.nets.unet import multiple_of
from audioldm.nets.vae import encode
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.invert import griffin_lim, refine_phase
from audioldm.signal.mel import LogMel

ROUNDS = 32
"""of Griffin-Lim, the vocoder's rival"""


class Codec:
    """The model's own way from sound to sound: mel, VAE, vocoder and phase refinement, without the U-Net."""

    def __init__(self, pipe: AudioLDM, framing: Framing) -> None:
        self.pipe, self.framing, self.spec = pipe, framing, pipe.spec
        self.mel = LogMel(pipe.spec).to(pipe.device)
        self.refine_phase = pipe.defaults.refine_phase

    def wave(self, framed: Tensor) -> Tensor:
        """A framed wave (N,) as (1, 1, M) at the model's rate, zeros up to what the latent grid covers."""
        wave = resample(framed, self.framing.rate, self.spec.rate)
        frames = self.spec.latent_frames(self.framing.seconds, multiple_of(self.pipe.unet)) * self.spec.stride
        padded = torch.nn.functional.pad(wave, (0, frames * self.spec.hop - len(wave)))
        return padded[None, None].to(self.pipe.device)

    def bare(self, wave: Tensor) -> Tensor:
        """A wave without zeros at its end as (1, 1, M) at the model's rate, cut to whole hops."""
        wave = resample(wave, self.framing.rate, self.spec.rate)
        return wave[None, None, : len(wave) // self.spec.hop * self.spec.hop].to(self.pipe.device)

    @torch.no_grad()
    def round_trip(self, framed: Tensor) -> Tensor:
        """Through VAE (the posterior's mean) and vocoder as the model would."""
        mel = self.mel(self.wave(framed)).to(self.pipe.dtype)
        mean, _ = encode(self.pipe.vae, mel)
        wave = self.pipe.decode(
            mean * self.pipe.vae.config.scaling_factor,
            seconds=self.framing.seconds,
            refine_phase=self.refine_phase,
        )
        return self.framing(wave[0], self.spec.rate)

    @torch.no_grad()
    def vocoded(self, mel: Tensor) -> Tensor:
        """The vocoder, polished as in the model: log-mel (1, 1, T, F) to (1, 1, N)."""
        wave = vocode(self.pipe.vocoder, mel.to(self.pipe.dtype)).float()
        if not self.refine_phase:
            return wave
        return refine_phase(
            wave, mel, self.spec, rounds=self.refine_phase, generator=torch.Generator().manual_seed(0)
        )


def vocoder(codec: Codec, waves: Sequence[Tensor], on_clip: Callable[[], None] = lambda: None) -> list[Bar]:
    """Multi-resolution STFT distance and log-mel L1 of the vocoder over those of Griffin-Lim from the same mels.

    ``waves`` hold sound alone: silence that fills up a window would be counted as something kept.
    """
    totals = torch.zeros(3, 2, dtype=torch.float64)
    rng = torch.Generator().manual_seed(SEED)
    for wave in waves:
        real = codec.bare(wave)
        mel = codec.mel(real)
        bare = vocode(codec.pipe.vocoder, mel.to(codec.pipe.dtype)).detach().float()
        rival = griffin_lim(mel, codec.spec, iterations=ROUNDS, generator=rng)
        for place, made in enumerate((codec.vocoded(mel), rival, bare)):
            totals[place, 0] += float(multi_resolution_stft(made, real))
            totals[place, 1] += float((codec.mel(made) - mel).abs().mean())
        on_clip()
    means = totals / len(waves)
    names = ("multi-resolution STFT", "log-mel L1")
    return [
        Bar(
            f"vocoder's {name} over Griffin-Lim's",
            value=float(means[0, i] / means[1, i]),
            limit=0.5,
            least=False,
            n=len(waves),
            rows={
                "vocoder": float(means[0, i]),
                "Griffin-Lim": float(means[1, i]),
                "without phase refinement": float(means[2, i]),
            },
            detail=f"phase refinement {codec.refine_phase}, Griffin-Lim {ROUNDS} rounds",
        )
        for i, name in enumerate(names)
    ]


def keeps_tag(real: Crowd, trip: Crowd) -> Bar:
    """Share of real clips whose first YAMNet tag is the same after VAE and vocoder."""
    before, after = real.mean.argmax(dim=1), trip.mean.argmax(dim=1)
    top5 = trip.mean.topk(5, dim=1).indices
    return Bar(
        "VAE + vocoder keep YAMNet's first tag",
        value=float((before == after).double().mean()),
        limit=0.8,
        n=len(before),
        rows={"real": 1.0, "first tag among five": float((top5 == before[:, None]).any(1).double().mean())},
    )
