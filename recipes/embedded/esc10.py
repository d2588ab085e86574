"""Does a classifier that never met the model recognise what was asked for?   n clips, D width, K classes.

ESC-10's ten classes: a linear classifier on YAMNet's embeddings, trained on the real clips of folds 1 to 3.

python -m recipes.embedded.esc10 --manifest data/raw/esc10.jsonl -m MODEL
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from audioldm.cli.app import run
from audioldm.cli.console import json_text, progress, waiting, would
from audioldm.cli.evaluate import Generation
from audioldm.cli.options import AsJson, Between, Command, DryRun, Force, option
from audioldm.datasets import manifest as manifests
from audioldm.datasets.decode import SUFFIXES, decode, encode, resample
from audioldm.datasets.manifest import SILENT_PEAK, Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.metrics.interval import wilson
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.outputs import publish
from audioldm.tables import markdown
from recipes.embedded.tagger import embed_rows

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

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
"""Of a clip below SILENT_PEAK: a forced choice would give it to a class."""
Labelled = Iterable[tuple[str, str, Tensor]]
"""(label, name, 16 kHz wave (N,)) of every clip"""


def fit_linear(x: Tensor, labels: Sequence[str], *, l2: float = L2) -> "Pipeline":
    """Logistic regression on standardised features x (n, D): least mean cross-entropy + ``l2`` / 2 |weight|^2.

    The objective is convex, so nothing is drawn at random.   A feature that never changes counts for nothing.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-9, max_iter=2000)
    return make_pipeline(StandardScaler(), regression).fit(x.double().numpy(), list(labels))


@dataclass(frozen=True)
class Tally:
    """What the classifier said.   ``confusion[wanted][recognised]`` counts clips."""

    confusion: dict[str, dict[str, int]]

    @classmethod
    def of(cls, wanted: Sequence[str], recognised: Sequence[str]) -> "Tally":
        """Count pairs; every label of PROMPTS gets a row and a column, silence a last column."""
        table = {row: dict.fromkeys((*PROMPTS, SILENCE), 0) for row in PROMPTS}
        for want, label in zip(wanted, recognised, strict=True):
            table[want][label] += 1
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
        return {
            "hits": self.total[0], "clips": self.total[1], "fraction": self.fraction, "interval95": wilson(*self.total),
            "per_class": {label: hits / clips if clips else None for label, (hits, clips) in self.counts.items()},
            "confusion": self.confusion,
        }  # fmt: skip

    def row(self, name: str) -> list[object]:
        """Of a summary: name, clips, fraction, interval."""
        low, high = wilson(*self.total)
        return [name, self.total[1], self.fraction, f"{low:.3f} to {high:.3f}"]


@dataclass(frozen=True)
class Esc10Classifier:
    """The classifier of folds 1-3 and how it did on real fold 4; reusable for many models."""

    classifier: "Pipeline"
    yamnet: YamNet
    train_clips: int
    real: Tally

    @classmethod
    def train(cls, rows: Sequence[Row], yamnet: YamNet) -> "Esc10Classifier":
        """Train on folds 1-3 of ``rows`` and try on fold 4; other folds are not used."""
        check(rows)
        train = [row for row in rows if row.fold in TRAIN_FOLDS]
        test = [row for row in rows if row.fold == TEST_FOLD]
        x = embed_rows([*train, *test], yamnet)
        classifier = fit_linear(x[: len(train)], [row.labels[0] for row in train])
        predicted = classifier.predict(x[len(train) :].double().numpy())
        return cls(classifier, yamnet, len(train), Tally.of([row.labels[0] for row in test], predicted))

    def classify(self, wave: Tensor) -> str:
        """The class of a 16 kHz wave (N,), or SILENCE."""
        if float(wave.abs().max()) < SILENT_PEAK:
            return SILENCE
        return self.predict(self.yamnet.embed(wave).rows.mean(dim=0, keepdim=True))[0]

    def predict(self, x: Tensor) -> list[str]:
        """The most probable class of each row of YAMNet's mean embeddings x (n, D)."""
        return [str(label) for label in self.classifier.predict(x.double().numpy())]


def check(rows: Sequence[Row]) -> None:
    """Refuse rows that are not ESC-10's folds 1 to 4."""
    present = {(row.fold, label) for row in rows for label in row.labels}
    wanted = [(fold, label) for fold in (*TRAIN_FOLDS, TEST_FOLD) for label in PROMPTS]
    if lacking := [f"{label!r} in fold {fold}" for fold, label in wanted if (fold, label) not in present]:
        raise AudioLDMError(
            f"The manifest has no {lacking[0]}, nor {len(lacking) - 1} others.", "Use ESC-10."
        )
    if unknown := sorted({label for _, label in present} - PROMPTS.keys()):
        raise AudioLDMError(f"The manifest has labels outside ESC-10: {unknown[:3]}.", "Give ESC-10 alone.")


def folder_of(folder: Path, label: str) -> Path:
    """Where the clips of one class lie: its label, spaces as underscores."""
    return folder / label.replace(" ", "_")


def from_folder(folder: Path) -> Iterator[tuple[str, str, Tensor]]:
    """Clips of the sound files in each class's ``folder_of``; gaps are refused at once."""
    files = {
        label: sorted(path for path in folder_of(folder, label).glob("*") if path.suffix.lower() in SUFFIXES)
        for label in PROMPTS
    }
    if lacking := [label for label, paths in files.items() if not paths]:
        raise AudioLDMError(f"{folder} has no clips of {', '.join(lacking)}.", "Each class needs its folder.")
    return ((label, path.stem, decode(path, RATE)) for label, paths in files.items() for path in paths)


def recognise(
    classifier: Esc10Classifier,
    clips: Labelled,
    *,
    on_clip: Callable[[str, str, Tensor], None] = lambda label, name, wave: None,
    settings: dict[str, object] | None = None,
) -> "Report":
    """What share of clips is recognised as asked for; samples outside [-1, 1] are cut first, as a file would.

    ``on_clip`` gets (label, name, wave) of each.
    """
    wanted, recognised, clipped = [], [], 0
    for label, name, wave in clips:
        clipped += bool((wave.abs() > 1).any())
        wave = wave.detach().cpu().float().clamp(-1, 1)
        wanted.append(label)
        recognised.append(classifier.classify(wave))
        on_clip(label, name, wave)
    return Report(classifier, Tally.of(wanted, recognised), clipped, settings or {})


@dataclass(frozen=True)
class Report:
    """Recognition of generated clips beside that of real ones.

    The interval treats clips as independent draws: it covers new seeds, not new prompts.
    """

    classifier: Esc10Classifier
    generated: Tally
    clipped: int
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Generated fraction over real accuracy; None if no real clip was recognised."""
        real = self.classifier.real.fraction
        return self.generated.fraction / real if real else None

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        yamnet = self.classifier.yamnet
        embedder = {"name": yamnet.name, "sha256": yamnet.sha256}
        return {
            "ratio": self.ratio,
            "real": self.classifier.real.as_dict(),
            "generated": self.generated.as_dict(),
            "clipped": self.clipped,
            "train": {"clips": self.classifier.train_clips, "l2": L2, "embedder": embedder},
            "prompts": PROMPTS,
            "settings": self.settings,
        }

    def markdown(self) -> str:
        """The two numbers, then per class the real hits and the confusion of the generated clips."""
        ratio = "-" if self.ratio is None else f"{self.ratio:.3f}"
        real, counts = self.classifier.real, self.classifier.real.counts
        summary = markdown(
            ["clips", "n", "recognised", "95 % interval"],
            [real.row("real, fold 4"), self.generated.row("generated")],
        )
        rows = [
            [PROMPTS[label], "{}/{}".format(*counts[label]), *(n or "" for n in row.values())]
            for label, row in self.generated.confusion.items()
        ]
        return (
            f"{summary}\n\nGenerated / real: {ratio}. Chance: {1 / len(PROMPTS):.3f}. "
            f"Clipped clips: {self.clipped}.\n\n"
            "Columns after the second count what the generated clips of each class were recognised as.\n\n"
            f"{markdown(['prompt', 'real', *PROMPTS.values(), SILENCE], rows)}\n"
        )


class Esc10(AsJson, DryRun, Force, Command):
    """Ask for each of ESC-10's ten classes; count how often a classifier of real sounds recognises it.

    The classifier is linear, on YAMNet's embeddings, trained on ESC-10's folds 1 to 3. Its accuracy on real
    sounds of fold 4 is printed beside the share of generated sounds that it recognises.

    Examples:
      python -m recipes.embedded.esc10 --manifest data/raw/esc10.jsonl -m MODEL
      python -m recipes.embedded.esc10 --manifest data/raw/esc10.jsonl -m MODEL --seeds 5 -o out/esc10
      python -m recipes.embedded.esc10 --manifest data/raw/esc10.jsonl --folder out/esc10
    """

    manifest: Path = option(..., "ESC-10's manifest, with folds 1 to 4.", "JSONL")
    folder: Path | None = option(None, "Measure clips that exist, in DIR/dog_bark/*.wav and so on.", "DIR")
    out: Path | None = option(None, "Keep clips and reports here.", "-o", "DIR")
    seeds: int = option(20, "Clips of each prompt, with seeds 0, 1, ...", Between(1, 100_000))
    generation: Generation = Generation()

    def check(self) -> None:
        """Refuse two things to measure, and what is there."""
        folder, out = self.folder, self.out
        if folder is not None and self.generation.model.model is not None:
            raise AudioLDMError("--folder and --model were both given.", "Give the one to measure.")
        if folder is not None and not folder.is_dir():
            raise AudioLDMError(f"There is no folder {folder}.", "Give --folder a folder of clips.")
        stale = [] if out is None or folder is not None else sorted(out.glob("*/[0-9]*.wav"))
        reports = [] if out is None else [out / "report.json", out / "report.md"]
        self.check_free(*reports, *stale)

    def clips(self) -> tuple[Any, dict[str, Any]]:
        """(label, seed, 16 kHz wave) of each clip, and what made them."""
        if self.folder is not None:
            return from_folder(self.folder), {"folder": str(self.folder)}
        pipe = self.generation.load()
        settings = {**vars(pipe.defaults), **self.generation.settings(), "seeds": self.seeds}
        settings |= {"model": pipe.name, "sha256": pipe.hashes, "dtype": str(pipe.dtype)}
        return self.generated(pipe), settings

    def generated(self, pipe: AudioLDM) -> Iterator[tuple[str, str, Tensor]]:
        """The model's clips."""
        size, settings = self.generation.batch_size or 1, self.generation.settings()
        for label, prompt in PROMPTS.items():
            waves = pipe([prompt] * self.seeds, seeds=range(self.seeds), batch_size=size, **settings)
            for seed, wave in enumerate(resample(waves.float().cpu(), pipe.spec.rate, RATE)):
                yield label, f"{seed:04d}", wave

    def run(self) -> None:
        self.check()
        out = self.out
        rows = manifests.read(self.manifest)
        check(rows)
        total = self.seeds * len(PROMPTS)
        if self.dry_run:
            self.generation.check()
            would(f"{total} clips would be recognised by a classifier of {len(rows)} real ones")
            return
        with waiting("real clips"):
            classifier = Esc10Classifier.train(rows, YamNet())
        clips, settings = self.clips()
        with progress(total, "generated clips") as step:

            def on_clip(label: str, name: str, wave: Tensor) -> None:
                if out is not None and self.folder is None:
                    encode(folder_of(out, label) / f"{name}.wav", wave, RATE)
                step()

            report = recognise(classifier, clips, on_clip=on_clip, settings=settings)
        if out is not None:
            texts = {"report.json": json_text(report.as_dict()), "report.md": report.markdown()}
            publish({out / name: text for name, text in texts.items()})
        self.show(report.as_dict(), report.markdown())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], Esc10.click))
