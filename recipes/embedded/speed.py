"""How fast the embedded model's trainings can be on this machine, how fast they are, and with which settings.

    python recipes/embedded/speed.py --out runs/embedded/speed.json             # floors, then every variant
    python recipes/embedded/speed.py --batches 3 --device cpu --out /tmp/s.json # a rehearsal

First it states, before anything has run, the FLOPs and bytes of a training step and the floor that the machine's own
peaks (a large matrix product, a large copy) put under it; then it runs each variant (precision, CUDA graph, memory
layout, compiled blocks, batch size) for some batches that lie ready, and writes down the fastest in clips/s as
overrides that recipes/embedded/train.py reads (``--choice``).
"""

import argparse
import json
import math
import os
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from audioldm import recipes
from audioldm.batch import Batch, LatentBatch
from audioldm.diffusion.schedule import audioldm_zero_snr
from audioldm.training.callbacks import Budget
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.speed import Speed
from audioldm.training.vae import VaeTraining
from audioldm.training.vocoder import VocoderTraining

SECONDS = {"vocoder": 0.56, "vae": 1.28, "ldm": 5.12}
PLAIN: dict[str, Any] = {"precision": "32-true", "graph": False, "batch": None}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ldm": [
        {"batch": 128},
        {"batch": 128, "graph": True},
        {"batch": 128, "graph": True, "channels_last": True},
        {"batch": 128, "graph": True, "precision": "bf16-mixed"},
        {"batch": 128, "graph": True, "precision": "bf16-mixed", "channels_last": True},
        {"batch": 256, "graph": True, "precision": "bf16-mixed", "channels_last": True},
        {"batch": 128, "graph": True, "precision": "bf16-mixed", "compile": "inductor"},
    ],
    "vocoder": [
        {"batch": 32},
        {"batch": 32, "graph": True},
        {"batch": 32, "graph": True, "precision": "bf16-mixed"},
        {"batch": 64, "graph": True},
    ],
    "vae": [
        {"batch": 32},
        {"batch": 32, "graph": True},
        {"batch": 32, "graph": True, "precision": "bf16-mixed"},
    ],
}
WARM = 12  # batches before the clock: three as they are, the recording, and some


class Ready(Dataset):
    """One batch, again and again."""

    def __init__(self, batch: Batch | LatentBatch, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch | LatentBatch:
        return self.batch


class Clock(L.Callback):
    """Seconds from the end of batch ``warm`` to the end of the last."""

    def __init__(self, warm: int) -> None:
        self.warm, self.begin, self.seconds = warm, 0.0, math.nan

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Start the clock, once all before it has been computed."""
        if module.seen == self.warm:
            finish(module.device)
            self.begin = perf_counter()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Read it."""
        finish(module.device)
        self.seconds = perf_counter() - self.begin


def finish(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def part(name: str, batches: int, graph: bool) -> Any:
    """The training module of a recipe, with new weights, every loss in play from the first batch on."""
    cfg = recipes.load(f"embedded/{name}")
    shared = {"batches": batches, "warmup": 1, "graph": graph}
    if name == "ldm":
        return LatentDiffusion(
            recipes.part({"task": cfg.task}, "unet"), audioldm_zero_snr(), scaling_factor=1.0, empty=torch.zeros(256),
            prediction="v", weighting="min_snr", **shared,
        )  # fmt: skip
    net, judge = (recipes.part({"task": cfg.task}, key) for key in (name, "discriminator"))
    kind = VaeTraining if name == "vae" else VocoderTraining
    return kind(net, recipes.part({"task": cfg.task}, "spec"), discriminator=judge, **shared)


def ready(name: str, size: int) -> Batch | LatentBatch:
    """A batch of noise; what is in it does not change how long it takes."""
    if name == "ldm":
        mean, std = torch.randn(2, size, 16, 64, 8)
        text, audio = torch.randn(2, size, 256)
        return LatentBatch(mean, std.abs(), text, audio)
    samples = round(SECONDS[name] * 16000)
    return Batch(0.1 * torch.randn(size, 1, samples), [""] * size, [str(i) for i in range(size)])


def step_cost(name: str, size: int) -> dict[str, float]:
    """FLOPs of one training step, and the bytes that it cannot but move: weights, gradients and Adam's two moments."""
    module = part(name, 1, False)
    optimizers = module.configure_optimizers()
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    module.each_optimizer = lambda: optimizers
    module.optimizers = lambda: optimizers[0]
    module.manual_backward = lambda loss: loss.backward()
    module.log_dict = module.log = lambda *args, **more: None
    small = 2  # FLOPs grow with the batch exactly, so two clips are counted
    with FlopCounterMode(display=False) as counter:
        module.training_step(ready(name, small), 0)
    values = sum(p.numel() for o in optimizers for g in o.param_groups for p in g["params"])
    return {"tflop": counter.get_total_flops() / small * size / 1e12, "gbyte": values * 4 * 8 / 1e9}


def run(name: str, variant: dict[str, Any], batches: int, device: str) -> dict[str, Any]:
    """One variant's clips/s; what went wrong instead, if it does not run."""
    variant = PLAIN | variant
    module = part(name, WARM + batches, variant["graph"])
    speed = Speed(compile=variant.get("compile"), channels_last=variant.get("channels_last", False))
    for net in module.components().values():
        speed.apply(net)
    clock = Clock(WARM)
    trainer = L.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, max_steps=-1, max_epochs=1, logger=False,
        precision=variant["precision"], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Budget(), clock],
    )  # fmt: skip
    try:
        trainer.fit(module, DataLoader(Ready(ready(name, variant["batch"]), WARM + batches), batch_size=None))
    except Exception as error:  # a variant that this machine cannot run is a result, too
        return variant | {"failed": " ".join(str(error).split())[:300]}
    rate = batches / clock.seconds
    return variant | {"batches_per_s": rate, "clips_per_s": rate * variant["batch"]}


def overrides(variant: dict[str, Any]) -> list[str]:
    """A variant as words of ``audioldm train``."""
    words = [f"batch_size={variant['batch']}", f"trainer.precision={variant['precision']}"]
    words.append(f"task.graph={str(variant['graph']).lower()}")
    words += [
        f"speed.{key}={str(variant[key]).lower()}" for key in ("channels_last", "compile") if variant.get(key)
    ]
    return words


def peaks(device: str) -> dict[str, float]:
    """FLOP/s of a float32 product with TF32 and of one in bfloat16, and bytes/s of a copy."""
    from benchmarks.measure import copy_rate, matmul_rate

    size, mib = (8192, 1024) if device == "cuda" else (512, 64)
    return {
        "tf32": matmul_rate(device, torch.float32, size=size),
        "bf16": matmul_rate(device, torch.bfloat16, size=size),
        "bytes": copy_rate(device, mib=mib),
    }


def state_floors(book: dict[str, Any]) -> None:
    """FLOPs, bytes and floors of every part's first variant, said before anything runs."""
    for name, variants in VARIANTS.items():
        size = variants[0]["batch"]
        cost, peak = step_cost(name, size), book["peaks"]
        floors = {
            kind: max(cost["tflop"] * 1e12 / peak[kind], cost["gbyte"] * 1e9 / peak["bytes"])
            for kind in ("tf32", "bf16")
        }
        book["floors"][name] = cost | {f"floor_s_{kind}": value for kind, value in floors.items()}
        told = ", ".join(f"{kind} {1e3 * v:.2f} ms = {size / v:,.0f} clips/s" for kind, v in floors.items())
        work = f"{cost['tflop']:.3f} TFLOP, {cost['gbyte']:.2f} GB a step of {size}"
        print(f"{name}: {work}; floor {told}", flush=True)


def in_turn() -> list[tuple[str, dict[str, Any]]]:
    """Every part's first variant, then every part's second, ...: where the time ends, each part has a choice.

    >>> [name for name, _ in in_turn()][:5]
    ['ldm', 'vocoder', 'vae', 'ldm', 'vocoder']
    """
    most = max(map(len, VARIANTS.values()))
    return [(name, kinds[i]) for i in range(most) for name, kinds in VARIANTS.items() if i < len(kinds)]


def take(book: dict[str, Any], name: str, row: dict[str, Any]) -> None:
    """Put a result with its share of the floor into the book, and choose again."""
    if "clips_per_s" in row:
        kind = "bf16" if row["precision"].startswith("bf16") else "tf32"
        floor_rate = VARIANTS[name][0]["batch"] / book["floors"][name][f"floor_s_{kind}"]
        row["share_of_floor"] = row["clips_per_s"] / floor_rate
    book["variants"].setdefault(name, []).append(row)
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
    print(name, json.dumps(rounded), flush=True)
    able = [r for r in book["variants"][name] if "clips_per_s" in r]
    if able:
        book["chosen"][name] = overrides(max(able, key=lambda r: r["clips_per_s"]))


def main() -> None:
    """Floors, variants, choice."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/embedded/speed.json"))
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=150.0, help="begin no variant after this time")
    args = parser.parse_args()
    from benchmarks.measure import machine

    begin = monotonic()
    torch.set_float32_matmul_precision("high")
    book: dict[str, Any] = {
        "machine": machine(args.device),
        "peaks": peaks(args.device),
        "floors": {},
        "variants": {},
        "chosen": {},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    state_floors(book)
    for name, variant in in_turn():
        if monotonic() - begin > args.seconds:
            print(f"{name}: no time left for {variant}", flush=True)
            continue
        small = {} if args.device == "cuda" else {"batch": 2}
        take(book, name, run(name, variant | small, args.batches, args.device))
        args.out.write_text(json.dumps(book, indent=1))
    print("chosen", json.dumps(book["chosen"]), flush=True)
    os.sync()


if __name__ == "__main__":
    main()
