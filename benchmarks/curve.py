"""How few calls of the net give the sound of DDIM's 100: FD and CLAP score of the embedded model against calls.

    python -m benchmarks.curve --manifest data/raw/esc10.jsonl --out benchmarks/results/curve.json

Every setting makes the same clips: the test rows' first captions, the same seeds.   FD is that of YAMNet's patches to
the real clips; its bias is the same for all, because n is.   A guided call answers two rows of the net, with and
without the words; ``cost`` counts rows over two, so that a guidance interval and a reused unconditional answer count
as what they save.   The interval of the difference to the base is a bootstrap over clips, the same clips for both.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import read
from audioldm.diffusion.prediction import Denoiser
from audioldm.evaluation.listened import Frame
from audioldm.evaluation.yamnet import YamNet
from audioldm.metrics.frechet import Moments, frechet_distance
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.conditions import clap_scores
from audioldm.pipeline.guidance import GuidanceConfig
from benchmarks.measure import machine

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BASE = "DDIM, 100 steps"
OTHER_SEEDS = 1000
FRAME = Frame(5.0)


class Reusing(GuidanceConfig):
    """Plain guidance that asks without the words only at every second call, and keeps the difference between."""

    def steer(self, pipe: Any, condition: Any, empty: Any, scale: float, sigmas: Tensor) -> Denoiser:
        """Two calls of one row where both are asked, one where one is."""
        cond, base = pipe.denoiser(condition), pipe.denoiser(empty)
        turn, kept = count(), list[Tensor]()

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            x0 = cond(x, sigma)
            if next(turn) % 2 == 0:
                kept[:] = [x0 - base(x, sigma)]
            return x0 + (scale - 1) * kept[0]

        return guided


def settings(*, brief: bool) -> dict[str, dict[str, Any]]:
    """What is tried: DDIM, and our default with fewer steps, a guidance interval, a reused unconditional answer."""
    ddim = {"sampler": "ddim", "grid": "leading"}
    tried: dict[str, dict[str, Any]] = {BASE: {**ddim, "steps": 4 if brief else 100}}
    if brief:
        return {**tried, "default, 2 steps": {"steps": 2}}
    tried |= {f"{BASE}, other seeds": {**ddim, "steps": 100, "first_seed": OTHER_SEEDS}}
    interval = GuidanceConfig(interval=(0.3, 10.0))
    for n in (20, 10):
        tried |= {f"default, {n} steps": {"steps": n}}
        tried |= {f"default, {n} steps, interval": {"steps": n, "guidance_config": interval}}
        tried |= {f"default, {n} steps, reused": {"steps": n, "guidance_config": Reusing()}}
        tried |= {f"DDIM, {n} steps": {**ddim, "steps": n}}
    tried |= {f"default, {n} steps": {"steps": n} for n in (15, 8)}
    return tried


@contextmanager
def counted(pipe: AudioLDM) -> Iterator[list[int]]:
    """The rows of every call of the net, while it lasts."""
    rows, functions = list[int](), pipe.engine.functions

    def call(x: Tensor, *given: Any, **named: Any) -> Tensor:
        rows.append(len(x))
        return functions.unet(x, *given, **named)

    pipe.engine.functions = replace(functions, unet=call)
    try:
        yield rows
    finally:
        pipe.engine.functions = functions


def hear(judge: YamNet, waves: list[Tensor], rate: int) -> list[Tensor]:
    """YAMNet's patches (P, D) of each wave."""
    return [judge.listen(FRAME(wave, rate)).rows for wave in waves]


def fd(made: list[Tensor], real: Moments) -> float:
    """Frechet distance of the patches of some clips to the real ones."""
    mine = Moments.of(torch.cat(made))
    return frechet_distance(mine.mean, mine.cov, mean_b=real.mean, cov_b=real.cov)


def run(
    pipe: AudioLDM, captions: list[str], *, batch: int, first_seed: int = 0, **given: Any
) -> tuple[Tensor, float, float, float]:
    """Waves (n, N); calls of the net and cost (rows over two) of one clip; seconds a clip."""
    begun, waves = time.perf_counter(), list[Tensor]()
    with counted(pipe) as rows:
        for first in range(0, len(captions), batch):
            part = captions[first : first + batch]
            seeds = range(first_seed + first, first_seed + first + len(part))
            waves.append(pipe(part, seeds=seeds, batch_size=batch, **{"seconds": 5.0, **given}))
    spent = (time.perf_counter() - begun) / len(captions)
    groups = -(-len(captions) // batch)
    return torch.cat(waves), len(rows) / groups, sum(rows) / 2 / len(captions), spent


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """FD and CLAP score against cost; the line is what DDIM's 100 steps reach."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        head, *tail = row["name"].split(", ")
        groups.setdefault(", ".join([head, *tail[1:]]), []).append(row)
    for axis, key in zip(axes, ("fd", "clap"), strict=True):
        for name, part in groups.items():
            part = sorted(part, key=lambda r: r["cost"])
            axis.plot([r["cost"] for r in part], [r[key] for r in part], "o-", label=name)
        axis.axhline(rows[0][key], color="grey", ls=":")
        axis.set(xscale="log", xlabel="guided calls of the net a clip (rows / 2)")
        axis.grid(alpha=0.3, which="both")
    axes[0].set(ylabel="FD of YAMNet patches to real ESC-10")
    axes[1].set(ylabel="CLAP score (the model's own CLAP)")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Generate, score, write the file after each setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--manifest", type=Path, required=True, help="real clips; rows of split test are used"
    )
    parser.add_argument("--clips", type=int, default=80)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--model", default=None, help="a model folder; the embedded model")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curve.json"))
    parser.add_argument("--mode", default="exact")
    parser.add_argument("--brief", action="store_true", help="two settings of few steps")
    parser.add_argument("--settings", nargs="*", help="these only, by name, beside the first")
    options = parser.parse_args()
    pipe, judge = (
        AudioLDM.from_pretrained(options.model, mode=options.mode),
        YamNet(threads=torch.get_num_threads()),
    )
    table = [row for row in read(options.manifest) if row.split == "test"]
    table = table[:: max(1, len(table) // options.clips)][: options.clips]
    captions, rate = [row.captions[0] for row in table], pipe.spec.rate
    real = Moments.of(
        torch.cat(
            hear(
                judge, [decode(row.path, rate, start=row.start, seconds=FRAME.seconds) for row in table], rate
            )
        )
    )
    asked = pipe.encode_text(captions).film
    assert asked is not None
    rng = torch.Generator().manual_seed(0)
    draws = [torch.randint(len(table), (len(table),), generator=rng).tolist() for _ in range(100)]
    rows: list[dict[str, Any]] = []
    base: tuple[list[Tensor], Tensor] | None = None
    for name, given in settings(brief=options.brief).items():
        if base is not None and options.settings is not None and name not in options.settings:
            continue
        made, calls, cost, seconds = run(pipe, captions, batch=options.batch, **given)
        heard, clap = hear(judge, list(made), rate), clap_scores(pipe, made, asked)
        base = base or (heard, clap)
        worse = [fd([heard[i] for i in d], real) - fd([base[0][i] for i in d], real) for d in draws[:20]]
        gaps = [float((clap[d] - base[1][d]).mean()) for d in draws]
        rows.append(
            {
                "name": name, "calls": calls, "cost": cost, "s_per_clip": seconds, "fd": fd(heard, real),
                "clap": float(clap.mean()), "fd_minus_base": interval(worse), "clap_minus_base": interval(gaps),
            }
        )  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
        content = {
            "what": "curve",
            "model": pipe.name,
            "mode": pipe.mode,
            "n": len(table),
            "machine": machine("cpu"),
            "rows": rows,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=1))
        draw(rows, options.out.with_suffix(".png"))


def interval(values: list[float]) -> list[float]:
    """The middle 95 % of bootstrap values."""
    ordered = sorted(values)
    cut = round(0.025 * len(ordered))
    return [ordered[cut], ordered[-1 - cut]]


if __name__ == "__main__":
    main()
