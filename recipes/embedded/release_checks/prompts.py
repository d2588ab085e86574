"""Does a clip sound like its prompt?   Recognition of ESC-10's classes, and the tag bridge for any caption."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.evaluation.embedders.yamnet import RATE
from audioldm.evaluation.generation import GeneratedClips
from audioldm.evaluation.prompts import Result, share
from audioldm.evaluation.tag_bridge import TagBridge
from audioldm.metrics.pairs import matched_and_shuffled
from recipes.embedded.esc10 import PROMPTS, Esc10Classifier, Tally, recognise

from .check import Check
from .sounds import SEED, Tagged

SEEDS = 20
"""clips of each ESC-10 prompt"""
OTHER_SEEDS = 8
"""clips of each wording, and of each open prompt"""
RESAMPLES = 2000
SILENT_RMS = 1e-3
FULL_SCALE = 32767 / 32768
WORDINGS = {
    "dog bark": ("a hound woofing", "a small puppy yelping angrily"),
    "rain": ("raindrops pattering on the ground", "a steady drizzle outside"),
    "sea waves": ("surf breaking on a beach", "the ocean washing ashore"),
    "baby cry": ("an infant screaming", "a newborn bawling in a cot"),
    "clock tick": ("the tick-tock of an old clock", "the second hand of a watch"),
    "person sneeze": ("someone going achoo", "a loud sneeze by a man with a cold"),
    "helicopter": ("a chopper hovering", "spinning rotor blades of an aircraft"),
    "chainsaw": ("cutting down a tree with a power saw", "a lumberjack sawing with a motor saw"),
    "rooster": ("a cockerel calls at daybreak", "a male chicken greeting the morning"),
    "fire crackling": ("logs burning in a campfire", "flames crackle in the hearth"),
}
"""Each of ESC-10's classes in two other wordings, which no training text has."""


def recognition(
    classifier: Esc10Classifier,
    clips: GeneratedClips,
    trip: Tally,
    *,
    wordings: Mapping[str, Sequence[str]] | None = None,
    seeds: int = SEEDS,
) -> Check:
    """Share of generated clips that the classifier of real sounds recognises, over the same of real fold 4.

    ``wordings`` ask for each class in other words than those that were trained; ``trip``: fold 4 after the codec.
    """
    rate, asked = clips.pipe.spec.rate, wordings or {label: [prompt] for label, prompt in PROMPTS.items()}
    labelled = (
        (label, f"{prompt}, {seed}", resample(wave, rate, RATE))
        for label, prompts in asked.items()
        for prompt in prompts
        for seed, wave in enumerate(clips.waves([prompt] * seeds, range(seeds)))
    )
    report = recognise(classifier, labelled)
    beside = {"generated": report.generated.fraction, "real fold 4": report.classifier.real.fraction}
    parts = ", ".join(f"{label} {hits}" for label, (hits, _) in report.generated.counts.items())
    return Check(
        "ESC-10 in other words recognised, of real" if wordings else "ESC-10 recognised, of real",
        value=report.ratio,
        limit=0.9 if wordings else 0.95,
        n=report.generated.total[1],
        rows=beside | {"codec on fold 4": trip.fraction, "chance": 0.1},
        detail=f"of {seeds * len(next(iter(asked.values())))}: {parts}",
        more=report.as_dict() | {"wordings": {label: list(texts) for label, texts in asked.items()}},
    )


def open_prompts(results: Sequence[Result], real: Result, trip: Result) -> Check:
    """Share of clips of any prompts that are right; beside it real clips of known kinds, and those after the codec."""
    total, shares = share(results), [share([part])["share"] for part in (real, trip)]
    low, high = total["interval95"] or (0.0, 1.0)
    failing = [result.name for result in results if not any(clip["right"] for clip in result.clips)]
    return Check(
        "open prompts, right clips",
        value=total["share"],
        limit=0.5,
        n=total["n"],
        rows={
            f"real clips, n {len(real.clips)}": shares[0],
            f"right ones after the codec, n {len(trip.clips)}": shares[1],
        },
        detail=f"95 % {low:.2f} to {high:.2f}; {len(failing)} of {len(results)} prompts never right",
        more={"prompts": [result.as_dict() for result in [*results, real, trip]]},
    )


def level(generated: Sequence[Tensor], real: Sequence[Tensor], trip: Sequence[Tensor]) -> list[Check]:
    """Silent clips, and clips with a sample at full scale, as their files have them; none may be."""

    def share_of(waves: Sequence[Tensor], bad: Callable[[Tensor], bool]) -> float:
        return sum(map(bad, waves)) / len(waves)

    def silent(wave: Tensor) -> bool:
        return float(wave.square().mean().sqrt()) < SILENT_RMS

    def full(wave: Tensor) -> bool:
        return float(wave.abs().max()) >= FULL_SCALE

    return [
        Check(
            name,
            value=share_of(generated, bad),
            limit=0.0,
            least=False,
            n=len(generated),
            rows={"real": share_of(real, bad), "codec on them": share_of(trip, bad)},
        )
        for name, bad in (("silent clips", silent), ("clips at full scale", full))
    ]


def tag_bridge(
    real: Tagged, generated: Tagged, trip: Tagged, captions: Sequence[str], bridge: TagBridge
) -> Check:
    """How much of the way from wrong captions to real sound the generated clips go."""
    table = bridge.table(captions)
    scores, scores_real, scores_trip = (table @ side.largest.T for side in (generated, real, trip))
    right_trip, _ = matched_and_shuffled(scores_trip, captions)
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
            "codec on the real clips": float(right_trip.mean()),
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
