"""Is what was asked for heard?   Recognition of ESC-10's classes, and the tag bridge for any caption."""

from collections.abc import Sequence

import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.datasets.manifest import Row
from audioldm.evaluation.bars.bar import Bar
from audioldm.evaluation.bars.sounds import SEED, Crowd
from audioldm.evaluation.clips import Clips
from audioldm.evaluation.recognition import Report, esc10_recognition
from audioldm.evaluation.tagbridge import TagBridge
from audioldm.evaluation.yamnet import RATE, YamNet
from audioldm.metrics.agreement import before_wrong, matched_and_shuffled

SEEDS = 20
"""clips of each ESC-10 prompt"""
RESAMPLES = 2000


def recognition(rows: Sequence[Row], clips: Clips, yamnet: YamNet, *, seeds: int = SEEDS) -> Bar:
    """Share of generated clips that the classifier of real sounds recognises, over the same of real fold 4."""

    def generate(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        return torch.stack([resample(wave, clips.pipe.spec.rate, RATE) for wave in clips.ask(prompts, seeds)])

    report: Report = esc10_recognition(rows, yamnet, generate=generate, seeds=range(seeds))
    beside = {"real fold 4": report.listener.real.fraction, "generated": report.generated.fraction}
    parts = ", ".join(f"{label} {hits}" for label, (hits, _) in report.generated.counts.items())
    return Bar(
        "ESC-10 recognised, of real",
        value=report.ratio,
        limit=0.8,
        n=report.generated.total[1],
        rows=beside | {"chance": 0.1},
        detail=f"of {seeds}: {parts}",
        more=report.as_dict(),
    )


def tag_bridge(real: Crowd, made: Crowd, captions: Sequence[str], bridge: TagBridge) -> Bar:
    """How much of the way from wrong captions to real sound the generated clips go."""
    table = bridge.table(captions)
    scores, scores_real = table @ made.largest.T, table @ real.largest.T
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
    return Bar(
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
