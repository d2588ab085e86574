"""A sound as a prompt: mixed into the words' vector, or attended to beside them (IP-Adapter)?

    python -m benchmarks.like data/raw/esc10.jsonl --net runs/control/ip_adapter/model/control

Each held-out clip is the sound to be like, another class's prompt the words, the same noise in every row.   To sound:
the cosine of YAMNet's and of the model's own CLAP's embedding to the clip's.   To words: CLAP's to the prompt's.
Nearer: in how many of the clips it is nearer to the sound than the words alone made it, by YAMNet and by CLAP.   Writes
benchmarks/results/like.{json,md}.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.batch import Condition
from audioldm.control.shipped import LIKE, SHIPPED
from audioldm.control.steer import AudioPromptControl, load_net
from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.manifest import read
from audioldm.evaluation.yamnet import YamNet
from audioldm.nets.folder import weight_file
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.conditions import between, clap_of
from audioldm.signal.level import normalise_peak
from benchmarks.control import RESULTS, asked

COLUMNS = {"yamnet": "YAMNet to sound", "clap": "CLAP to sound", "words": "CLAP to words"}
JUDGES = ("yamnet", "clap")
Way = Callable[[AudioLDM, str, Tensor], tuple[AudioLDM, Condition]]
"""from the words and the sound's vector (1, D) to a pipeline and what it is told"""


def mixed(share: float) -> Way:
    """The vector ``share`` of the way from the words to the sound."""
    return lambda pipe, prompt, vector: (pipe, between(pipe, pipe.encode_text([prompt]), vector, share))


def attended(net: Any, scale: float) -> Way:
    """The words alone as the vector, the sound through the net."""

    def way(pipe: AudioLDM, prompt: str, vector: Tensor) -> tuple[AudioLDM, Condition]:
        return replace(pipe, controls=(AudioPromptControl(net, vector, scale),)), pipe.encode_text([prompt])

    return way


def summary(found: list[dict[str, float]], plain: list[dict[str, float]]) -> dict[str, Any]:
    """Means over the clips, and how many of them came nearer to their sound than ``plain``'s.

    >>> row = {"yamnet": 0.5, "clap": 0.25, "words": 0.5}
    >>> summary([row, row], [row, row | {"yamnet": 0.25}])["nearer"]
    {'yamnet': 1, 'clap': 0}
    """
    means = {key: sum(one[key] for one in found) / len(found) for key in COLUMNS}
    pairs = list(zip(found, plain, strict=True))
    return means | {"nearer": {judge: sum(a[judge] > b[judge] for a, b in pairs) for judge in JUDGES}}


def table(report: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"# A sound as a prompt beside words, {report['model']}\n",
        f"{report['clips']} held-out clips are the sound, another class's prompt the words; {report['seconds']:g} s, "
        f"{report['steps']} steps; the net has {report['parameters'] / 1e6:.2f} M parameters, "
        f"{report['megabytes']:.2f} MB. benchmarks/like.py says what the columns are.\n",
        f"| | {' | '.join(COLUMNS.values())} | nearer, YAMNet; CLAP |",
        f"|---|{'--:|' * (len(COLUMNS) + 1)}",
    ]
    for name, row in report["rows"].items():
        won = "; ".join(f"{row['nearer'][judge]} of {report['clips']}" for judge in JUDGES)
        lines.append(f"| {name} | {' | '.join(f'{row[key]:.2f}' for key in COLUMNS)} | {won} |")
    return "\n".join(lines) + "\n"


@torch.no_grad()
def main() -> None:
    """Words alone, mixed, attended to, the sound alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest")
    parser.add_argument("--net", type=Path, default=SHIPPED / LIKE)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.56)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    pipe, yamnet, net = AudioLDM.from_pretrained(), YamNet(), load_net(given.net)
    ways = {
        "words alone": mixed(0.0),
        **{f"mixed {share:g}": mixed(share) for share in (0.3, 0.6)},
        **{f"attended {scale:g}": attended(net, scale) for scale in (0.3, 0.6, 1.0)},
        "sound alone": mixed(1.0),
    }

    def heard(wave: Tensor) -> Tensor:
        return nnf.normalize(yamnet.pooled(normalise_peak(wave[None])[0]), dim=-1)

    rows = read(given.manifest, split="test")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    settings = {**vars(pipe.defaults), "seconds": given.seconds, "steps": given.steps}
    for i, (row, prompt) in enumerate(asked(rows, given.clips, notes=False)):
        wave = normalise_peak(AudioText([row], pipe.spec, given.seconds, seed=i)[0][0])[0]
        vector, words = clap_of(pipe, wave[None]), pipe.clap.embed_text([prompt])
        for name, way in ways.items():
            steered, told = way(pipe, prompt, vector)
            made = steered([told], seeds=[i], **{k: settings[k] for k in ("seconds", "steps")})
            own = clap_of(pipe, made)
            found[name].append(
                {
                    "yamnet": float(heard(made[0]) @ heard(wave)),
                    "clap": float((own * vector).sum()),
                    "words": float((own * words).sum()),
                }
            )
    report = {
        "model": pipe.name,
        "parameters": sum(p.numel() for p in net.parameters()),
        "megabytes": weight_file(given.net).stat().st_size / 1e6,
        **{k: getattr(given, k) for k in ("clips", "seconds", "steps")},
        "rows": {name: summary(rows, found["words alone"]) for name, rows in found.items()},
    }
    (given.out / "like.json").write_text(json.dumps(report, indent=1) + "\n")
    (given.out / "like.md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
