"""Classifier guidance beside classifier-free guidance: who is heard as asked for, on the same seeds?

    python -m benchmarks.class_guidance --manifest data/raw/esc10.jsonl \
        --classifier runs/embedded/classifier/model/classifier --seeds 4

The judge is that of `audioldm evaluate esc10` (linear, on YAMNet), which has nothing in common with the classifier that
guides.   Writes benchmarks/results/class_guidance.{json,md}.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from audioldm.datasets.manifest import read
from audioldm.evaluation.recognition import PROMPTS, Listener, Tally, wilson
from audioldm.evaluation.yamnet import YamNet
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import GuidanceConfig, TargetClass

RESULTS = Path(__file__).parent / "results"
CASES: dict[str, dict[str, Any]] = {
    "no prompt, no guidance": {"prompted": False, "guidance": 1.0},
    "no prompt, classifier 5": {"prompted": False, "guidance": 1.0, "scale": 5.0},
    "prompt, no guidance": {"prompted": True, "guidance": 1.0},
    "prompt, classifier 5": {"prompted": True, "guidance": 1.0, "scale": 5.0},
    "prompt, CFG 5": {"prompted": True, "guidance": 5.0},
    "prompt, CFG 2.5 and classifier 5": {"prompted": True, "guidance": 2.5, "scale": 5.0},
}


def heard(
    pipe: AudioLDM, listener: Listener, place: Path, case: dict[str, Any], seeds: Sequence[int]
) -> tuple[Tally, float]:
    """What the judge hears in a case, and the mean distance in YAMNet's space between clips of one class."""
    wanted, found, spread = [], [], []
    for label, prompt in PROMPTS.items():
        guide = None
        if "scale" in case:
            guide = GuidanceConfig(classifier=TargetClass.load(place, label), classifier_scale=case["scale"])
        words = [prompt if case["prompted"] else ""] * len(seeds)
        waves = pipe(words, seeds=seeds, guidance=case["guidance"], guidance_config=guide).clamp(-1, 1)
        wanted += [label] * len(seeds)
        found += [listener.hear(wave) for wave in waves]
        points = torch.nn.functional.normalize(
            torch.stack([listener.yamnet.pooled(wave) for wave in waves]), dim=-1
        )
        if len(seeds) > 1:
            same = points @ points.T
            spread.append(1 - float((same.sum() - len(seeds)) / (len(seeds) * (len(seeds) - 1))))
    return Tally.of(wanted, found), sum(spread) / max(1, len(spread))


def table(report: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"# Classifier guidance and classifier-free guidance, {report['model']}\n",
        f"{report['seeds']} seeds x {len(PROMPTS)} classes a row, the same noise in every row; "
        f"{report['settings']['steps']} steps; real fold 4: {report['real']:.2f}.",
        "Diversity: mean cosine distance between clips of one class in YAMNet's space.\n",
        "| | heard as asked | 95 % | diversity |",
        "|---|--:|---|--:|",
    ]
    for name, row in report["cases"].items():
        low, high = row["interval95"]
        lines.append(f"| {name} | {row['fraction']:.2f} | {low:.2f} to {high:.2f} | {row['diversity']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Every case, one after the other; what is done is on the disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, help="the model's own where it is not given")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    listener = Listener.train(read(given.manifest), YamNet())
    pipe = AudioLDM.from_pretrained(given.model)
    pipe = replace(pipe, defaults=pipe.defaults.merged(steps=given.steps))
    report: dict[str, Any] = {"model": pipe.name, "unet": pipe.hashes.get("unet"), "seeds": given.seeds}
    report |= {"settings": vars(pipe.defaults), "real": listener.real.fraction, "cases": {}}
    for name, case in CASES.items():
        start = time.perf_counter()
        tally, diversity = heard(pipe, listener, given.classifier, case, range(given.seeds))
        report["cases"][name] = {
            **case,
            "fraction": tally.fraction,
            "interval95": wilson(*tally.total),
            "diversity": diversity,
            "per_class": tally.as_dict()["per_class"],
            "seconds": round(time.perf_counter() - start, 1),
        }
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "class_guidance.json").write_text(json.dumps(report, indent=1))
        (given.out / "class_guidance.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
