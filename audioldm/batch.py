"""The nouns that travel between modules.   B batch, N samples, T frames, F bins, L tokens, D embedding width."""

from dataclasses import dataclass, field, replace

from torch import Tensor, cat, where
from torch.nn.functional import pad


@dataclass(frozen=True)
class Condition:
    """What a U-Net is conditioned on: one pooled vector, a token sequence, or both.   An absent part is None."""

    film: Tensor | None = None  # (B, D) added to the time embedding's path
    tokens: Tensor | None = None  # (B, L, D) attended to
    mask: Tensor | None = None  # (B, L) 1 for a real token
    tokens2: Tensor | None = None  # (B, M, E) a second sequence, for nets of two contexts
    mask2: Tensor | None = None  # (B, M)

    def parts(self) -> tuple[Tensor | None, ...]:
        return self.film, self.tokens, self.mask, self.tokens2, self.mask2

    def count(self) -> int:
        return len(next(part for part in self.parts() if part is not None))

    def map(self, function) -> "Condition":  # type: ignore[no-untyped-def]
        return Condition(*(None if part is None else function(part) for part in self.parts()))

    def to(self, *args, **kwargs) -> "Condition":  # type: ignore[no-untyped-def]
        """Move or cast; the mask keeps its own type only if no dtype is given."""
        return self.map(lambda part: part.to(*args, **kwargs))

    def rows(self, index: Tensor | slice) -> "Condition":
        return self.map(lambda part: part[index])

    def repeat(self, n: int) -> "Condition":
        """Each row ``n`` times in a row: (B, ...) to (B*n, ...)."""
        return self.map(lambda part: part.repeat_interleave(n, dim=0))

    def joined(self, other: "Condition") -> "Condition":
        """``other``'s rows after these, shorter sequences filled up and masked.   Raises ValueError for other parts."""
        if any((one is None) != (two is None) for one, two in zip(self.parts(), other.parts(), strict=True)):
            raise ValueError("conditions of different parts cannot be joined")
        if self.mask is None and self.lengths() != other.lengths():
            raise ValueError("token sequences of different lengths need masks")
        longest = list(map(max, self.lengths(), other.lengths()))
        pairs = zip(self.padded(*longest).parts(), other.padded(*longest).parts(), strict=True)
        return Condition(*(None if one is None or two is None else cat([one, two]) for one, two in pairs))

    def lengths(self) -> tuple[int, int]:
        first, second = (0 if part is None else part.shape[1] for part in (self.tokens, self.tokens2))
        return first, second

    def padded(self, first: int, second: int) -> "Condition":
        """The sequences filled with zeros to these lengths, or cut to them; zeros are masked as the rest is."""

        def fitted(part: Tensor | None, length: int) -> Tensor | None:
            if part is None or part.shape[1] == length:
                return part
            more = length - part.shape[1]
            return pad(part, (0, more) if part.dim() == 2 else (0, 0, 0, more))

        pairs = ((self.tokens, first), (self.mask, first), (self.tokens2, second), (self.mask2, second))
        return Condition(self.film, *(fitted(part, length) for part, length in pairs))

    def trimmed(self) -> "Condition":
        """Without the last tokens that every row masks, so that a row alone is what it was among longer ones."""
        pairs = zip((self.mask, self.mask2), self.lengths(), strict=True)
        return self.padded(*(length if mask is None else int(mask.sum(1).max()) for mask, length in pairs))


def choose_rows(pick: Tensor, yes: Condition, no: Condition) -> Condition:
    """Row i of ``yes`` (or its only row) where ``pick`` (B,) is true, else of ``no``."""

    def choose(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return b if a is None or b is None else where(pick.view(-1, *[1] * (b.dim() - 1)), a.to(b), b)

    return Condition(*map(choose, yes.parts(), no.parts()))


@dataclass(frozen=True)
class Batch:
    """Waveforms with their captions.   wave (B, 1, N) in [-1, 1]; captions: B strings; ids: B manifest paths."""

    wave: Tensor
    captions: list[str]
    ids: list[str] = field(default_factory=list)

    def to(self, device) -> "Batch":  # type: ignore[no-untyped-def]
        """Move the waveforms; pinned ones while the GPU goes on computing."""
        return replace(self, wave=self.wave.to(device, non_blocking=self.wave.is_pinned()))

    def pin_memory(self) -> "Batch":
        """A copy that a GPU can fetch by itself; DataLoader asks for it."""
        return replace(self, wave=self.wave.pin_memory())


@dataclass(frozen=True)
class LatentBatch:
    """Cached posteriors and conditions. mean, std (B, C, T, F), never scaled; text, audio (B, D) unit vectors.

    tokens (B, L, E) and mask (B, L) are a sequence encoder's, where the cache has them; curve (B, frames, ...) is what
    a control is trained on; facts (B, 5) are ``control.nets.UNITS`` of each window; label (B,) is its class.
    """

    mean: Tensor
    std: Tensor
    text: Tensor
    audio: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    curve: Tensor | None = None
    facts: Tensor | None = None
    label: Tensor | None = None

    def map(self, function) -> "LatentBatch":  # type: ignore[no-untyped-def]
        return LatentBatch(**{k: None if v is None else function(v) for k, v in vars(self).items()})  # type: ignore[arg-type]

    def to(self, device) -> "LatentBatch":  # type: ignore[no-untyped-def]
        """Move every part; pinned ones while the GPU goes on computing."""
        return self.map(lambda part: part.to(device, non_blocking=part.is_pinned()))

    def pin_memory(self) -> "LatentBatch":
        """A copy that a GPU can fetch by itself; DataLoader asks for it."""
        return self.map(lambda part: part.pin_memory())
