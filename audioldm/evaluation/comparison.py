"""One comparison of generated with real sounds: its rows, and all that has to be said with them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.evaluation import scores
from audioldm.evaluation.cache import Cache
from audioldm.evaluation.embedders.protocol import Embedder
from audioldm.evaluation.listened import RESAMPLER, Frame, Listened, listen
from audioldm.evaluation.scores import Scores
from audioldm.evaluation.sets import Item
from audioldm.evaluation.tagbridge import bridge_to

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[], None]]:
    """No progress."""
    yield lambda: None


@dataclass(frozen=True)
class Line:
    """One row of the report: what was compared with the reference, how many clips, the scores."""

    name: str
    n: int
    scores: Scores


@dataclass
class Report:
    """Everything that was found; ``about`` says under which conditions."""

    about: dict[str, Any]
    lines: dict[str, list[Line]] = field(default_factory=dict)
    """embedder's name -> rows"""
    clips: list[dict[str, Any]] = field(default_factory=list)
    """one a generated clip, for the CSV"""
    census: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; what is not known is absent, never -1."""
        lines = {
            name: [
                {
                    "row": line.name,
                    "n": line.n,
                    **{
                        key: {part: value for part, value in vars(score).items() if value is not None}
                        for key, score in line.scores.items()
                    },
                }
                for line in part
            ]
            for name, part in self.lines.items()
        }
        return {"about": self.about, "census": self.census, "warnings": self.warnings, "rows": lines}


@dataclass
class Comparison:
    """What is compared; ``seeds`` are generated sets of the same ids, usually one.

    ``real`` is in the order of each of them where ``pairs``.   ``others`` are real clips besides the reference, for
    the real/real floor; ``trip`` the reference after the model's VAE and vocoder.
    """

    seeds: Sequence[Sequence[Item]]
    real: Sequence[Item]
    frame: Frame
    pairs: bool = True
    others: Sequence[Item] = ()
    trip: Sequence[Item] = ()
    cache: Cache = field(default_factory=lambda: Cache(None))
    progress: Progress = silent

    def heard(self, what: str, items: Sequence[Item], embedder: Embedder) -> Listened:
        """A set through an embedder, with progress."""
        with self.progress(f"{embedder.name}: {what}", len(items)) as step:
            return listen(items, embedder, self.frame, cache=self.cache, step=step)

    def run(self, embedders: Sequence[Embedder], about: dict[str, Any]) -> Report:
        """All rows of all embedders."""
        report = Report(dict(about))
        report.about["framing"], report.about["resampler"] = str(self.frame), RESAMPLER
        report.about["embedders"] = [
            {"name": e.name, "sha256": e.sha256, "dim": e.dim, "rate": e.rate, "front": e.front}
            for e in embedders
        ]
        for embedder in embedders:
            report.lines[embedder.name] = list(self.lines(embedder, report))
        report.about["cache"] = {"hits": self.cache.hits, "misses": self.cache.misses}
        report.about["scores"] = scores.ABOUT
        return report

    def lines(self, embedder: Embedder, report: Report) -> Iterator[Line]:
        """The rows of one embedder."""
        if columns := getattr(embedder, "columns", ()):
            yield from self.opinions(embedder, columns, report)
            return
        real = self.heard("reference", self.real, embedder)
        runs, wrong, first = [], [], None
        for number, items in enumerate(self.seeds):
            made = self.heard(f"generated {number + 1}", items, embedder)
            found, shuffled, values = self.scored(made, real, embedder)
            runs.append(found)
            wrong.append(shuffled)
            note(report, made, number, values)
            if first is None:
                first = made
                self.warn(report, made, real, embedder)
        assert first is not None
        yield Line("generated", len(first.items), scores.over_seeds(runs))
        if len(runs) > 1:
            for number, run in enumerate(runs):
                yield Line(f"generated, set {number + 1}", len(first.items), run)
        if wrong[0]:
            yield Line("generated, shuffled captions", len(first.items), scores.over_seeds(wrong))
        alone = scores.of_one(real)
        right, shuffled, _ = texts(real, embedder)
        yield Line("ground truth", len(real.items), alone | right)
        if shuffled:
            yield Line("ground truth, shuffled captions", len(real.items), shuffled)
        yield from self.floor(first, real, embedder)
        if self.trip:
            trip = self.heard("VAE round trip", self.trip, embedder)
            yield Line("VAE round trip", len(trip.items), self.scored(trip, real, embedder)[0])

    def opinions(self, embedder: Embedder, columns: Sequence[str], report: Report) -> Iterator[Line]:
        """Rows of an embedder whose numbers are scores themselves: means of each set."""
        for number, items in enumerate((*self.seeds, self.real)):
            name = f"generated, set {number + 1}" if number < len(self.seeds) else "ground truth"
            heard = self.heard(name, items, embedder)
            values = dict(zip(columns, heard.pooled.T, strict=True))
            yield Line(name, len(items), {key: scores.mean(part) for key, part in values.items()})
            if number < len(self.seeds):
                note(report, heard, number, values)

    def scored(
        self, made: Listened, real: Listened, embedder: Embedder
    ) -> tuple[Scores, Scores, dict[str, Tensor]]:
        """All scores of one set, those of shuffled captions, and the values of each clip."""
        found = scores.of_crowds(made, real)
        right, wrong, values = texts(made, embedder)
        if self.pairs:
            paired, each = scores.of_pairs(made, real)
            found, values = found | paired, values | each
        return found | right, wrong, values

    def floor(self, made: Listened, real: Listened, embedder: Embedder) -> Iterator[Line]:
        """What two real sets measure: other real clips at the same n, or else two halves with the generated beside."""
        if len(self.others) >= len(real.items):
            others = self.heard("other real clips", list(self.others)[: len(real.items)], embedder)
            yield Line("real/real floor", len(others.items), scores.of_crowds(others, real))
        elif len(real.items) >= 4:
            order = split_by_group(real.items)
            half = len(order) // 2
            a, b = real.some(order[:half]), real.some(order[half : 2 * half])
            yield Line("real/real floor, halves", half, scores.of_crowds(a, b, extrapolate=False))
            part = made.some(range(min(half, len(made.items))))
            yield Line("generated, to one half", half, scores.of_crowds(part, b, extrapolate=False))

    def warn(self, report: Report, made: Listened, real: Listened, embedder: Embedder) -> None:
        """What a reader must know, once."""
        if all(fact.silent for fact in made.facts):
            raise AudioLDMError(
                f"All {len(made.items)} generated clips are silent.", "Silence has no score.", code=1
            )
        report.census = {"generated": made.census(), "reference": real.census()}
        rows = sum(len(part) for part in made.rows)
        if rows < 2 * embedder.dim:
            told = f"{embedder.name}: {rows} rows for {embedder.dim} dimensions"
            report.warnings.append(
                f"{told}: FD is mostly bias, and FD_inf's line does not hold; read both beside the floor"
            )
        for name, count in report.census["generated"].items():
            if name in ("silent", "clipped", "duplicates") and count:
                report.warnings.append(f"{count} of {len(made.items)} generated clips: {name}")


def split_by_group(items: Sequence[Item]) -> list[int]:
    """Places in an order in which the first and the second half share no recording, as far as sizes allow."""
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(item.group or item.id, []).append(place)
    sides: tuple[list[int], list[int]] = ([], [])
    for members in sorted(groups.values(), key=len, reverse=True):
        min(sides, key=len).extend(members)
    half = min(map(len, sides))
    return [*sides[0][:half], *sides[1][:half]]


def texts(made: Listened, embedder: Embedder) -> tuple[Scores, Scores, dict[str, Tensor]]:
    """Caption scores, where there are captions and the embedder can tell."""
    captions = [item.caption for item in made.items]
    if not all(captions):
        return {}, {}, {}
    if hasattr(embedder, "read"):
        words = embedder.read(captions)
        table = words.double() @ unit(made.pooled).T
        return scores.of_texts(table, captions, "clap")
    if made.tags is not None and hasattr(embedder, "class_names"):
        return scores.of_texts(
            bridge_to(tuple(embedder.class_names)).scores(captions, made.tags), captions, "bridge"
        )
    return {}, {}, {}


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def note(report: Report, made: Listened, number: int, values: dict[str, Tensor]) -> None:
    """The clips' own values, for the CSV; a second embedder adds its columns."""
    known = {(row["set"], row["id"]): row for row in report.clips}
    for place, (item, fact) in enumerate(zip(made.items, made.facts, strict=True)):
        row = known.get((number + 1, item.id))
        if row is None:
            row = {
                "id": item.id, "set": number + 1, "caption": item.caption, "path": str(item.path),
                "seconds": round(fact.seconds, 3), "peak": round(fact.peak, 5), "rms_dbfs": round(fact.rms_dbfs, 2),
                "silent": fact.silent, "clipped": fact.clipped, "sha256": fact.sha256.split("/")[0],
            }  # fmt: skip
            report.clips.append(row)
        row |= {name: round(float(value[place]), 6) for name, value in values.items()}
