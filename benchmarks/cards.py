"""What training fits a card of 16, 24, 40 or 80 GiB: peaks, largest batches, minutes for 1,000 steps.

    python -m benchmarks.cards out.json --seconds 120        # one GPU, larger than the cards
    python -m benchmarks.cards out.json --tiny               # a rehearsal on the CPU

Published shapes with random weights, 10.24 s, bfloat16 autocast, AdamW, ``speed.channels_last``, not recorded; "LoRA"
trains adapters of rank 8 at all linear layers.   A card is stood for by a share of this one that the process may not go
beyond, 1 GiB less than the card's, which the driver takes.   Peaks at two batches say where to begin on each card; then
the largest batch that runs there is looked for and timed.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch

from audioldm.adapters.adapter import attach, defaults, start
from audioldm.batch import LatentBatch
from audioldm.diffusion.schedule import audioldm
from audioldm.spec import AudioSpec
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.speed import Speed
from benchmarks.bench import release
from benchmarks.measure import Row, machine, seconds_of
from benchmarks.shapes import unet_of

CARDS = (16, 24, 40, 80)
DRIVER = 1
"""GiB of a card that no process has"""
KINDS = tuple(product(("S", "M", "L"), ("full", "LoRA"), (False, True)))
MOST = 256
"""clips in a batch, more than which is not tried"""


def module_of(size: str, kind: str, checkpointing: bool, device: str, *, tiny: bool) -> LatentDiffusion:
    """What trains, on ``device``."""
    with torch.device(device):
        unet = unet_of(size, tiny=tiny)
    if kind == "LoRA":
        layers = defaults(unet, convolutions=False)
        adapter = start(
            unet, "lora", generator=torch.Generator().manual_seed(0), rank=8, targets=layers, alpha=None
        )
        attach(unet.requires_grad_(False), adapter)
    module = LatentDiffusion(
        unet.train(), audioldm(), scaling_factor=1.0, empty=torch.zeros(512), batches=1000, lr=1e-5
    )
    Speed(channels_last=True, checkpointing=checkpointing).apply(module)
    return module.to(device).train()


def stepper(module: LatentDiffusion, device: str, *, tiny: bool) -> Callable[[int], None]:
    """A training step at so many clips."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    rng = torch.Generator(device).manual_seed(0)
    shape = AudioSpec().latent_shape(0.32 if tiny else 10.24, 8)

    def step(batch: int) -> None:
        mean = torch.randn(batch, *shape, generator=rng, device=device)
        film = torch.randn(batch, 512, generator=rng, device=device)
        with torch.autocast(device, torch.bfloat16):
            loss = module.losses(LatentBatch(mean, mean.abs(), film, film), rng, drop=0.1)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def cap(gib: float | None) -> None:
    """Let this process have so much of the GPU; None: all."""
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(1.0 if gib is None else min(1.0, gib * 2**30 / total))


def peak(step: Callable[[int], None], batch: int) -> float:
    """GiB of the second step at ``batch`` clips, with all that the process holds."""
    if not torch.cuda.is_available():
        return 1.0 + batch
    step(batch)
    release()
    torch.cuda.reset_peak_memory_stats()
    step(batch)
    return torch.cuda.max_memory_allocated() / 2**30


def timed(step: Callable[[int], None], batch: int, device: str, *, n: int) -> Row:
    """The time of a step at ``batch`` clips; raises torch.OutOfMemoryError."""
    step(batch)
    times = [seconds_of(lambda: step(batch), device) for _ in range(n)]
    middle = median(times)
    minutes = {"minutes_of_1000": middle * 1000 / 60, "clips_per_s": batch / middle}
    return {"batch": batch, "step_s": middle, "min_s": min(times), "max_s": max(times), "n": n, **minutes}


def largest(step: Callable[[int], None], guess: int, device: str) -> Row:
    """The largest batch up to ``guess`` that runs under the cap, to within 4 %, with its time."""
    batch = guess
    while batch > 0:
        try:
            return timed(step, batch, device, n=3)
        except torch.OutOfMemoryError:
            release()
            batch = min(batch - 1, int(0.96 * batch))
    return {"batch": 0}


def kind_rows(
    what: tuple[str, str, bool], device: str, *, tiny: bool
) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Of a kind: its peaks, its time at 16 clips, and what each card holds, each to be run in turn."""
    size, kind, checkpointing = what
    name = f"{size} {kind}{', checkpointing' if checkpointing else ''}"
    step = stepper(module_of(size, kind, checkpointing, device, tiny=tiny), device, tiny=tiny)
    found: Row = {}

    def peaks() -> Row:
        least, most = (1, 2) if tiny else (64, 128) if checkpointing else (8, 24)
        low, high = peak(step, least), peak(step, most)
        clip = (high - low) / (most - least)
        found.update(clip=clip, rest=low - least * clip)
        return {f"gib_at_{least}": low, f"gib_at_{most}": high, "gib_a_clip": clip, "gib_at_0": found["rest"]}

    def on_card(gib: int) -> Row:
        guess = 2 if tiny else min(MOST, int((gib - DRIVER - found["rest"]) / max(found["clip"], 1e-3)))
        if guess == found.get("batch"):
            return {"batch": guess, "as": "on the smaller card"}
        cap(gib - DRIVER)
        try:
            row = largest(step, guess, device)
        finally:
            cap(None)
        found["batch"] = row["batch"]
        return row

    yield name, peaks
    yield f"{name}, 16 clips", lambda: timed(step, 2 if tiny else 16, device, n=5)
    for gib in CARDS:
        yield f"{name}, {gib} GiB", partial(on_card, gib)


def main() -> None:
    """All kinds, one after the other; the file is written after each row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--auto", type=int, default=0, help="a batch for whole S on 24 GiB, besides")
    parser.add_argument("--kinds", nargs="*", type=int, default=range(len(KINDS)), help="numbers of kinds")
    parser.add_argument("--sixteen", action="store_true", help="only the times at 16 clips")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    begun, device = time.perf_counter(), "cuda" if torch.cuda.is_available() else "cpu"
    rows: dict[str, Row] = {"machine": machine(device)}
    torch.set_float32_matmul_precision("high")

    def keep(name: str, run: Callable[[], Row]) -> None:
        if time.perf_counter() - begun > options.seconds:
            rows[name] = {"skipped": "no time"}
        else:
            try:
                rows[name] = run()
            except Exception as error:  # one that fails must not hide the others
                rows[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
        release()
        options.out.write_text(json.dumps(rows, indent=1))
        print(f"[{time.perf_counter() - begun:.0f} s]", name, json.dumps(rows[name]), flush=True)

    for number in options.kinds:
        if time.perf_counter() - begun > options.seconds:
            break
        for name, run in kind_rows(KINDS[number], device, tiny=options.tiny):
            if not options.sixteen or name.endswith(" clips"):
                keep(name, run)
    if options.auto:
        step = stepper(module_of("S", "full", False, device, tiny=options.tiny), device, tiny=options.tiny)
        cap(24 - DRIVER)
        keep("S full, 24 GiB, auto", lambda: timed(step, options.auto, device, n=5))


if __name__ == "__main__":
    main()
