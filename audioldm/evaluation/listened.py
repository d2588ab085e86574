"""A set of clips, checked and heard once, clip by clip.   n clips, D width, K classes, N samples."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audioldm.datasets.decode import read_mono, resample
from audioldm.datasets.loudness import loudness
from audioldm.errors import AudioLDMError
from audioldm.evaluation.cache import Cache
from audioldm.evaluation.embedders.protocol import Embedder, Embeddings
from audioldm.evaluation.sets import Item
from audioldm.signal.level import normalise_peak

SILENT_DBFS = -60.0
FULL_SCALE, CLIPPED_SHARE = 0.999, 1e-3
GAINS = ("peak", "none", "lufs")
TARGET_LUFS = -23.0
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
        told = {
            "peak": "mean removed, peak 0.5",
            "none": "own gain",
            "lufs": f"{TARGET_LUFS:g} LUFS within 20 dB",
        }
        return f"{length}; {told[self.gain]}"


@dataclass(frozen=True)
class Facts:
    """What the samples alone tell."""

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
class Listened:
    """A whole set as one embedder hears it."""

    items: list[Item]
    facts: list[Facts]
    rows: list[Tensor]
    """(P, D) a clip, float64"""
    logits: Tensor | None
    """mean over patches (n, K)"""
    tags: Tensor | None
    """largest probability over patches (n, K)"""

    @property
    def pooled(self) -> Tensor:
        """Mean embedding of each clip (n, D)."""
        return torch.stack([part.mean(dim=0) for part in self.rows])

    def some(self, index: Sequence[int]) -> "Listened":
        """The clips at these places."""
        at = torch.as_tensor(list(index))
        return Listened(
            [self.items[i] for i in index],
            [self.facts[i] for i in index],
            [self.rows[i] for i in index],
            None if self.logits is None else self.logits[at],
            None if self.tags is None else self.tags[at],
        )

    def census(self) -> dict[str, int]:
        """Silent, clipped, short and double clips, counted."""
        longest = max(fact.seconds for fact in self.facts)
        return {
            "n": len(self.items),
            "silent": sum(fact.silent for fact in self.facts),
            "clipped": sum(fact.clipped for fact in self.facts),
            "duplicates": len(self.facts) - len({fact.sha256 for fact in self.facts}),
            "shorter": sum(fact.seconds < longest - 0.01 for fact in self.facts),
        }


def read(item: Item) -> tuple[Tensor, int, Facts]:
    """Samples, rate and facts of an item; samples that are not finite are an error."""
    wave, rate = read_mono(item.path, start=item.start, seconds=item.seconds)
    if not len(wave) or not bool(wave.isfinite().all()):
        bad = int((~wave.isfinite()).sum())
        raise AudioLDMError(
            f"{item.path} has {bad} samples that are not finite, of {len(wave)}.",
            "Remove or remake it.",
            code=1,
        )
    size = wave.abs()
    power = float(wave.double().square().mean())
    with item.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    facts = Facts(
        seconds=len(wave) / rate,
        peak=float(size.max()),
        rms_dbfs=10 * float(torch.tensor(power).clamp_min(1e-20).log10()),
        clipped=float((size >= FULL_SCALE).float().mean()) > CLIPPED_SHARE,
        sha256=f"{digest}/{item.start:g}/{item.seconds}",
    )
    return wave, rate, facts


def listen(
    items: Sequence[Item],
    embedder: Embedder,
    frame: Frame,
    *,
    cache: Cache,
    step: Callable[[], None] = lambda: None,
) -> Listened:
    """Every item once through the embedder, or from the cache; only embeddings stay in memory."""
    facts, rows, logits, tags = [], [], [], []
    for item in items:
        wave, rate, fact = read(item)
        key = cache.key(fact.sha256, f"{frame}; {RESAMPLER}", embedder)
        heard = cache.get(key)
        if heard is None:
            heard = embedder.listen(resample(frame(wave, rate), rate, embedder.rate))
            heard = Embeddings(*(None if part is None else part.float().cpu() for part in heard))
            cache.put(key, heard)
        facts.append(fact)
        rows.append(
            heard.rows.double() if embedder.by_patch else heard.rows.double().mean(dim=0, keepdim=True)
        )
        if heard.logits is not None:
            logits.append(heard.logits.double().mean(dim=0))
            tags.append(heard.logits.sigmoid().amax(dim=0))
        step()
    return Listened(
        list(items), facts, rows, torch.stack(logits) if logits else None, torch.stack(tags) if tags else None
    )
