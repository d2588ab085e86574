"""Does every personal recipe fit in 10 GB on the published S?   Peak memory of its default batch, on random weights.

    python -m benchmarks.personal_memory                   # all kinds; several minutes and up to 10 GB
    python -m benchmarks.personal_memory --kinds lora --batches 1

Memory depends on shapes alone, so random weights of S (185 M parameters) stand for the published file.   Each kind is
a process of its own: `audioldm train personal/KIND data.model=S` for a few whole steps (forward, backward, AdamW, EMA),
at the recipe's own batch size and the model's own 10.24 s, on ten clips of noise.   DreamBooth makes its class sounds
first (here 2 in 2 steps: their number does not change the peak).   On a GPU it is what torch allocated, else the
process's largest resident size.   Writes benchmarks/results/personal/memory.{json,md}.
"""

import argparse
import json
import multiprocessing
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile
import torch

from benchmarks.control import RESULTS
from benchmarks.personal import train
from benchmarks.personal_table import METHODS
from benchmarks.shapes import build, ours

LIMIT = 10.0
"""GiB"""
KINDS = (*dict.fromkeys(METHODS.values()),)


def table(report: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"# Memory of personal training on {report['shape']} ({report['parameters'] / 1e6:.0f} M U-Net parameters, "
        "random)\n",
        f"{report['batches']} whole steps at each recipe's default batch size and {report['seconds']:g} s on "
        f"{report['device']}; the bar is {LIMIT:g} GiB. benchmarks/personal_memory.py says the rest.\n",
        "| kind | trained parameters | batch | peak, GiB | below the bar |",
        "|---|--:|--:|--:|---|",
    ]
    for name, row in report["kinds"].items():
        told = "yes" if row["gigabytes"] < LIMIT else "NO"
        lines.append(
            f"| {name} | {row['parameters']:,} | {row['batch_size']} | {row['gigabytes']:.2f} | {told} |"
        )
    return "\n".join(lines) + "\n"


def prepare(folder: Path, *, tiny: bool) -> int:
    """Ten clips of noise and a model folder; returns the U-Net's number of parameters."""
    (folder / "sounds").mkdir()
    rng = torch.Generator().manual_seed(0)
    for i in range(10):
        wave = 0.1 * torch.randn(160000, generator=rng)
        soundfile.write(folder / "sounds" / f"{i}.wav", wave.numpy(), 16000)
    pipe = ours(build("S", "cpu", tiny=tiny))
    pipe = replace(pipe, defaults=pipe.defaults.merged(steps=2, sampler="ddim"))  # of the class sounds
    pipe.save_pretrained(folder / "model")
    return sum(p.numel() for p in pipe.unet.parameters())


def main() -> None:
    """Every kind in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="toy nets, to rehearse")
    parser.add_argument("--out", type=Path, default=RESULTS / "personal")
    parser.add_argument("overrides", nargs="*", help="more settings of the recipes")
    given = parser.parse_intermixed_args()
    cuda = given.device != "cpu"
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = context.Pool(1).apply(prepare, (folder,), {"tiny": given.tiny})
        place = given.out / "memory.json"
        report = json.loads(place.read_text()) if place.exists() else {"kinds": {}}
        report |= {"shape": "S", "parameters": size, "batches": given.batches, "seconds": 10.24}
        report["device"] = torch.cuda.get_device_name() if cuda else "a CPU"
        for kind in given.kinds:
            overrides = [
                f"data.model={folder / 'model'}", f"data.folder={folder / 'sounds'}", "data.windows=1",
                f"run_dir={folder / kind}", f"batches={given.batches}", "val_every=1000", *given.overrides,
            ]  # fmt: skip
            overrides += ["task.prior.clips=2"] if kind.startswith("dreambooth") else []
            overrides += ["trainer=gpu"] if cuda else ["threads=1"]
            answers = context.SimpleQueue()
            process = context.Process(target=train, args=(f"personal/{kind}", overrides, cuda, answers))
            process.start()
            process.join()
            if answers.empty():
                raise SystemExit(f"{kind}: the training ended with code {process.exitcode}")
            found = answers.get()
            found["batch_size"] = next(
                (int(text.split("=")[1]) for text in given.overrides if text.startswith("batch_size=")), 8
            )
            report["kinds"][kind] = found
            given.out.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(report, indent=1) + "\n")
            place.with_suffix(".md").write_text(table(report))
            print(f"{kind}: {found['gigabytes']:.2f} GiB", flush=True)
    print(table(report))


if __name__ == "__main__":
    main()
