"""What a faster mode costs in quality: FD and CLAP score of every mode, on the same prompts, seeds and settings.

    python -m benchmarks.fidelity --manifest data/raw/esc10.jsonl                # a few minutes; results/fidelity.json

FD is of YAMNet's patches.   ``fd_exact`` is the distance to exact's own clips; "exact, other seeds" says what that
distance is between two runs that differ in nothing but noise, so a mode below it changes less than another seed does.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import read
from audioldm.evaluation.yamnet import YamNet
from audioldm.metrics.frechet import Moments
from audioldm.nets.split import reason_against
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.conditions import clap_scores
from benchmarks.curve import FRAME, fd, hear, run
from benchmarks.measure import machine

OTHER = "exact, other seeds"


def table(content: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"{content['model']}, {content['n']} clips of 5 s, default steps; real clips' FD to themselves is 0.",
        "",
        "| mode | s a clip | FD to real | FD to exact | CLAP score |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in content["rows"]:
        values = (row["s_per_clip"], row["fd_real"], row["fd_exact"])
        lines.append(f"| {row['name']} | {' | '.join(f'{v:.2f}' for v in values)} | {row['clap']:.4f} |")
    return "\n".join(lines)


def main() -> None:
    """Make, score, write after each mode, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--manifest", type=Path, required=True, help="rows of split test are used")
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--steps", type=int, help="the model's own where it is not given")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fidelity.json"))
    options = parser.parse_args()
    judge = YamNet(threads=torch.get_num_threads())
    rows = [row for row in read(options.manifest) if row.split == "test"]
    rows = rows[:: max(1, len(rows) // options.clips)][: options.clips]
    modes = ["exact", OTHER, *([] if reason_against() else ["split"]), "fast"]
    given = {} if options.steps is None else {"steps": options.steps}
    content: dict[str, Any] = {"what": "fidelity", "n": len(rows), "machine": machine("cpu"), "rows": []}
    real = exact = None
    for name in modes:
        pipe = AudioLDM.from_pretrained(mode="exact" if name == OTHER else name)  # type: ignore[arg-type]
        if real is None:
            waves = [decode(r.path, pipe.spec.rate, start=r.start, seconds=FRAME.seconds) for r in rows]
            real = Moments.of(torch.cat(hear(judge, waves, pipe.spec.rate)))
        captions = [row.captions[0] for row in rows]
        first = len(rows) if name == OTHER else 0
        made, _, _, seconds = run(pipe, captions, batch=1, first_seed=first, **given)
        heard = hear(judge, list(made), pipe.spec.rate)
        exact = exact or Moments.of(torch.cat(heard))
        asked = pipe.encode_text(captions).film
        assert asked is not None
        score = float(clap_scores(pipe, made, asked).mean())
        content["model"] = pipe.name
        distances = {"fd_real": fd(heard, real), "fd_exact": fd(heard, exact)}
        content["rows"].append({"name": name, "s_per_clip": seconds, **distances, "clap": score})
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=1))
    print(table(content))


if __name__ == "__main__":
    main()
