"""All checks of one model, in the order in which their sounds are needed.

python -m recipes.embedded.release_checks data/raw/*.jsonl -m runs/embedded/release
python -m recipes.embedded.release_checks data/raw/*.jsonl -m MODEL --held held_groups.json --prompts open.tsv
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.cli.console import waiting
from audioldm.cli.options.groups import load
from audioldm.datasets import manifest
from audioldm.datasets.decode import resample
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation import prompts as judge
from audioldm.evaluation.clips import from_rows
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.evaluation.generation import Codec, GeneratedClips
from audioldm.evaluation.tag_bridge import TagBridge
from audioldm.progress import counted
from audioldm.tables import read_text
from recipes.embedded.esc10 import PROMPTS, Esc10Classifier, Tally, check

from . import codec, likeness, pitch, prompts, sounds
from .check import Check, table
from .kinds import classes_of
from .sounds import Framing, Tagged


@dataclass
class ReleaseChecks:
    """The checks as methods over sounds that are generated, framed and embedded once."""

    rows: Sequence[Row]
    clips: GeneratedClips
    yamnet: YamNet
    seeds: int = prompts.SEEDS
    captions: int = sounds.CAPTIONS
    pairs: int = pitch.PAIRS
    other_seeds: int = prompts.OTHER_SEEDS
    listing: Path | None = None
    """open prompts with the classes that are right for each"""
    device: str = "cpu"
    framing: Framing = field(init=False)

    def __post_init__(self) -> None:
        seconds = self.clips.settings.get("seconds") or self.clips.pipe.defaults.seconds
        self.framing = Framing(float(seconds))

    @cached_property
    def fold(self) -> list[Row]:
        """ESC-10's test fold."""
        return sounds.test_fold(self.rows)

    @cached_property
    def open(self) -> list[Row]:
        """Held-out open sounds."""
        return sounds.held_out(self.rows, self.captions)

    @cached_property
    def real_waves(self) -> list[Tensor]:
        """The held-out sounds, ESC-10's first."""
        return [self.framing.of_row(row) for row in (*self.fold, *self.open)]

    @cached_property
    def files(self) -> list[Tensor]:
        """A generated clip for each held-out one: ESC-10's prompts with seeds 0 to 7, captions with their number."""
        place: dict[str, int] = {}
        asked, seeds = [], []
        for row in self.fold:
            place[row.labels[0]] = seed = place.get(row.labels[0], -1) + 1
            asked.append(PROMPTS[row.labels[0]])
            seeds.append(seed)
        asked += [row.captions[0] for row in self.open]
        seeds += range(len(self.open))
        return self.clips.waves(asked, seeds)

    @cached_property
    def generated_waves(self) -> list[Tensor]:
        """The generated clips, framed."""
        return [self.framing(wave, self.clips.pipe.spec.rate) for wave in self.files]

    @cached_property
    def real(self) -> Tagged:
        """The held-out sounds, embedded."""
        return Tagged.of(self.real_waves, self.yamnet)

    @cached_property
    def generated(self) -> Tagged:
        """The generated clips, embedded."""
        return Tagged.of(self.generated_waves, self.yamnet)

    @cached_property
    def halves(self) -> tuple[Tagged, Tagged, list[Tensor]]:
        """Two real halves, embedded, and the first one's waves."""
        first, second = (
            [self.framing.of_row(row) for row in half]
            for half in sounds.halves(
                self.rows, per_class=len(self.fold) // len(PROMPTS), opensounds=len(self.open)
            )
        )
        return Tagged.of(first, self.yamnet), Tagged.of(second, self.yamnet), first

    @cached_property
    def codec(self) -> Codec:
        """The model without its U-Net."""
        return Codec(self.clips.pipe, self.framing.seconds)

    def round_trip(self, wave: Tensor) -> Tensor:
        """VAE and vocoder of a framed wave (N,), framed again."""
        rate = self.codec.spec.rate
        return self.framing(self.codec.round_trip(resample(wave, RATE, rate)), rate)

    def through(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """VAE and vocoder, of each."""
        return [self.round_trip(wave) for wave in counted(waves, "round trips")]

    @cached_property
    def trip_waves(self) -> list[Tensor]:
        """The held-out sounds after VAE and vocoder."""
        return self.through(self.real_waves)

    @cached_property
    def trip(self) -> Tagged:
        """The same, embedded."""
        return Tagged.of(self.trip_waves, self.yamnet)

    @cached_property
    def classifier(self) -> Esc10Classifier:
        """ESC-10's, of real sounds."""
        rows = sounds.of_source(self.rows, sounds.ESC10)
        return Esc10Classifier.train(rows, self.yamnet)

    @cached_property
    def fold_trip(self) -> Tally:
        """What the classifier makes of the test fold after VAE and vocoder."""
        labels = [row.labels[0] for row in self.fold]
        return Tally.of(labels, self.classifier.predict(self.trip.embeddings[: len(labels)]))

    @cached_property
    def classes(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Embeddings of every ESC-10 prompt's seeds, and of the class's real clips."""
        generated, real = {}, {}
        for label, prompt in PROMPTS.items():
            waves = self.clips.waves([prompt] * self.seeds, range(self.seeds))
            generated[label] = [self.framing(wave, self.clips.pipe.spec.rate) for wave in waves]
            rows = [row for row in sounds.of_source(self.rows, sounds.ESC10) if label in row.labels]
            real[label] = [self.framing.of_row(row) for row in rows]
        return (
            {label: Tagged.of(part, self.yamnet).embeddings for label, part in generated.items()},
            {label: Tagged.of(part, self.yamnet).embeddings for label, part in real.items()},
        )

    def esc10(self) -> list[Check]:
        """Recognition of the class names as trained."""
        return [prompts.recognition(self.classifier, self.clips, self.fold_trip, seeds=self.seeds)]

    def paraphrases(self) -> list[Check]:
        """Recognition of the same classes in other words."""
        sides = self.classifier, self.clips, self.fold_trip
        return [prompts.recognition(*sides, wordings=prompts.WORDINGS, seeds=self.other_seeds)]

    def open_prompts(self) -> list[Check]:
        """Prompts of any kind; without a list, nothing."""
        if self.listing is None:
            return []
        asked, _ = judge.read_prompts(self.listing, self.yamnet.class_names)
        source = judge.generated(self.clips)
        results = list(judge.evaluate_prompts(asked, source, self.yamnet, seeds=self.other_seeds))
        kinds = {row.captions[0]: tuple(classes_of(row.captions[0])) for row in self.open}
        known = [judge.Prompt(caption, classes) for caption, classes in kinds.items() if classes]
        clips = from_rows([row for row in self.open if kinds[row.captions[0]]])
        real, trip, _ = judge.evaluate_real(clips, known, self.codec, self.yamnet)
        return [prompts.open_prompts(results, real, trip)]

    def level(self) -> list[Check]:
        """Silence and peaks."""
        return prompts.level(self.files, self.real_waves, self.trip_waves)

    def tags(self) -> list[Check]:
        """The tag bridge, on the open sounds' captions."""
        part = slice(len(self.fold), None)
        sides = (self.real[part], self.generated[part], self.trip[part])
        captions = [row.captions[0] for row in self.open]
        return [prompts.tag_bridge(*sides, captions, TagBridge(self.yamnet.class_names))]

    def distance(self) -> list[Check]:
        """Fréchet and kernel distances, of all held-out sounds and of the open ones alone."""
        first, second, waves = self.halves
        other = Tagged.of(self.through(waves), self.yamnet)
        parts = (self.real, self.generated, first, second, self.trip, other)
        sets = likeness.Sets(*(part.embeddings for part in parts))
        alone = sets.part(slice(len(self.fold), None))
        return [*likeness.distance(sets, "all"), *likeness.distance(alone, "open sounds")]

    def diversity(self) -> list[Check]:
        """Distances within a prompt."""
        labels = [row.labels[0] for row in self.fold]
        trip = {
            label: self.trip.embeddings[[i for i, each in enumerate(labels) if each == label]]
            for label in PROMPTS
        }
        return [likeness.diversity(*self.classes, trip)]

    def copies(self) -> list[Check]:
        """Nearest training clips."""
        train = [row for row in self.rows if row.split == "train"]
        search = likeness.CopySearch(train, self.framing, device=self.device)
        values, nearest = search([*self.generated_waves, *self.real_waves, *self.trip_waves])
        generated, real, trip = values.chunk(3)
        return [likeness.copies(generated, nearest[: len(generated)], real, trip)]

    def pitch(self) -> list[Check]:
        """Low and high notes."""
        return [pitch.follows_words(self.clips, self.framing, self.rows, self.round_trip, count=self.pairs)]

    def vocoder(self) -> list[Check]:
        """Vocoder and round trip."""
        rows = [*self.fold, *self.open]
        checks = codec.vocoder(self.codec, [self.framing.bare(row) for row in rows])
        return [*checks, codec.tags_stay(self.real, self.trip)]

    def run(self, only: Sequence[str] = ()) -> Iterator[tuple[str, list[Check]]]:
        """Each question of ``ORDER`` (or of ``only``) with its bars, as soon as they are known."""
        for name in only or ORDER:
            with torch.no_grad():
                yield name, getattr(self, name)()


ORDER = (
    "open_prompts", "esc10", "paraphrases", "distance", "tags", "level", "diversity", "pitch", "vocoder", "copies"
)  # fmt: skip


def about(checks: ReleaseChecks) -> dict[str, Any]:
    """What a reader needs to get the same numbers again."""
    pipe, test = checks.clips.pipe, [row for row in checks.open if row.split == "test"]
    return {
        "model": pipe.name,
        "sha256": pipe.hashes,
        "defaults": vars(pipe.defaults),
        "settings": checks.clips.settings,
        "dtype": str(pipe.dtype),
        "device": str(pipe.device),
        "framing": str(checks.framing),
        "embedder": {"name": checks.yamnet.name, "sha256": checks.yamnet.sha256},
        "esc10_test": len(checks.fold),
        "opensounds_test": len(test),
        "opensounds_val": len(checks.open) - len(test),
        "train_rows": sum(row.split == "train" for row in checks.rows),
        "candidates": 1,
    }


def parser() -> argparse.ArgumentParser:
    """The command line; what is left out is the model's own."""
    line = argparse.ArgumentParser(
        prog="python -m recipes.embedded.release_checks",
        description="Check a model before it is shipped, real sounds beside every number.  Needs ESC-10's and the open "
        "sounds' manifests; further ones (notes, speech, scenes) widen the search for copies and give the notes' own "
        "pitch row.  Clips are kept by a hash of what made them, so an interrupted run goes on.",
    )
    line.add_argument("manifests", nargs="+", type=Path, help="all manifests that the model was trained on")
    line.add_argument("-m", "--model", help="model folder (default: the embedded one)")
    line.add_argument(
        "-o", "--out", type=Path, default=Path("out/release_checks"), help="clips and tables go here"
    )
    line.add_argument("--only", default="", metavar="A,B", help=f"of {', '.join(ORDER)} (default: all)")
    line.add_argument("--seeds", type=int, default=prompts.SEEDS, help="clips of each ESC-10 prompt")
    line.add_argument(
        "--captions", type=int, default=sounds.CAPTIONS, help="held-out captions of open sounds"
    )
    line.add_argument("--pairs", type=int, default=pitch.PAIRS, help="pairs of low and high notes")
    line.add_argument(
        "--other-seeds", type=int, default=prompts.OTHER_SEEDS, help="clips of each wording and open prompt"
    )
    line.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE.tsv",
        help="open prompts, as audioldm evaluate prompts takes them",
    )
    line.add_argument(
        "--held", type=Path, metavar="FILE.json", help="a list of opensounds2's groups that no training saw"
    )
    for name, kind in SETTINGS.items():
        line.add_argument(f"--{name.replace('_', '-')}", type=kind)
    line.add_argument("--batch-size", type=int, help="clips made at once (default: 1 on a CPU, else 16)")
    line.add_argument("--device", default="auto")
    line.add_argument("--dtype", default="float32")
    line.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return line


SETTINGS = {
    "seconds": float,
    "steps": int,
    "guidance": float,
    "sampler": str,
    "refine_phase": int,
    "retry_silent": int,
}


def groups_of(path: Path) -> list[str]:
    """The groups of a JSON list."""
    try:
        groups = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise AudioLDMError(
            f"{path} is no JSON list of groups: {error}.", "Give --held such a file."
        ) from error
    if not isinstance(groups, list) or not groups or not all(isinstance(group, str) for group in groups):
        raise AudioLDMError(f"{path} is no JSON list of groups.", "Give --held such a file.")
    return groups


def run(options: argparse.Namespace) -> None:
    """Check, write, print."""
    from audioldm.pipeline.outputs import check_writable, publish

    wanted = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in ORDER]:
        raise AudioLDMError(f"only={unknown[0]!r} is no question.", f"Known: {', '.join(ORDER)}.")
    if min(options.captions, options.seeds) < 2 or min(options.pairs, options.other_seeds) < 1:
        raise AudioLDMError(
            "seeds, captions, pairs or other_seeds are too few.", "Use 2, 2, 1 and 1 or more."
        )
    rows = [row for path in options.manifests for row in manifest.read(path)]
    rows = sounds.hold_out(rows, groups_of(options.held)) if options.held else rows
    check(sounds.of_source(rows, sounds.ESC10))
    check_writable(options.out)
    yamnet = YamNet()
    pipe = load(options.model, device=options.device, dtype=options.dtype)
    settings = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    clips = GeneratedClips(pipe, options.out / "clips", settings, batch_size=options.batch_size)

    checks = ReleaseChecks(
        rows, clips, yamnet, seeds=options.seeds, captions=options.captions, pairs=options.pairs,
        device=str(pipe.device), other_seeds=options.other_seeds, listing=options.prompts,
    )  # fmt: skip
    results: list[Check] = []
    begin = time.monotonic()
    with waiting("checks"):
        for name, answers in checks.run(wanted):
            results += answers
            print(f"{name}: {time.monotonic() - begin:.0f} s from the start", file=sys.stderr)
            for answer in answers:
                print(table([answer]).splitlines()[-1], file=sys.stderr)
    report: dict[str, Any] = {"about": about(checks), "checks": [result.as_dict() for result in results]}
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    shown = table(results, [f"{pipe.name}, {checks.framing}", ""])
    publish({options.out / "checks.json": text.encode(), options.out / "checks.md": shown.encode()})
    print(text if options.json else shown, end="")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; a user's mistake becomes one line on stderr.  Returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        run(options)
    except AudioLDMError as error:
        print(f"release_checks: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
