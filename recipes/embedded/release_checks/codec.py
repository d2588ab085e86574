"""What the vocoder and the VAE lose, on real held-out sounds.   N samples at the model's rate."""

from collections.abc import Sequence

import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.evaluation.generation import Codec
from audioldm.losses.spectral import multi_resolution_stft
from audioldm.nets.hifigan import vocode
from audioldm.progress import counted
from audioldm.signal.invert import griffin_lim, refine_phase
from audioldm.signal.mel import LogMel

from .check import Check
from .sounds import RATE, SEED, Tagged

ROUNDS = 32
"""of Griffin-Lim, the vocoder's rival"""


def vocoder(codec: Codec, waves: Sequence[Tensor]) -> list[Check]:
    """Multi-resolution STFT distance and log-mel L1 of the vocoder over those of Griffin-Lim from the same mels.

    ``waves`` (N,) at 16 kHz hold sound alone: silence that fills up a window would be counted as something right.
    """
    totals = torch.zeros(3, 2, dtype=torch.float64)
    spec, pipe = codec.spec, codec.pipe
    mel_of = LogMel(spec).to(pipe.device)
    rng = torch.Generator().manual_seed(SEED)
    for wave in counted(waves, "mels"):
        wave = resample(wave, RATE, spec.rate)
        real = wave[None, None, : len(wave) // spec.hop * spec.hop].to(pipe.device)
        mel = mel_of(real)
        bare = vocode(pipe.vocoder, mel.to(pipe.dtype)).detach().float()
        refined = bare
        if codec.refine_phase:
            start = torch.Generator().manual_seed(0)
            refined = refine_phase(bare, mel, spec, rounds=codec.refine_phase, generator=start)
        rival = griffin_lim(mel, spec, iterations=ROUNDS, generator=rng)
        for place, sound in enumerate((refined, rival, bare)):
            totals[place, 0] += float(multi_resolution_stft(sound, real))
            totals[place, 1] += float((mel_of(sound) - mel).abs().mean())
    (stft, mel), (rival_stft, rival_mel), (bare_stft, bare_mel) = (totals / len(waves)).tolist()
    detail = f"phase refinement {codec.refine_phase}, Griffin-Lim {ROUNDS} rounds"
    spectra = {"vocoder": stft, "Griffin-Lim": rival_stft, "without phase refinement": bare_stft}
    mels = {"Griffin-Lim": rival_mel, "without phase refinement": bare_mel}
    name, n = "vocoder's multi-resolution STFT over Griffin-Lim's", len(waves)
    return [
        Check(name, stft / rival_stft, 0.9, least=False, n=n, rows=spectra, detail=detail),
        Check("vocoder's log-mel L1", mel, 0.12, least=False, n=n, rows=mels, detail=detail),
    ]


def tags_stay(real: Tagged, trip: Tagged) -> Check:
    """Share of real clips whose first YAMNet tag is the same after VAE and vocoder."""
    before, after = real.mean.argmax(dim=1), trip.mean.argmax(dim=1)
    top5 = trip.mean.topk(5, dim=1).indices
    return Check(
        "VAE + vocoder keep YAMNet's first tag",
        value=float((before == after).double().mean()),
        limit=0.8,
        n=len(before),
        rows={"real": 1.0, "first tag among five": float((top5 == before[:, None]).any(1).double().mean())},
    )
