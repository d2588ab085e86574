"""A model's sounds for an evaluation: generated once and kept, and real ones after its VAE and vocoder.   N samples."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.datasets.decode import encode, read_mono, resample
from audioldm.evaluation.clips import Clip
from audioldm.pipeline import longform
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.progress import counted
from audioldm.signal.level import normalise_peak


@dataclass
class GeneratedClips:
    """Clips by prompt and seed, kept in ``folder`` under a hash of everything that decides their sound.

    A clip goes through its 16-bit file even when it is new, so that a second run reads the same samples.
    """

    pipe: AudioLDM
    folder: Path
    settings: dict[str, Any]
    batch_size: int | None = None

    def paths(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Path]:
        """A file for each prompt with its seed; what is missing is generated, never more than a batch in memory."""
        pipe, pairs = self.pipe, list(zip(prompts, seeds, strict=True))
        paths = self.places(pairs)
        places = dict(zip(pairs, paths, strict=True))
        missing = [pair for pair, path in places.items() if not path.is_file()]
        size = self.batch_size or (1 if pipe.device.type == "cpu" else 16)
        parts = [missing[start : start + size] for start in range(0, len(missing), size)]
        for part in counted(parts, "clips", len):
            texts, numbers = zip(*part, strict=True)
            waves = pipe(list(texts), seeds=list(numbers), batch_size=size, **self.settings)
            for pair, wave in zip(part, waves, strict=True):
                encode(places[pair], wave.cpu().float(), pipe.spec.rate)
        return paths

    def places(self, pairs: Sequence[tuple[str, int]]) -> list[Path]:
        pipe = self.pipe
        adapters = [pipe.adapted.applied] if pipe.adapted else []
        made_by = [pipe.hashes, *adapters, vars(pipe.defaults), self.settings, str(pipe.dtype)]
        texts = [json.dumps([*made_by, *pair], sort_keys=True) for pair in pairs]
        return [self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.wav" for text in texts]

    def waves(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Tensor]:
        """The same as waves (N,) at the model's rate."""
        return [read_mono(path)[0] for path in self.paths(prompts, seeds)]

    def like(self, real: Sequence[Clip], *, run: int) -> list[Clip]:
        """A clip for each reference's caption; clip i of run r has seed r * n + i."""
        paths = self.paths([clip.caption for clip in real], [run * len(real) + i for i in range(len(real))])
        pairs = zip(real, paths, strict=True)
        return [Clip(clip.id, path, clip.caption, group=clip.group) for clip, path in pairs]


class Codec:
    """The model's own way from sound to sound for clips of ``seconds``: mel, VAE, vocoder, without the U-Net."""

    def __init__(self, pipe: AudioLDM, seconds: float) -> None:
        self.pipe, self.seconds, self.spec = pipe, seconds, pipe.spec
        self.refine_phase = pipe.defaults.refine_phase

    @torch.no_grad()
    def round_trip(self, wave: Tensor) -> Tensor:
        """A wave (N,) at the model's rate through VAE (the posterior's mean) and vocoder: ``seconds`` long."""
        latent = longform.encode(self.pipe, wave[: self.spec.samples(self.seconds)])
        wave = longform.decode(self.pipe, latent, seconds=self.seconds, refine_phase=self.refine_phase)[0]
        return wave.cpu().float()


def round_trips(pipe: AudioLDM, real: Sequence[Clip], seconds: float, folder: Path) -> list[Clip]:
    """The references after the model's mel, VAE and vocoder, each at its own loudness, as files in ``folder``."""
    codec, clips = Codec(pipe, seconds), []
    for clip in counted(real, "clips"):
        wave, rate = read_mono(clip.path, start=clip.start, seconds=clip.seconds)
        wave = resample(wave, rate, pipe.spec.rate)[: pipe.spec.samples(seconds)]
        peak = float((wave - wave.mean()).abs().max())
        # levelled as in training (peak 0.5), with the clip's own peak and length again
        trip = normalise_peak(codec.round_trip(normalise_peak(wave)))[: len(wave)]
        path = encode(folder / f"{clip.id.replace('/', '_')}.wav", trip * (peak / 0.5), pipe.spec.rate)
        clips.append(replace(clip, path=path, start=0.0, seconds=None))
    return clips
