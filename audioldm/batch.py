"""The nouns that travel between rooms.   B batch, N samples, T frames, F bins, L tokens, D embedding width."""

from dataclasses import dataclass, field, replace

from torch import Tensor, cat


@dataclass(frozen=True)
class Condition:
    """What a U-Net is told about the sound: one pooled vector, a token sequence, or both.   An absent part is None."""

    film: Tensor | None = None  # (B, D) added to the time embedding's path
    tokens: Tensor | None = None  # (B, L, D) attended to
    mask: Tensor | None = None  # (B, L) 1 for a real token
    tokens2: Tensor | None = None  # (B, M, E) a second sequence, for nets of two contexts
    mask2: Tensor | None = None  # (B, M)

    def parts(self) -> tuple[Tensor | None, ...]:
        """Every part, present or not."""
        return self.film, self.tokens, self.mask, self.tokens2, self.mask2

    def map(self, function) -> "Condition":  # type: ignore[no-untyped-def]
        """Apply ``function`` to each part that is present."""
        return Condition(*(None if part is None else function(part) for part in self.parts()))

    def to(self, *args, **kwargs) -> "Condition":  # type: ignore[no-untyped-def]
        """Move or cast; the mask keeps its own type only if no dtype is given."""
        return self.map(lambda part: part.to(*args, **kwargs))

    def repeat(self, n: int) -> "Condition":
        """Each row ``n`` times in a row: (B, ...) to (B*n, ...)."""
        return self.map(lambda part: part.repeat_interleave(n, dim=0))

    def joined(self, other: "Condition") -> "Condition":
        """``other``'s rows after these; both must have the same parts, tokens of equal length."""
        pairs = zip(self.parts(), other.parts(), strict=True)
        return Condition(*(None if a is None or b is None else cat([a, b]) for a, b in pairs))

    def rows(self, index: Tensor | slice) -> "Condition":
        """Select rows of the batch."""
        return self.map(lambda part: part[index])


@dataclass(frozen=True)
class Batch:
    """Waveforms with their captions.   wave (B, 1, N) in [-1, 1]; captions: B strings; ids: B manifest paths."""

    wave: Tensor
    captions: list[str]
    ids: list[str] = field(default_factory=list)

    def to(self, device) -> "Batch":  # type: ignore[no-untyped-def]
        """Move the waveforms."""
        return replace(self, wave=self.wave.to(device))


@dataclass(frozen=True)
class LatentBatch:
    """Cached posteriors and conditions. mean, std (B, C, T, F), never scaled; text, audio (B, D) unit vectors.

    tokens (B, L, E) and mask (B, L) are a sequence encoder's, where the cache has them.
    """

    mean: Tensor
    std: Tensor
    text: Tensor
    audio: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None

    def to(self, device) -> "LatentBatch":  # type: ignore[no-untyped-def]
        """Move every part."""
        parts = (self.mean, self.std, self.text, self.audio, self.tokens, self.mask)
        return LatentBatch(*(None if part is None else part.to(device) for part in parts))  # type: ignore[arg-type]
