"""One comparison of n generated with m real sounds: every number, its rows, and what has to be said with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.evaluation.clips import RESAMPLER, Cache, Clip, ClipSet, Frame, embed_clips
from audioldm.evaluation.embedders import Embedder
from audioldm.evaluation.tag_bridge import TagBridge
from audioldm.metrics import agreement, divergence
from audioldm.metrics.coverage import coverage, mean_pairwise_cosine_distance
from audioldm.metrics.frechet import frechet_rows, infinity
from audioldm.metrics.interval import bootstrap_mean
from audioldm.metrics.kernel import kad

NEIGHBOURS = 5
SPLITS = 10
RECALL = 10
SUBSETS = 2000
"""clips that all subsets of one size hold together, so that a large set costs no more than a small one"""
FEWEST = 24  # clips from which a line in 1/n is drawn
SHORT = 0.5  # seconds below which embedders, which look at about a second, see mostly padding
ABOUT = {
    "FD": "Fréchet distance, lower is nearer; biased by n, compare at one n only",
    "FD_inf": "the same at 1/n = 0, both sets thinned without replacement",
    "KAD": "100 x unbiased Gaussian MMD², bandwidth = median distance within the reference",
    "KL": "KL(reference || generated) in nats, softmax of mean logits, no epsilon, mean over pairs",
    "KL_rev": "KL(generated || reference)",
    "IS": f"Inception score, {SPLITS} splits (fewer for small n); of multi-label tags: secondary",
    "precision": f"share of generated clips within a real clip's ball (k = {NEIGHBOURS})",
    "recall": "share of real clips within a generated clip's ball",
    "density": "how often real balls hold generated clips; may exceed 1",
    "coverage": "share of real balls that hold a generated clip",
    "diversity": "mean pairwise cosine distance within the set",
    "tag_top1": "share of pairs whose reference's first tag is the generated clip's first",
    "tag_top5": "... is among its first five",
    "bridge": "tag bridge: caption to class names by MiniLM, times tags",
    "clap": "mean cosine of caption and sound",
    f"bridge_R@{RECALL}": "share of captions that find their clip among the best ten",
    f"clap_R@{RECALL}": "the same by CLAP",
}


@dataclass(frozen=True)
class Score:
    """A number with an interval (means only), a standard error (extrapolations) or a deviation (seeds)."""

    value: float
    low: float | None = None
    high: float | None = None
    error: float | None = None
    r2: float | None = None
    points: tuple[tuple[int, float], ...] | None = None
    """(n, distance) of an extrapolation"""

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]"
        error = "" if self.error is None else f" ± {self.error:.2g}"
        return f"{self.value:.4g}{interval}{error}" + ("" if self.r2 is None else f" (R² {self.r2:.2f})")


bridge_to = lru_cache(maxsize=1)(TagBridge)
Scores = dict[str, Score]
ByClip = dict[str, Tensor]


def generator() -> torch.Generator:
    """A fresh one: every score draws from its own, so that leaving one out changes no other."""
    return torch.Generator().manual_seed(0)


def mean(values: Tensor) -> Score:
    return Score(float(values.double().mean()), *bootstrap_mean(values, generator=generator()))


def distances(generated: ClipSet, real: ClipSet, *, extrapolate: bool = True) -> Scores:
    """What needs no pairs; FD is over all rows: one a clip, or one a patch where the embedder says so."""
    x, y, fewest = generated.pooled, real.pooled, min(len(generated), len(real))
    scores = {"FD": Score(frechet_rows(torch.cat(generated.rows), torch.cat(real.rows)))}
    if extrapolate and fewest >= FEWEST:
        draws = max(1, min(16, SUBSETS // fewest))
        line = infinity(generated.rows, real.rows, generator=generator(), draws=draws)
        points = tuple(zip(line.counts, line.distances, strict=True))
        scores["FD_inf"] = Score(line.value, error=line.error, r2=line.r2, points=points)
    scores["KAD"] = Score(kad(x, y))
    if fewest > NEIGHBOURS:
        scores |= {name: Score(value) for name, value in coverage(x, y, k=NEIGHBOURS).items()}
    return scores | variety(generated)


def variety(clips: ClipSet) -> Scores:
    """What needs no reference."""
    scores = {"diversity": Score(mean_pairwise_cosine_distance(clips.pooled))}
    if clips.logits is not None:
        splits = max(1, min(SPLITS, len(clips) // 10))
        value, _ = divergence.inception_score(clips.logits, splits=splits, generator=generator())
        scores["IS"] = Score(value)
    return scores


def pair_scores(generated: ClipSet, real: ClipSet) -> tuple[Scores, ByClip]:
    """What needs a reference for every clip; with the values of each clip."""
    if generated.logits is None or real.logits is None:
        return {}, {}
    pair = generated.logits, real.logits
    kl, back = divergence.kl_of_logits(*pair[::-1]), divergence.kl_of_logits(*pair)
    tags = {f"tag_top{k}": Score(agreement.tag_accuracy(*pair, among=k)) for k in (1, 5)}
    return {"KL": mean(kl), "KL_rev": mean(back), **tags}, {"kl": kl, "kl_rev": back}


def text_scores(table: Tensor, captions: Sequence[str], name: str) -> tuple[Scores, Scores, ByClip]:
    """Text against sound, table (n, n): the scores, the shuffled captions' scores, the values of each clip."""
    if len(set(captions)) < 2:
        return {}, {}, {}
    right, wrong = agreement.matched_and_shuffled(table.double(), captions)
    scores = {name: mean(right)}
    if len(captions) > RECALL:
        scores[f"{name}_R@{RECALL}"] = Score(agreement.recall_at(table, captions, RECALL))
    return scores, {name: mean(wrong)}, {name: right, f"{name}_shuffled": wrong}


def caption_scores(clips: ClipSet, embedder: Embedder) -> tuple[Scores, Scores, ByClip]:
    """Scores against the captions, where there are captions and the embedder can compare."""
    captions = [clip.caption for clip in clips.clips]
    if all(captions) and hasattr(embedder, "embed_text"):
        table = embedder.embed_text(captions).double() @ nnf.normalize(clips.pooled, dim=1).T
        return text_scores(table, captions, "clap")
    if all(captions) and clips.tags is not None and hasattr(embedder, "class_names"):
        table = bridge_to(tuple(embedder.class_names)).scores(captions, clips.tags)
        return text_scores(table, captions, "bridge")
    return {}, {}, {}


def over_seeds(runs: Sequence[Scores]) -> Scores:
    """Mean and deviation (n - 1) of each score over runs with other seeds; one run stays as it is."""
    if len(runs) == 1:
        return dict(runs[0])
    out = Scores()
    for name in runs[0]:
        values = torch.tensor([run[name].value for run in runs if name in run], dtype=torch.float64)
        out[name] = Score(float(values.mean()), error=float(values.std()) if len(values) > 1 else None)
    return out


class Line(NamedTuple):
    """One row of the report: what was compared with the reference, how many clips, the scores."""

    name: str
    n: int
    scores: Scores


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
        """Ready for JSON; what is not known is absent, never -1."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self.lines}
        for name, row, n, scores in ((name, *line) for name, lines in self.lines.items() for line in lines):
            known = {k: {p: v for p, v in vars(s).items() if v is not None} for k, s in scores.items()}
            rows[name].append({"row": row, "n": n, **known})
        return {"about": self.about, "census": self.census, "warnings": self.warnings, "rows": rows}

    def note_clips(self, clips: ClipSet, run: int, values: ByClip) -> None:
        """The clips' single values; a second embedder adds its columns."""
        rows = {(row["set"], row["id"]): row for row in self.clips}
        for place, (clip, fact) in enumerate(zip(clips.clips, clips.facts, strict=True)):
            if (run, clip.id) not in rows:
                facts = {**vars(fact), "seconds": round(fact.seconds, 3), "sha256": fact.sha256.split("/")[0]}
                row = {"id": clip.id, "set": run, "caption": clip.caption, "path": str(clip.path), **facts}
                rows[run, clip.id] = row
                self.clips.append(row)
            rows[run, clip.id] |= {name: round(float(value[place]), 6) for name, value in values.items()}


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
        return embed_clips(clips, embedder, self.frame, cache=self.cache)

    def run(self, embedders: Sequence[Embedder], about: dict[str, Any]) -> Report:
        """All rows of all embedders.   AudioLDMError for a set that is all silent or all the same sound."""
        facts = ("name", "sha256", "dim", "rate", "front")
        nets = [{key: getattr(net, key) for key in facts} for net in embedders]
        report = Report({**about, "framing": str(self.frame), "resampler": RESAMPLER, "embedders": nets})
        if self.frame.seconds is not None and self.frame.seconds < SHORT:
            report.warnings.append(f"clips of {self.frame.seconds:g} s: embedders see mostly padding")
        for embedder in embedders:
            report.lines[embedder.name] = list(self.lines(embedder, report))
        report.about["cache"] = {"hits": self.cache.hits, "misses": self.cache.misses}
        report.about["scores"] = ABOUT
        return report

    def lines(self, embedder: Embedder, report: Report) -> Iterator[Line]:
        """The rows of one embedder."""
        real, sets = self.embed(self.real, embedder), [self.embed(clips, embedder) for clips in self.runs]
        for name, each in (("reference", real), *(("generated", each) for each in sets)):
            each.check(name)
        self.warn(report, sets[0], real, embedder)
        rights, wrongs, values = zip(*(self.scores(each, real, embedder) for each in sets), strict=True)
        n, numbers = len(sets[0]), range(1, len(sets) + 1)
        for number, each, by_clip in zip(numbers, sets, values, strict=True):
            report.note_clips(each, number, by_clip)
        yield Line("generated", n, over_seeds(rights))
        for number, right in zip(numbers, rights if len(sets) > 1 else (), strict=False):
            yield Line(f"generated, set {number}", n, right)
        if wrongs[0]:
            yield Line("generated, shuffled captions", n, over_seeds(wrongs))
        right, wrong, _ = caption_scores(real, embedder)
        yield Line("ground truth", len(real), variety(real) | right)
        if wrong:
            yield Line("ground truth, shuffled captions", len(real), wrong)
        yield from self.floor(sets[0], real, embedder)
        if self.trip:
            trip = self.embed(self.trip, embedder)
            yield Line("VAE round trip", len(trip), self.scores(trip, real, embedder)[0])

    def scores(self, generated: ClipSet, real: ClipSet, embedder: Embedder) -> tuple[Scores, Scores, ByClip]:
        """All scores of one set, those of shuffled captions, and the values of each clip."""
        right, wrong, values = caption_scores(generated, embedder)
        pairs, each = pair_scores(generated, real) if self.pairs else ({}, {})
        return distances(generated, real) | pairs | right, wrong, values | each

    def floor(self, generated: ClipSet, real: ClipSet, embedder: Embedder) -> Iterator[Line]:
        """What two real sets measure: other real clips at the same n, or else two halves with the generated beside."""
        if len(self.others) >= len(real):
            others = self.embed(self.others[: len(real)], embedder)
            yield Line("real/real floor", len(others), distances(others, real))
        elif len(real) >= 4:
            order = split_by_group(real.clips)
            half = len(order) // 2
            a, b = real.subset(order[:half]), real.subset(order[half:])
            yield Line("real/real floor, halves", half, distances(a, b, extrapolate=False))
            part = generated.subset(range(min(half, len(generated))))
            yield Line("generated, to one half", half, distances(part, b, extrapolate=False))

    def warn(self, report: Report, generated: ClipSet, real: ClipSet, embedder: Embedder) -> None:
        """What a reader must know, once."""
        rows = sum(map(len, generated.rows))
        same = {fact.sha256 for fact in generated.facts} & {fact.sha256 for fact in real.facts}
        few = f"{embedder.name}: {rows} rows for {embedder.dim} dimensions: FD is mostly bias, and FD_inf's line"
        notes = {f"{few} does not hold; read both beside the floor": rows < 2 * embedder.dim}
        notes |= {f"{len(same)} generated clips are reference clips": bool(same)}
        for name, clips in (("generated", generated), ("reference", real)):
            counts = report.census[name] = clips.census(self.frame)
            reasons = ("silent", "cut") if clips is real else ("silent", "clipped", "duplicates", "cut")
            notes |= {f"{counts[k]} of {counts['n']} {name} clips: {k}": counts[k] > 0 for k in reasons}
        report.warnings += [note for note, holds in notes.items() if holds and note not in report.warnings]


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
