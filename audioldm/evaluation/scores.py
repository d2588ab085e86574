"""Every number of two sets of clips.   n generated, m reference clips; each with what to know about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audioldm.evaluation.clip_set import ClipSet
from audioldm.metrics import agreement, divergence
from audioldm.metrics.coverage import coverage, mean_pairwise_cosine_distance
from audioldm.metrics.frechet import frechet_rows, infinity
from audioldm.metrics.interval import bootstrap_mean
from audioldm.metrics.kernel import kad, kid

NEIGHBOURS = 5
SPLITS = 10
RECALL = 10
SUBSETS = 2000
"""clips that all subsets of one size hold together, so that a large set costs no more than a small one"""
FEWEST = 24
"""clips from which a line in 1/n is drawn"""


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
        text = f"{self.value:.4g}"
        if self.low is not None:
            text += f" [{self.low:.3g}, {self.high:.3g}]"
        if self.error is not None:
            text += f" ± {self.error:.2g}"
        return text + (f" (R² {self.r2:.2f})" if self.r2 is not None else "")


Scores = dict[str, Score]
ABOUT: dict[str, str] = {
    "FD": "Fréchet distance, lower is nearer; biased by n, compare at one n only",
    "FD_inf": "the same at 1/n = 0, both sets thinned without replacement",
    "KAD": "100 x unbiased Gaussian MMD², bandwidth = median distance within the reference",
    "KID": "unbiased cubic MMD², x 100",
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
    "DNSMOS_SIG": "opinion score of speech, 1 to 5, by a network; for speech only (BAK background, OVR overall)",
    f"bridge_R@{RECALL}": "share of captions that find their clip among the best ten",
    f"clap_R@{RECALL}": "the same by CLAP",
}


def generator() -> torch.Generator:
    """A fresh one: every score draws from its own, so that leaving one out changes no other."""
    return torch.Generator().manual_seed(0)


def mean(values: Tensor) -> Score:
    """A mean with its bootstrap interval over clips."""
    low, high = bootstrap_mean(values, generator=generator())
    return Score(float(values.double().mean()), low, high)


def at_infinity(generated: ClipSet, real: ClipSet) -> Score | None:
    """Clips are drawn, and all their rows with them, more often where they are few; None for very few."""
    fewest = min(len(generated), len(real))
    if fewest < FEWEST:
        return None

    def distance(a: Tensor, b: Tensor) -> float:
        parts = ([side.rows[int(i)] for i in index[:, 0]] for side, index in ((generated, a), (real, b)))
        return frechet_rows(*(torch.cat(part) for part in parts))

    a, b = (torch.arange(len(side))[:, None] for side in (generated, real))
    draws = max(1, min(16, SUBSETS // fewest))
    line = infinity(a, b, distance, generator=generator(), draws=draws)
    points = tuple(zip(line.counts, line.distances, strict=True))
    return Score(line.value, error=line.error, r2=line.r2, points=points)


def distances(generated: ClipSet, real: ClipSet, *, extrapolate: bool = True) -> Scores:
    """What needs no pairs; FD is over all rows: one a clip, or one a patch where the embedder says so."""
    scores = {"FD": Score(frechet_rows(torch.cat(generated.rows), torch.cat(real.rows)))}
    if extrapolate and (limit := at_infinity(generated, real)):
        scores["FD_inf"] = limit
    x, y = generated.pooled, real.pooled
    scores["KAD"] = Score(kad(x, y))
    cubic, deviation = kid(x, y, generator=generator())
    scores["KID"] = Score(100 * cubic, error=100 * deviation if deviation else None)
    if min(len(x), len(y)) > NEIGHBOURS:
        scores |= {name: Score(value) for name, value in vars(coverage(x, y, k=NEIGHBOURS)).items()}
    return scores | own_scores(generated)


def own_scores(clips: ClipSet) -> Scores:
    """What needs no reference."""
    scores = {"diversity": Score(mean_pairwise_cosine_distance(clips.pooled))}
    if clips.logits is not None:
        splits = max(1, min(SPLITS, len(clips) // 10))
        scores["IS"] = Score(
            divergence.inception_score(clips.logits, splits=splits, generator=generator())[0]
        )
    return scores


def pair_scores(generated: ClipSet, real: ClipSet) -> tuple[Scores, dict[str, Tensor]]:
    """What needs a reference for every clip; with the values of each clip."""
    if generated.logits is None or real.logits is None:
        return {}, {}
    kl = divergence.kl_of_logits(real.logits, generated.logits)
    back = divergence.kl_of_logits(generated.logits, real.logits)
    tags = {
        f"tag_top{k}": Score(agreement.tag_accuracy(generated.logits, real.logits, among=k)) for k in (1, 5)
    }
    return {"KL": mean(kl), "KL_rev": mean(back), **tags}, {"kl": kl, "kl_rev": back}


def text_scores(
    table: Tensor, captions: Sequence[str], name: str
) -> tuple[Scores, Scores, dict[str, Tensor]]:
    """Text against sound, table (n, n): the scores, the shuffled captions' scores, the values of each clip."""
    if len(set(captions)) < 2:
        return {}, {}, {}
    right, wrong = agreement.matched_and_shuffled(table.double(), captions)
    scores = {name: mean(right)}
    if len(captions) > RECALL:
        scores[f"{name}_R@{RECALL}"] = Score(agreement.recall_at(table, captions, RECALL))
    return scores, {name: mean(wrong)}, {name: right, f"{name}_shuffled": wrong}


def over_seeds(runs: Sequence[Scores]) -> Scores:
    """Mean and deviation (n - 1) of each score over runs with other seeds; one run stays as it is."""
    if len(runs) == 1:
        return dict(runs[0])
    scores = {}
    for name in runs[0]:
        values = torch.tensor([run[name].value for run in runs if name in run], dtype=torch.float64)
        scores[name] = Score(float(values.mean()), error=float(values.std()) if len(values) > 1 else None)
    return scores
