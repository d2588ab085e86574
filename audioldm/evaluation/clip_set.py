"""A set of clips, checked and embedded once, clip by clip.   n clips, P patches, D width, K classes, N samples."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audioldm.datasets.decode import read_mono, resample
from audioldm.datasets.loudness import loudness
from audioldm.errors import AudioLDMError
from audioldm.evaluation.clips import Clip
from audioldm.evaluation.embedders import Embedder, Embeddings
from audioldm.paths import staged
from audioldm.progress import counted
from audioldm.signal.level import normalise_peak

SILENT_DBFS = -60.0
FULL_SCALE, CLIPPED_SHARE = 0.999, 1e-3
TARGET_LUFS = -23.0
GAINS = {
    "peak": "mean removed, peak 0.5",
    "none": "own gain",
    "lufs": f"{TARGET_LUFS:g} LUFS within 20 dB",
}
RESAMPLER = "torchaudio sinc_interp_kaiser, width 64"


@dataclass(frozen=True)
class Frame:
    """What every clip of both sets gets: one length (None: its own) and one gain."""

    seconds: float | None
    gain: str = "peak"

    def __call__(self, wave: Tensor, rate: int) -> Tensor:
        """A wave (N,) cut or filled with zeros, with the gain."""
        if self.seconds is not None:
            samples = round(self.seconds * rate)
            wave = torch.nn.functional.pad(wave, (0, max(0, samples - len(wave))))[:samples]
        if self.gain == "peak":
            return normalise_peak(wave)
        if self.gain == "lufs":
            level = loudness(wave, rate)
            gain = 0.0 if level == float("-inf") else max(-20.0, min(20.0, TARGET_LUFS - level))
            return wave * 10 ** (gain / 20)
        return wave

    def __str__(self) -> str:
        length = "own length" if self.seconds is None else f"{self.seconds:g} s, zeros at the end"
        return f"{length}; {GAINS[self.gain]}"


@dataclass(frozen=True)
class Facts:
    """What the samples alone say."""

    seconds: float
    peak: float
    rms_dbfs: float
    clipped: bool
    sha256: str
    """of the file and the part of it"""

    @property
    def silent(self) -> bool:
        """Below -60 dB of full scale."""
        return self.rms_dbfs < SILENT_DBFS


@dataclass(frozen=True)
class ClipSet:
    """A whole set in the space of one embedder."""

    clips: list[Clip]
    facts: list[Facts]
    rows: list[Tensor]
    """(P, D) a clip, float64"""
    logits: Tensor | None
    """mean over patches (n, K)"""
    tags: Tensor | None
    """largest probability over patches (n, K)"""

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def pooled(self) -> Tensor:
        """Mean embedding of each clip (n, D)."""
        return torch.stack([part.mean(dim=0) for part in self.rows])

    def subset(self, index: Sequence[int]) -> "ClipSet":
        """The clips at these places."""
        at = torch.as_tensor(list(index))
        return ClipSet(
            [self.clips[i] for i in index],
            [self.facts[i] for i in index],
            [self.rows[i] for i in index],
            None if self.logits is None else self.logits[at],
            None if self.tags is None else self.tags[at],
        )

    def census(self, frame: Frame) -> dict[str, int]:
        """Silent, clipped and double clips, and those that the frame fills up or cuts, counted."""
        length = frame.seconds or max(fact.seconds for fact in self.facts)
        return {
            "n": len(self),
            "silent": sum(fact.silent for fact in self.facts),
            "clipped": sum(fact.clipped for fact in self.facts),
            "duplicates": len(self) - len({fact.sha256 for fact in self.facts}),
            "shorter": sum(fact.seconds < length - 0.01 for fact in self.facts),
            "cut": sum(fact.seconds > (1 + 0.1) * length for fact in self.facts),
        }

    def check(self, what: str) -> None:
        """AudioLDMError for a set that no distance can be taken of: all silent, or all the same sound."""
        if all(fact.silent for fact in self.facts):
            raise AudioLDMError(f"All {len(self)} {what} clips are silent.", "Silence has no score.", code=1)
        pooled = self.pooled
        if bool((pooled == pooled[0]).all()):
            raise AudioLDMError(
                f"All {len(self)} {what} clips are the same sound.",
                "A distance needs different ones.",
                code=1,
            )


@dataclass
class Cache:
    """Embeddings in ``folder`` (None keeps nothing), one small ``.npz`` a clip and embedder; a broken file is remade.

    The key is a hash of everything that decides them: the sound's bytes and part, the framing, the network.
    """

    folder: Path | None
    hits: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)

    def path(self, sound: str, framing: str, embedder: Embedder) -> Path | None:
        """Where the embeddings of a sound lie; ``sound`` is the sha256 of the file and the part of it."""
        identity = json.dumps([sound, framing, embedder.name, embedder.sha256, embedder.front])
        key = hashlib.sha256(identity.encode()).hexdigest()
        return None if self.folder is None else self.folder / key[:2] / f"{key}.npz"

    def read(self, path: Path | None) -> Embeddings | None:
        """Float32 embeddings, or None."""
        if path is not None and path.is_file():
            try:
                with np.load(path, allow_pickle=False) as content:
                    rows = torch.from_numpy(content["rows"])
                    logits = torch.from_numpy(content["logits"]) if "logits" in content else None
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                path.unlink(missing_ok=True)
            else:
                self.hits += 1
                return Embeddings(rows, logits)
        self.misses += 1
        return None

    def write(self, path: Path | None, embeddings: Embeddings) -> None:
        """In one move."""
        if path is None:
            return
        arrays = {key: part.numpy() for key, part in embeddings._asdict().items() if part is not None}
        with staged(path) as stage, stage.open("wb") as file:
            np.savez(file, **arrays)


def read_clip(clip: Clip) -> tuple[Tensor, int, Facts]:
    """Samples (N,), rate and facts of a clip; one without samples is an error."""
    wave, rate = read_mono(clip.path, start=clip.start, seconds=clip.seconds)
    if not len(wave):
        raise AudioLDMError(f"{clip.path} has no samples.", "Remove or remake it.", code=1)
    power = wave.double().square().mean()
    with clip.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = Facts(
        seconds=len(wave) / rate,
        peak=float(wave.abs().max()),
        rms_dbfs=10 * float(power.clamp_min(1e-20).log10()),
        clipped=float((wave.abs() >= FULL_SCALE).float().mean()) > CLIPPED_SHARE,
        sha256=f"{digest}/{clip.start:g}/{clip.seconds}",
    )
    return wave, rate, facts


def embed_clips(clips: Sequence[Clip], embedder: Embedder, frame: Frame, *, cache: Cache) -> ClipSet:
    """Every clip once through the embedder, or from the cache; only embeddings stay in memory."""
    facts, rows, logits, tags = [], [], [], []
    for clip in counted(clips, "clips"):
        wave, rate, fact = read_clip(clip)
        path = cache.path(fact.sha256, f"{frame}; {RESAMPLER}", embedder)
        embeddings = cache.read(path)
        if embeddings is None:
            rows_, logits_ = embedder.embed(resample(frame(wave, rate), rate, embedder.rate))
            embeddings = Embeddings(rows_.float().cpu(), None if logits_ is None else logits_.float().cpu())
            cache.write(path, embeddings)
        facts.append(fact)
        patches = embeddings.rows.double()
        rows.append(patches if embedder.by_patch else patches.mean(dim=0, keepdim=True))
        if embeddings.logits is not None:
            logits.append(embeddings.logits.double().mean(dim=0))
            tags.append(embeddings.scores.amax(dim=0))
    return ClipSet(
        list(clips), facts, rows, torch.stack(logits) if logits else None, torch.stack(tags) if tags else None
    )
