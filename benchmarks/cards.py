"""What training fits a card of 16, 24, 40 or 80 GiB: peaks, largest batches, minutes for 1,000 steps.

    python -m benchmarks.cards out.json --seconds 120        # one GPU, larger than the cards
    python -m benchmarks.cards out.json --tiny               # a rehearsal on the CPU

Published shapes with random weights, 10.24 s, bfloat16 autocast, AdamW, ``speed.channels_last``; "LoRA" trains adapters
of rank 8 at all linear layers.   A card is stood for by a share of this one that the process may not go beyond, 1 GiB
less than the card's, which the driver takes.   Peaks at two batches give the rest; then the largest batch is run.
"""

import argparse
import json
import time
from collections.abc import Callable
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

CARDS = (24, 16, 80, 40)
DRIVER = 1
"""GiB of a card that no process has"""
KINDS = tuple(product(("S", "M", "L"), ("full", "LoRA"), (False, True)))


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
        step(batch)
        return float(batch)
    step(batch)
    release()
    torch.cuda.reset_peak_memory_stats()
    step(batch)
    return torch.cuda.max_memory_allocated() / 2**30


def largest(step: Callable[[int], None], guess: int, device: str) -> Row:
    """The largest batch of those near ``guess`` that runs under the cap, with its time."""
    for batch in dict.fromkeys(max(1, round(guess * share)) for share in (1.0, 0.9, 0.8, 0.65, 0.5)):
        try:
            step(batch)
            times = [seconds_of(lambda: step(batch), device) for _ in range(5)]  # noqa: B023
            return {
                "batch": batch, "step_s": median(times), "min_s": min(times), "max_s": max(times), "n": 5,
                "minutes_of_1000": median(times) * 1000 / 60, "clips_per_s": batch / median(times),
            }  # fmt: skip
        except torch.OutOfMemoryError:
            release()
    return {"batch": 0}


def main() -> None:
    """Peaks of all kinds first, then the cards; the file is written after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--wait-for", type=Path, help="begin the cards when this file is there")
    parser.add_argument("--auto", type=Path, help="a file with what batch_size=auto chose for S on 24 GiB")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    begun, device = time.perf_counter(), "cuda" if torch.cuda.is_available() else "cpu"
    rows: dict[str, Row] = {"machine": machine(device)}
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True

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

    def peaks(size: str, kind: str, checkpointing: bool) -> Row:
        step = stepper(
            module_of(size, kind, checkpointing, device, tiny=options.tiny), device, tiny=options.tiny
        )
        low, high = peak(step, 2), peak(step, 6)
        return {
            "gib_at_2": low,
            "gib_at_6": high,
            "gib_a_clip": (high - low) / 4,
            "gib_at_0": low - (high - low) / 2,
        }

    def name(size: str, kind: str, checkpointing: bool) -> str:
        return f"{size} {kind}{', checkpointing' if checkpointing else ''}"

    for what in KINDS:
        keep(name(*what), lambda what=what: peaks(*what))  # type: ignore[misc]
    while (
        options.wait_for and not options.wait_for.exists() and time.perf_counter() - begun < options.seconds
    ):
        time.sleep(0.2)
    for what in KINDS:
        known = rows[name(*what)]
        if "gib_a_clip" not in known or time.perf_counter() - begun > options.seconds:
            continue
        step = stepper(module_of(*what, device, tiny=options.tiny), device, tiny=options.tiny)
        for card in CARDS:
            room = card - DRIVER - known["gib_at_0"]
            guess = 3 if options.tiny else int(0.97 * room / max(known["gib_a_clip"], 1e-9))
            if guess < 1:
                rows[f"{name(*what)}, {card} GiB"] = {"batch": 0}
                continue
            cap(card - DRIVER)
            keep(f"{name(*what)}, {card} GiB", lambda step=step, guess=guess: largest(step, guess, device))  # type: ignore[misc]
            if (what, card) == (KINDS[0], CARDS[0]) and options.auto and options.auto.exists():
                chosen = int(options.auto.read_text() or 1)
                keep("S full, 24 GiB, auto", lambda step=step, n=chosen: largest(step, n, device))  # type: ignore[misc]
            cap(None)
        del step
        release()


if __name__ == "__main__":
    main()
