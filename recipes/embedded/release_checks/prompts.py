"""Does a clip sound like its prompt?   Recognition of ESC-10's classes, and the tag bridge for any caption."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.datasets.manifest import Row
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.evaluation.generation import GeneratedClips
from audioldm.evaluation.recognition import PROMPTS, Esc10Classifier, recognise
from audioldm.evaluation.tag_bridge import TagBridge
from audioldm.metrics.agreement import matched_and_shuffled

from .check import Check
from .sounds import SEED, Tagged

SEEDS = 20
"""clips of each ESC-10 prompt"""
RESAMPLES = 2000


def recognition(rows: Sequence[Row], clips: GeneratedClips, yamnet: YamNet, *, seeds: int = SEEDS) -> Check:
    """Share of generated clips that the classifier of real sounds recognises, over the same of real fold 4."""
    rate = clips.pipe.spec.rate
    labelled = (
        (label, str(seed), resample(wave, rate, RATE))
        for label, prompt in PROMPTS.items()
        for seed, wave in enumerate(clips.waves([prompt] * seeds, range(seeds)))
    )
    report = recognise(Esc10Classifier.train(rows, yamnet), labelled)
    beside = {"real fold 4": report.classifier.real.fraction, "generated": report.generated.fraction}
    parts = ", ".join(f"{label} {hits}" for label, (hits, _) in report.generated.counts.items())
    return Check(
        "ESC-10 recognised, of real",
        value=report.ratio,
        limit=0.8,
        n=report.generated.total[1],
        rows=beside | {"chance": 0.1},
        detail=f"of {seeds}: {parts}",
        more=report.as_dict(),
    )


def tag_bridge(real: Tagged, generated: Tagged, captions: Sequence[str], bridge: TagBridge) -> Check:
    """How much of the way from wrong captions to real sound the generated clips go."""
    table = bridge.table(captions)
    scores, scores_real = table @ generated.largest.T, table @ real.largest.T
    right_real, wrong_real = matched_and_shuffled(scores_real, captions)
    right, wrong = matched_and_shuffled(scores, captions)

    def share(index: Tensor | slice = slice(None)) -> float:
        low = wrong[index].mean()
        return float((right[index].mean() - low) / (right_real[index].mean() - low))

    rng = torch.Generator().manual_seed(SEED)
    draws = [torch.randint(len(captions), (len(captions),), generator=rng) for _ in range(RESAMPLES)]
    ends = torch.tensor([0.025, 0.975])
    low, high = torch.tensor([share(index) for index in draws]).quantile(ends).tolist()
    gaps = torch.stack([(right_real - wrong_real)[index].mean() for index in draws]).quantile(ends.to(right))
    return Check(
        "tag bridge: way from shuffled to real",
        value=share(),
        limit=0.6,
        n=len(captions),
        rows={
            "real": float(right_real.mean()),
            "generated": float(right.mean()),
            "generated, shuffled captions": float(wrong.mean()),
            "real, shuffled captions": float(wrong_real.mean()),
            "own caption before a wrong one, real": float(before_wrong(scores_real, captions).mean()),
            "own caption before a wrong one, generated": float(before_wrong(scores, captions).mean()),
        },
        detail=f"95 % over clips {low:.2f} to {high:.2f}; of real's distance {gaps[0]:.3f} to {gaps[1]:.3f}",
        more={"captions": list(captions), "generated": right.tolist(), "real": right_real.tolist()},
    )


def before_wrong(scores: Tensor, keys: Sequence[Hashable]) -> Tensor:
    """The share of the texts with another key that score lower with a sound than its own caption, ties a half: (n,).

    It counts places, not amounts: a few sounds of very high scores weigh no more than the others.

    >>> before_wrong(torch.tensor([[1.0, 0.9], [0.4, 0.8]]), ["a", "b"]).tolist()
    [1.0, 0.0]
    """
    right, _ = matched_and_shuffled(scores, keys)
    other = torch.tensor([[a != b for b in keys] for a in keys])
    below = (scores < right).double() + 0.5 * (scores == right).double()
    return torch.where(other, below, 0.0).sum(dim=0) / other.sum(dim=0)
