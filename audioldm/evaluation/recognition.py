"""Does a listener that never met the model hear what was asked for?   n clips, D width, K classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import SILENT_PEAK, Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.yamnet import YamNet, embed_manifest

PROMPTS: dict[str, str] = {
    "dog bark": "a dog barking", "rain": "rain falling", "sea waves": "sea waves",
    "baby cry": "a baby crying", "clock tick": "a clock ticking", "person sneeze": "a person sneezing",
    "helicopter": "a helicopter flying", "chainsaw": "a chainsaw running", "rooster": "a rooster crowing",
    "fire crackling": "a crackling fire",
}  # fmt: skip
"""ESC-10's label in the manifest -> the prompt that asks for it."""

TRAIN_FOLDS = (1, 2, 3)
TEST_FOLD = 4
L2 = 1e-2
"""The strongest that costs nothing when folds 1 to 3 are left out in turn; fold 4 was looked at, but did not choose."""
SILENCE = "silence"
"""What a clip below SILENT_PEAK is heard as: a forced choice would give it to a class."""
SUFFIXES = (".wav", ".flac", ".ogg")
Generate = Callable[[Sequence[str], Sequence[int]], Tensor]  # prompts, as many seeds -> 16 kHz waves (B, N)


@dataclass(frozen=True)
class LinearClassifier:
    """Logistic regression on standardised features.   mean, std (D,); weight (K, D); bias (K,); float64."""

    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, x: Tensor, labels: Sequence[str], *, l2: float = L2, steps: int = 500) -> "LinearClassifier":
        """Fit to x (n, D) and n labels: least mean cross-entropy + ``l2`` / 2 |weight|^2, by LBFGS from 0.

        The objective is convex, so nothing is drawn at random.   A feature that never changes gets no say.
        """
        classes = tuple(sorted(set(labels)))
        if x.ndim != 2 or len(x) != len(labels) or len(classes) < 2:
            raise ValueError(f"x is {tuple(x.shape)} with {len(labels)} labels of {len(classes)} classes.")
        if l2 <= 0 or not x.isfinite().all():
            raise ValueError(f"l2={l2} must be above 0 and x finite, or there is no solution.")
        target = torch.tensor([classes.index(label) for label in labels])
        x = x.detach().cpu().double()
        mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
        std = torch.where(std > 1e-8, std, torch.inf)
        features = (x - mean) / std
        weight = torch.zeros(len(classes), x.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(len(classes), dtype=torch.float64, requires_grad=True)
        search = {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-9, "tolerance_change": 1e-14}
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, **search)  # type: ignore[arg-type]

        def objective() -> Tensor:
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(features @ weight.T + bias, target)
            loss = loss + l2 / 2 * weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimiser.step(objective)
        return cls(classes, mean, std, weight.detach(), bias.detach())

    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities (n, K) of x (n, D)."""
        if not x.isfinite().all():
            raise ValueError("x holds values that are not finite.")
        features = (x.detach().cpu().double() - self.mean) / self.std
        return (features @ self.weight.T + self.bias).softmax(dim=1)

    def predict(self, x: Tensor) -> list[str]:
        """The most probable class of each row of x (n, D)."""
        return [self.classes[i] for i in self.probabilities(x).argmax(dim=1).tolist()]


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a fraction.   E. B. Wilson, JASA 22 (1927).

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} hits in {trials} trials is not a fraction.")
    z = 1.959963984540054
    share, scale = hits / trials, 1 + z * z / trials
    centre = share + z * z / (2 * trials)
    half = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class Tally:
    """What the classifier heard.   ``confusion[wanted][heard]`` counts clips."""

    confusion: dict[str, dict[str, int]]

    @classmethod
    def of(cls, wanted: Sequence[str], heard: Sequence[str]) -> "Tally":
        """Count pairs; every label of PROMPTS gets a row and a column, silence a last column."""
        table = {row: dict.fromkeys((*PROMPTS, SILENCE), 0) for row in PROMPTS}
        for want, hear in zip(wanted, heard, strict=True):
            table[want][hear] += 1
        return cls(table)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Hits and clips of each class."""
        return {label: (row[label], sum(row.values())) for label, row in self.confusion.items()}

    @property
    def total(self) -> tuple[int, int]:
        """Hits and clips of all classes."""
        return sum(hits for hits, _ in self.counts.values()), sum(clips for _, clips in self.counts.values())

    @property
    def fraction(self) -> float:
        """Hits per clip."""
        return self.total[0] / self.total[1]

    def as_dict(self) -> dict[str, object]:
        """Counts, fraction, interval, per-class fractions and confusion, ready for JSON."""
        parts = {label: hits / clips if clips else None for label, (hits, clips) in self.counts.items()}
        result = {"hits": self.total[0], "clips": self.total[1], "fraction": self.fraction}
        return {**result, "interval95": wilson(*self.total), "per_class": parts, "confusion": self.confusion}

    def line(self, name: str) -> str:
        """One row of a Markdown summary: name, clips, fraction, interval."""
        low, high = wilson(*self.total)
        return f"| {name} | {self.total[1]} | {self.fraction:.3f} | {low:.3f} to {high:.3f} |"


@dataclass(frozen=True)
class Listener:
    """The classifier of folds 1-3 and how it did on real fold 4; reusable for many models."""

    classifier: LinearClassifier
    yamnet: YamNet
    train_clips: int
    real: Tally

    @classmethod
    def train(
        cls, rows: Sequence[Row], yamnet: YamNet, *, progress: Callable[[int, int], None] | None = None
    ) -> "Listener":
        """Train on folds 1-3 of ``rows`` and try on fold 4; other folds are left alone."""
        check(rows)
        train = [row for row in rows if row.fold in TRAIN_FOLDS]
        test = [row for row in rows if row.fold == TEST_FOLD]
        x = embed_manifest([*train, *test], yamnet, progress=progress)
        classifier = LinearClassifier.fit(x[: len(train)], [row.labels[0] for row in train])
        heard = classifier.predict(x[len(train) :])
        return cls(classifier, yamnet, len(train), Tally.of([row.labels[0] for row in test], heard))

    def hear(self, wave: Tensor) -> str:
        """The class of a 16 kHz wave (N,), or SILENCE."""
        heard = self.classifier.predict(self.yamnet.pooled(wave)[None])[0]
        return SILENCE if float(wave.abs().max()) < SILENT_PEAK else heard


def check(rows: Sequence[Row]) -> None:
    """Refuse rows that are not ESC-10's folds 1 to 4."""
    found = {(row.fold, label) for row in rows for label in row.labels}
    wanted = [(fold, label) for fold in (*TRAIN_FOLDS, TEST_FOLD) for label in PROMPTS]
    if lacking := [f"{label!r} in fold {fold}" for fold, label in wanted if (fold, label) not in found]:
        raise AudioLDMError(
            f"The manifest has no {lacking[0]}, nor {len(lacking) - 1} others.", "Use ESC-10."
        )
    if unknown := sorted({label for _, label in found} - PROMPTS.keys()):
        raise AudioLDMError(f"The manifest has labels outside ESC-10: {unknown[:3]}.", "Give ESC-10 alone.")


def folder_of(folder: Path, label: str) -> Path:
    """Where the clips of one class lie: its label, spaces as underscores."""
    return folder / label.replace(" ", "_")


def from_folder(folder: Path, rate: int) -> Iterator[tuple[str, str, Tensor]]:
    """(label, file name, wave) of the sound files in each class's ``folder_of``; gaps are refused at once."""
    found = {
        label: sorted(path for path in folder_of(folder, label).glob("*") if path.suffix.lower() in SUFFIXES)
        for label in PROMPTS
    }
    if lacking := [label for label, paths in found.items() if not paths]:
        raise AudioLDMError(f"{folder} has no clips of {', '.join(lacking)}.", "Each class needs its folder.")
    return ((label, path.stem, decode(path, rate)) for label, paths in found.items() for path in paths)


def from_model(generate: Generate, seeds: Sequence[int]) -> Iterator[tuple[str, str, Tensor]]:
    """(label, seed, wave) of every prompt with every seed."""
    for label, prompt in PROMPTS.items():
        waves = generate([prompt] * len(seeds), list(seeds))
        if waves.ndim != 2 or len(waves) != len(seeds):
            raise ValueError(f"generate gave {tuple(waves.shape)} for {len(seeds)} seeds; (B, N) was due.")
        yield from ((label, f"{seed:04d}", wave) for seed, wave in zip(seeds, waves, strict=True))


def esc10_recognition(
    rows: Sequence[Row],
    yamnet: YamNet,
    *,
    generate: Generate | None = None,
    folder: Path | None = None,
    seeds: Sequence[int] = range(20),
    listener: Listener | None = None,
    on_clip: Callable[[str, str, Tensor], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    settings: Mapping[str, object] | None = None,
) -> "Report":
    """What share of generated clips is heard as asked for, beside that of real clips.

    ``generate`` makes a clip per prompt and seed; or ``folder`` has them.   ``rows`` are ESC-10's; a trained
    ``listener`` does without them.   ``on_clip`` hears (label, name, wave) of generated clips and
    ``progress`` (done, total) of real ones.   Samples outside [-1, 1] are cut first, as a file would.
    """
    if not seeds:
        raise AudioLDMError("seeds=0 makes no clip.", "Use 1 or more.")
    if folder is not None and generate is None:
        clips = from_folder(folder, yamnet.rate)
    elif generate is not None and folder is None:
        clips = from_model(generate, seeds)
    else:
        raise ValueError("give either generate or folder.")
    listener = listener or Listener.train(rows, yamnet, progress=progress)
    wanted, heard, clipped = [], [], 0
    for label, name, wave in clips:
        clipped += bool((wave.abs() > 1).any())
        wave = wave.detach().cpu().float().clamp(-1, 1)
        wanted.append(label)
        heard.append(listener.hear(wave))
        if on_clip is not None:
            on_clip(label, name, wave)
    return Report(listener, Tally.of(wanted, heard), clipped, dict(PROMPTS), dict(settings or {}))


@dataclass(frozen=True)
class Report:
    """Recognition of generated clips by a listener, beside what it makes of real ones.

    The interval treats clips as independent draws: it covers new seeds, not new prompts.
    """

    listener: Listener
    generated: Tally
    clipped: int
    prompts: dict[str, str]
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Generated fraction over real accuracy; None if no real clip was recognised."""
        real = self.listener.real.fraction
        return self.generated.fraction / real if real else None

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        embedder = {"name": self.listener.yamnet.name, "sha256": self.listener.yamnet.sha256}
        result = {
            "ratio": self.ratio,
            "real": self.listener.real.as_dict(),
            "generated": self.generated.as_dict(),
        }
        train = {"clips": self.listener.train_clips, "l2": L2, "embedder": embedder}
        return {
            **result,
            "clipped": self.clipped,
            "train": train,
            "prompts": self.prompts,
            "settings": self.settings,
        }

    def markdown(self) -> str:
        """The two numbers, then per class the real hits and the confusion of the generated clips."""
        ratio = "-" if self.ratio is None else f"{self.ratio:.3f}"
        real, heads = self.listener.real, (*self.prompts, SILENCE)
        lines = ["| clips | n | recognised | 95 % interval |", "|---|---|---|---|"]
        lines += [real.line("real, fold 4"), self.generated.line("generated"), ""]
        lines += [
            f"Generated / real: {ratio}. Chance: {1 / len(PROMPTS):.3f}. Clipped clips: {self.clipped}.",
            "",
        ]
        lines += ["Columns after the second count what the generated clips of each class were heard as.", ""]
        lines += ["| prompt | real |" + "|".join(heads) + "|", "|---" * (len(heads) + 2) + "|"]
        for label, row in self.generated.confusion.items():
            hits, clips = real.counts[label]
            cells = "|".join(str(n or "") for n in row.values())
            lines.append(f"| {self.prompts[label]} | {hits}/{clips} |{cells}|")
        return "\n".join(lines) + "\n"
