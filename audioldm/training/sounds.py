"""A few sounds of one kind, encoded once in memory: what a model is personalised with.   N samples."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.utils.data import Dataset

from audioldm.batch import LatentBatch
from audioldm.datasets.audio_text import AudioText, varied
from audioldm.datasets.check import NOTES, check
from audioldm.datasets.latents import collate_latents
from audioldm.datasets.manifest import Row
from audioldm.datasets.prepare.folder import rows as rows_of
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import multiple_of
from audioldm.nets.vae import encode
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.training.data import DataModule


class Windows(Dataset[LatentBatch]):
    """Encoded windows; an item may be asked for with a draw number, which changes nothing."""

    def __init__(self, items: Sequence[LatentBatch]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | tuple[int, int]) -> LatentBatch:
        return self.items[index[0] if isinstance(index, tuple) else index]


def from_sounds(
    *,
    folder: str,
    model: str | None = None,
    prompt: str | None = "my sound",
    seconds: float | None = None,
    windows: int = 4,
    speed: float = 0.0,
    batch_size: int = 8,
    seed: int = 0,
) -> DataModule:
    """Every sound below ``folder`` as latents of ``model``, all called ``prompt`` (None: by their captions or names).

    Of each clip ``windows`` are cut: a long one at other places, a short one earlier or later, up to ``speed`` faster
    or slower.   ``seconds`` None is the model's own length.   A file that cannot be trained on is refused by its name.
    """
    pipe = AudioLDM.from_pretrained(model)
    found = sound_rows(folder, prompt)
    return DataModule(
        Windows(encoded(pipe, found, seconds=seconds, windows=windows, speed=speed, seed=seed)),
        batch_size=batch_size,
        seed=seed,
        collate=collate_latents,
    )


def sound_rows(folder: str, prompt: str | None) -> list[Row]:
    """The clips of a folder, all to learn from; AudioLDMError names what is broken, silent, or has no caption."""
    named = {} if prompt is None else {"captions": (prompt,)}
    asked = [replace(row, split="train", **named) for row in rows_of(folder)]
    report = check(asked)
    wrong = [one for one in report.findings if one.kind not in NOTES]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise AudioLDMError(f"{folder}: {wrong[0]}{more}.", "Take such files out, or mend them.")
    return report.rows


@torch.no_grad()
def encoded(
    pipe: AudioLDM, rows: Sequence[Row], *, seconds: float | None, windows: int, speed: float, seed: int
) -> list[LatentBatch]:
    """``windows`` latents of each clip, with what CLAP says of it and of its caption.

    A model that cannot hear gives the caption's embedding in place of the sound's.
    """
    if windows < 1:
        raise AudioLDMError(f"windows={windows} is not a number of windows.", "Use 1 or more.")
    if not 0 <= speed < 1:
        raise AudioLDMError(f"speed={speed} is not a share.", "Use 0 or more, below 1; 0.06 is a semitone.")
    spec = pipe.spec
    frames = spec.latent_frames(seconds or pipe.defaults.seconds, multiple_of(pipe.unet))
    clips = AudioText(rows, spec, frames * spec.seconds_per_latent, seed=seed, captions="first")
    log_mel, hears = LogMel(spec), getattr(pipe.clap, "audio_encoder", None) is not None
    items = []
    for row in range(len(rows)):
        text = pipe.clap.embed_text([rows[row].captions[0]])[0]
        for draw in range(windows):
            wave = normalise_peak(varied(clips[(row, draw)][0], row, draw, speed=speed)[None])
            mean, std = encode(pipe.vae, log_mel(wave))
            audio = pipe.clap.embed_audio(wave, spec.rate)[0] if hears else text
            items.append(LatentBatch(mean[0], std[0], text, audio))
    return items
