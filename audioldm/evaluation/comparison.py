"""One comparison of n generated with m real sounds: every number, its rows, and what has to be said with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.errors import AudioLDMError
from audioldm.evaluation.clips import RESAMPLER, Cache, Clip, ClipSet, Frame, embed_clips
from audioldm.evaluation.embedders import Embedder
from audioldm.evaluation.tag_bridge import TagBridge
from audioldm.metrics import pairs
from audioldm.metrics.distances import coverage, frechet_rows, infinity, kad, mean_pairwise_cosine_distance
from audioldm.metrics.interval import bootstrap_mean

NEIGHBOURS, SPLITS, RECALL = 5, 10, 10
# clips in all subsets of one size together, so that a large set costs no more than a small one
SUBSETS = 2000
FEWEST = 24  # clips from which a line in 1/n is drawn
SHORT = 0.5  # seconds below which embedders, which look at about a second, see mostly padding


class Score(dict[str, Any]):
    """A value, with an interval (low, high) of a mean, a standard error of an extrapolation with its r2 and points
    (n, distance), or a deviation over seeds as its error; what is not known is absent.
    """

    @property
    def value(self) -> float:
        return float(self["value"])

    def __str__(self) -> str:
        forms = dict(value="{:.4g}", low=" [{:.3g},", high=" {:.3g}]", error=" ± {:.2g}", r2=" (R² {:.2f})")
        return "".join(form.format(self[name]) for name, form in forms.items() if name in self)


bridge_to = lru_cache(maxsize=1)(TagBridge)
Scores = dict[str, Score]
ByClip = dict[str, Tensor]


def generator() -> torch.Generator:
    """A fresh one: every score draws from its own, so that leaving one out changes no other."""
    return torch.Generator().manual_seed(0)


def mean(values: Tensor) -> Score:
    low, high = bootstrap_mean(values, generator=generator())
    return Score(value=float(values.double().mean()), low=low, high=high)


def distances(generated: ClipSet, real: ClipSet, *, extrapolate: bool = True) -> Scores:
    """What needs no pairs; FD is over all rows: one a clip, or one a patch where the embedder says so."""
    x, y, fewest = generated.pooled, real.pooled, min(len(generated), len(real))
    scores = {"FD": Score(value=frechet_rows(torch.cat(generated.rows), torch.cat(real.rows)))}
    if extrapolate and fewest >= FEWEST:
        draws = max(1, min(16, SUBSETS // fewest))
        line = infinity(generated.rows, real.rows, generator=generator(), draws=draws)
        points = tuple(zip(line.counts, line.distances, strict=True))
        scores["FD_inf"] = Score(value=line.value, error=line.error, r2=line.r2, points=points)
    scores["KAD"] = Score(value=kad(x, y))
    if fewest > NEIGHBOURS:
        scores |= {name: Score(value=value) for name, value in coverage(x, y, k=NEIGHBOURS).items()}
    return scores | variety(generated)


def variety(clips: ClipSet) -> Scores:
    """What needs no reference."""
    scores = {"diversity": Score(value=mean_pairwise_cosine_distance(clips.pooled))}
    if clips.logits is not None:
        splits = max(1, min(SPLITS, len(clips) // 10))
        value, _ = pairs.inception_score(clips.logits, splits=splits, generator=generator())
        scores["IS"] = Score(value=value)
    return scores


def pair_scores(generated: ClipSet, real: ClipSet) -> tuple[Scores, ByClip]:
    """What needs a reference for every clip; with the values of each clip."""
    if generated.logits is None or real.logits is None:
        return {}, {}
    pair = generated.logits, real.logits
    kl, back = pairs.kl_of_logits(*pair[::-1]), pairs.kl_of_logits(*pair)
    tags = {f"tag_top{k}": Score(value=pairs.tag_accuracy(*pair, among=k)) for k in (1, 5)}
    return {"KL": mean(kl), "KL_rev": mean(back), **tags}, {"kl": kl, "kl_rev": back}


def caption_scores(clips: ClipSet, embedder: Embedder) -> tuple[Scores, Scores, ByClip]:
    """Sounds against captions, against shuffled captions, and each clip's values, if the embedder can compare them."""
    captions = [clip.caption for clip in clips.clips]
    if not all(captions) or len(set(captions)) < 2:
        return {}, {}, {}
    if hasattr(embedder, "embed_text"):
        name, table = "clap", embedder.embed_text(captions).double() @ nnf.normalize(clips.pooled, dim=1).T
    elif clips.tags is not None and hasattr(embedder, "class_names"):
        name, table = "bridge", bridge_to(tuple(embedder.class_names)).scores(captions, clips.tags)
    else:
        return {}, {}, {}
    right, wrong = pairs.matched_and_shuffled(table.double(), captions)
    scores = {name: mean(right)}
    if len(captions) > RECALL:
        scores[f"{name}_R@{RECALL}"] = Score(value=pairs.recall_at(table, captions, RECALL))
    return scores, {name: mean(wrong)}, {name: right, f"{name}_shuffled": wrong}


def over_seeds(runs: Sequence[Scores]) -> Scores:
    """Mean and deviation (n - 1) of each score over runs with other seeds; one run stays as it is."""
    if len(runs) == 1:
        return runs[0]
    values = {name: torch.tensor([run[name].value for run in runs]).double() for name in runs[0]}
    return {name: Score(value=float(each.mean()), error=float(each.std())) for name, each in values.items()}


@dataclass
class Comparison:
    """What is compared, and the result; ``runs`` are generated sets of the same ids, with other seeds, usually one.

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
    about: dict[str, Any] = field(default_factory=dict)  # the conditions
    census: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """embedder's name -> what was compared (row), how many clips (n), and the scores by name"""
    clips: list[dict[str, Any]] = field(default_factory=list)  # one a generated clip, for the CSV

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the single clips."""
        return {name: getattr(self, name) for name in ("about", "census", "warnings", "rows")}

    def run(self, embedders: Sequence[Embedder], about: dict[str, Any]) -> "Comparison":
        """All rows of all embedders.   AudioLDMError for a set that is all silent or all the same sound."""
        facts = ("name", "sha256", "dim", "rate", "front")
        nets = [{key: getattr(net, key) for key in facts} for net in embedders]
        self.about = {**about, "framing": str(self.frame), "resampler": RESAMPLER, "embedders": nets}
        if self.frame.seconds is not None and self.frame.seconds < SHORT:
            self.warnings.append(f"clips of {self.frame.seconds:g} s: embedders see mostly padding")
        for embedder in embedders:
            lines = [{"row": name, "n": n, **scores} for name, n, scores in self.lines(embedder) if scores]
            self.rows[embedder.name] = lines
        self.about["cache"] = {"hits": self.cache.hits, "misses": self.cache.misses}
        return self

    def lines(self, embedder: Embedder) -> Iterator[tuple[str, int, Scores]]:
        """The rows of one embedder: what was compared with the reference, how many clips, the scores, if any."""
        embed = partial(embed_clips, embedder=embedder, frame=self.frame, cache=self.cache)
        real, sets = embed(self.real), [embed(clips) for clips in self.runs]
        scores = partial(self.scores, real=real, embedder=embedder)
        check("reference", real)
        check("generated", *sets)
        self.warn(sets[0], real, embedder)
        rights, wrongs, values = zip(*map(scores, sets), strict=True)
        n = len(sets[0])
        for number, (clips, by_clip) in enumerate(zip(sets, values, strict=True), 1):
            self.note_clips(clips, number, by_clip)
        yield "generated", n, over_seeds(rights)
        if len(sets) > 1:
            yield from ((f"generated, set {number}", n, each) for number, each in enumerate(rights, 1))
        yield "generated, shuffled captions", n, over_seeds(wrongs)
        right, wrong, _ = caption_scores(real, embedder)
        yield "ground truth", len(real), variety(real) | right
        yield "ground truth, shuffled captions", len(real), wrong
        if len(self.others) >= len(real):
            yield "real/real floor", len(real), distances(embed(self.others[: len(real)]), real)
        elif len(real) >= 4:
            yield from halves(sets[0], real)
        if self.trip:
            yield "VAE round trip", len(self.trip), scores(embed(self.trip))[0]

    def scores(self, clips: ClipSet, real: ClipSet, embedder: Embedder) -> tuple[Scores, Scores, ByClip]:
        right, wrong, values = caption_scores(clips, embedder)
        scores, each = pair_scores(clips, real) if self.pairs else ({}, {})
        return distances(clips, real) | scores | right, wrong, values | each

    def note_clips(self, clips: ClipSet, run: int, values: ByClip) -> None:
        """The clips' single values; a second embedder adds its columns."""
        rows = [row for row in self.clips if row["set"] == run]
        if not rows:
            for clip, fact in zip(clips.clips, clips.facts, strict=True):
                row = {"id": clip.id, "set": run, "caption": clip.caption, "path": str(clip.path)}
                facts = {"seconds": round(fact["seconds"], 3), "sha256": fact["sha256"].split("/")[0]}
                rows.append({**row, **fact, **facts})
            self.clips += rows
        for place, row in enumerate(rows):
            row |= {name: round(float(value[place]), 6) for name, value in values.items()}

    def warn(self, generated: ClipSet, real: ClipSet, embedder: Embedder) -> None:
        """What a reader must know, once."""
        rows = sum(map(len, generated.rows))
        same = {fact["sha256"] for fact in generated.facts} & {fact["sha256"] for fact in real.facts}
        few = f"{embedder.name}: {rows} rows for {embedder.dim} dimensions: FD is mostly bias, and FD_inf's line"
        notes = {f"{few} does not hold; read both beside the floor": rows < 2 * embedder.dim}
        notes |= {f"{len(same)} generated clips are reference clips": bool(same)}
        for name, clips in (("generated", generated), ("reference", real)):
            counts = self.census[name] = clips.census(self.frame)
            reasons = ("silent", "cut") if clips is real else ("silent", "clipped", "duplicates", "cut")
            notes |= {f"{counts[k]} of {counts['n']} {name} clips: {k}": counts[k] > 0 for k in reasons}
        self.warnings += [note for note, holds in notes.items() if holds and note not in self.warnings]


def check(name: str, *sets: ClipSet) -> None:
    for clips in sets:
        if all(fact["silent"] for fact in clips.facts):
            raise AudioLDMError(f"All {len(clips)} {name} clips are silent.", "Silence has no score.", code=1)
        if bool((clips.pooled == clips.pooled[0]).all()):
            hint = "A distance needs different ones."
            raise AudioLDMError(f"All {len(clips)} {name} clips are the same sound.", hint, code=1)


def halves(generated: ClipSet, real: ClipSet) -> Iterator[tuple[str, int, Scores]]:
    """What two halves of the reference measure, and the generated set beside one."""
    order = split_by_group(real.clips)
    half = len(order) // 2
    a, b = real.subset(order[:half]), real.subset(order[half:])
    yield "real/real floor, halves", half, distances(a, b, extrapolate=False)
    part = generated.subset(range(min(half, len(generated))))
    yield "generated, to one half", half, distances(part, b, extrapolate=False)


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
