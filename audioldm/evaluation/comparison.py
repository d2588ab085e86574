"""One comparison of generated with real sounds: its rows, and all that has to be said with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn import functional as nnf

from audioldm.evaluation import scores
from audioldm.evaluation.clip_set import RESAMPLER, Cache, ClipSet, Frame, embed_clips
from audioldm.evaluation.clips import Clip
from audioldm.evaluation.embedders import Embedder
from audioldm.evaluation.scores import Scores
from audioldm.evaluation.tag_bridge import bridge_to

SHORT = 0.5
"""seconds below which embedders, which look at about a second, see mostly padding"""


@dataclass(frozen=True)
class Line:
    """One row of the report: what was compared with the reference, how many clips, the scores."""

    name: str
    n: int
    scores: Scores

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; what is not known is absent, never -1."""
        values = {
            key: {part: value for part, value in vars(score).items() if value is not None}
            for key, score in self.scores.items()
        }
        return {"row": self.name, "n": self.n, **values}


@dataclass
class Report:
    """The result; ``about`` says under which conditions."""

    about: dict[str, Any]
    lines: dict[str, list[Line]] = field(default_factory=dict)
    """embedder's name -> rows"""
    clips: list[dict[str, Any]] = field(default_factory=list)
    """one a generated clip, for the CSV"""
    census: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        rows = {name: [line.as_dict() for line in lines] for name, lines in self.lines.items()}
        return {"about": self.about, "census": self.census, "warnings": self.warnings, "rows": rows}

    def note_clips(self, clips: ClipSet, run: int, values: dict[str, Tensor]) -> None:
        """The clips' single values; a second embedder adds its columns."""
        known = {(row["set"], row["id"]): row for row in self.clips}
        for place, (clip, fact) in enumerate(zip(clips.clips, clips.facts, strict=True)):
            row = known.get((run, clip.id))
            if row is None:
                row = {
                    "id": clip.id, "set": run, "caption": clip.caption, "path": str(clip.path),
                    "seconds": round(fact.seconds, 3), "peak": round(fact.peak, 5), "rms_dbfs": round(fact.rms_dbfs, 2),
                    "silent": fact.silent, "clipped": fact.clipped, "sha256": fact.sha256.split("/")[0],
                }  # fmt: skip
                self.clips.append(row)
            row |= {name: round(float(value[place]), 6) for name, value in values.items()}


@dataclass
class Comparison:
    """What is compared; ``runs`` are generated sets of the same ids, with other seeds, usually one.

    ``real`` is in the order of each of them where ``pairs``.   ``others`` are real clips besides the reference, for
    the real/real floor; ``trip`` the reference after the model's VAE and vocoder.
    """

    runs: Sequence[Sequence[Clip]]
    real: Sequence[Clip]
    frame: Frame
    pairs: bool = True
    others: Sequence[Clip] = ()
    trip: Sequence[Clip] = ()
    cache: Cache = field(default_factory=lambda: Cache(None))

    def embed(self, clips: Sequence[Clip], embedder: Embedder) -> ClipSet:
        """A set through an embedder."""
        return embed_clips(clips, embedder, self.frame, cache=self.cache)

    def run(self, embedders: Sequence[Embedder], about: dict[str, Any]) -> Report:
        """All rows of all embedders.   AudioLDMError for a set that is all silent or all the same sound."""
        report = Report(dict(about))
        report.about["framing"], report.about["resampler"] = str(self.frame), RESAMPLER
        report.about["embedders"] = [
            {"name": e.name, "sha256": e.sha256, "dim": e.dim, "rate": e.rate, "front": e.front}
            for e in embedders
        ]
        if self.frame.seconds is not None and self.frame.seconds < SHORT:
            report.warnings.append(f"clips of {self.frame.seconds:g} s: embedders see mostly padding")
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
        real = self.embed(self.real, embedder)
        real.check("reference")
        results, shuffled = [], []
        for number, clips in enumerate(self.runs, start=1):
            generated = self.embed(clips, embedder)
            generated.check("generated")
            if number == 1:
                first = generated
                self.warn(report, first, real, embedder)
            right, wrong, values = self.scores(generated, real, embedder)
            results.append(right)
            shuffled.append(wrong)
            report.note_clips(generated, number, values)
        yield Line("generated", len(first), scores.over_seeds(results))
        if len(results) > 1:
            for number, result in enumerate(results, start=1):
                yield Line(f"generated, set {number}", len(first), result)
        if shuffled[0]:
            yield Line("generated, shuffled captions", len(first), scores.over_seeds(shuffled))
        right, wrong, _ = caption_scores(real, embedder)
        yield Line("ground truth", len(real), scores.own_scores(real) | right)
        if wrong:
            yield Line("ground truth, shuffled captions", len(real), wrong)
        yield from self.floor(first, real, embedder)
        if self.trip:
            trip = self.embed(self.trip, embedder)
            yield Line("VAE round trip", len(trip), self.scores(trip, real, embedder)[0])

    def opinions(self, embedder: Embedder, columns: Sequence[str], report: Report) -> Iterator[Line]:
        """Rows of an embedder whose numbers are scores themselves: means of each set."""
        names = [*(f"generated, set {i + 1}" for i in range(len(self.runs))), "ground truth"]
        for number, (name, clips) in enumerate(zip(names, (*self.runs, self.real), strict=True), start=1):
            rated = self.embed(clips, embedder)
            values = dict(zip(columns, rated.pooled.T, strict=True))
            yield Line(name, len(rated), {key: scores.mean(part) for key, part in values.items()})
            if number <= len(self.runs):
                report.note_clips(rated, number, values)

    def scores(
        self, generated: ClipSet, real: ClipSet, embedder: Embedder
    ) -> tuple[Scores, Scores, dict[str, Tensor]]:
        """All scores of one set, those of shuffled captions, and the values of each clip."""
        result = scores.distances(generated, real)
        right, wrong, values = caption_scores(generated, embedder)
        if self.pairs:
            paired, each = scores.pair_scores(generated, real)
            result, values = result | paired, values | each
        return result | right, wrong, values

    def floor(self, generated: ClipSet, real: ClipSet, embedder: Embedder) -> Iterator[Line]:
        """What two real sets measure: other real clips at the same n, or else two halves with the generated beside."""
        if len(self.others) >= len(real):
            others = self.embed(list(self.others)[: len(real)], embedder)
            yield Line("real/real floor", len(others), scores.distances(others, real))
        elif len(real) >= 4:
            order = split_by_group(real.clips)
            half = len(order) // 2
            a, b = real.subset(order[:half]), real.subset(order[half : 2 * half])
            yield Line("real/real floor, halves", half, scores.distances(a, b, extrapolate=False))
            part = generated.subset(range(min(half, len(generated))))
            yield Line("generated, to one half", half, scores.distances(part, b, extrapolate=False))

    def warn(self, report: Report, generated: ClipSet, real: ClipSet, embedder: Embedder) -> None:
        """What a reader must know, once."""
        generated_counts, real_counts = generated.census(self.frame), real.census(self.frame)
        report.census = {"generated": generated_counts, "reference": real_counts}
        rows = sum(map(len, generated.rows))
        same = {fact.sha256 for fact in generated.facts} & {fact.sha256 for fact in real.facts}
        notes = {
            f"{embedder.name}: {rows} rows for {embedder.dim} dimensions: FD is mostly bias, and FD_inf's line "
            "does not hold; read both beside the floor": rows < 2 * embedder.dim,
            f"{len(same)} generated clips are reference clips": same,
        }
        for name, counts, reasons in (
            ("generated", generated_counts, ("silent", "clipped", "duplicates", "cut")),
            ("reference", real_counts, ("silent", "cut")),
        ):
            notes |= {f"{counts[key]} of {counts['n']} {name} clips: {key}": counts[key] for key in reasons}
        known = report.warnings
        report.warnings += [note for note, holds in notes.items() if holds and note not in known]


def split_by_group(clips: Sequence[Clip]) -> list[int]:
    """Places in an order in which the first and the second half share no recording, as far as sizes allow."""
    groups: dict[str, list[int]] = {}
    for place, clip in enumerate(clips):
        groups.setdefault(clip.group or clip.id, []).append(place)
    sides: tuple[list[int], list[int]] = ([], [])
    for members in sorted(groups.values(), key=len, reverse=True):
        min(sides, key=len).extend(members)
    half = min(map(len, sides))
    return [*sides[0][:half], *sides[1][:half]]


def caption_scores(clips: ClipSet, embedder: Embedder) -> tuple[Scores, Scores, dict[str, Tensor]]:
    """Scores against the captions, where there are captions and the embedder can compare."""
    captions = [clip.caption for clip in clips.clips]
    if not all(captions):
        return {}, {}, {}
    if hasattr(embedder, "embed_text"):
        table = embedder.embed_text(captions).double() @ nnf.normalize(clips.pooled, dim=1).T
        return scores.text_scores(table, captions, "clap")
    if clips.tags is not None and hasattr(embedder, "class_names"):
        table = bridge_to(tuple(embedder.class_names)).scores(captions, clips.tags)
        return scores.text_scores(table, captions, "bridge")
    return {}, {}, {}
