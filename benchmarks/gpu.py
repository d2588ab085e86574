"""Ours against diffusers' AudioLDMPipeline on one GPU.

    python -m benchmarks.gpu --seconds 480 --out benchmarks/results/gpu.json
    python -m benchmarks.gpu --rehearse                    # the same rows at toy sizes, on a CPU

The rows that matter most come first, the file is written after each, and a row that no longer fits the time is named as
skipped: a run that is cut off loses nothing.   Random weights of the published shapes; both sides have the same.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from audioldm.pipeline.audioldm import AudioLDM
from benchmarks.bench import (
    BASE,
    PEER_COMPILED,
    Bench,
    call_part,
    drift,
    error,
    peaks,
    ratios,
    release,
    typed,
)
from benchmarks.measure import Book, Row, kernels, machine, paired, peak_mib
from benchmarks.shapes import Nets, aligned, build, ours, run_ours

GROUPS = (
    "peaks",
    "calls",
    "parts",
    "latency",
    "throughput",
    "cards",
    "profile",
    "equality",
    "lengths",
    "peer",
    "sizes",
)


def latency(bench: Bench) -> None:
    """One prompt to sound, batch 1; and a student's four calls without guidance."""
    for steps in bench.steps(10, 25):
        run = partial(bench.whole, steps=steps)
        bench.book.add(
            "latency S batch 1",
            f"{steps} steps",
            partial(bench.compare, (BASE, "fast"), run, warm=2),
            needs=15,
        )
    calls = partial(run_ours, bench.pipe("fast"), 1, seconds=bench.seconds, steps=4, guidance=1.0)
    bench.book.add(
        "latency S batch 1",
        "4 calls, unguided",
        partial(paired, {"fast": calls}, bench.device, repeats=10, warm=2),
    )
    steps = bench.steps(10)[0]
    for name in ("fast", "exact", BASE):
        bench.book.add("memory S batch 1", name, partial(memory, bench, name, steps), needs=10)


def memory(bench: Bench, name: str, steps: int) -> Row:
    """Peak of a fresh pipeline, from its first call on (recording included), with its own weights."""
    bench.drop(name)
    pipe = bench.pipe(name)
    parts = (
        (pipe.unet, pipe.vae, pipe.vocoder, pipe.clap.text_encoder)
        if isinstance(pipe, AudioLDM)
        else (pipe.unet, pipe.vae, pipe.vocoder, pipe.text_encoder)
    )
    weights = sum(p.nbytes for part in parts for p in part.parameters())
    return {
        "peak_mib": peak_mib(lambda: bench.whole(pipe, steps=steps), bench.device, before=weights),
        "weights_mib": weights / 2**20,
    }


def cards(bench: Bench) -> None:
    """What a card of few GiB does with each size: clips of 25 steps, one by one and in batches, until no more fit."""
    bench.drop(*list(bench.pipes))  # their recordings hold memory, too
    for size in ("S",) if bench.tiny else ("S", "M", "L"):
        pipe = bench.pipe("fast", build(size, bench.device, tiny=bench.tiny))
        release()
        for gib in (2, 6, 8, 12, 16, 24):
            row = bench.book.add(f"card of {gib} GiB", size, partial(on_card, bench, pipe, gib), needs=15)
            if row is None or all(isinstance(row[f"batch {batch}"], dict) for batch in (1, 4, 16)):
                break  # a larger card does the same
        del pipe
        release()


def on_card(bench: Bench, pipe: AudioLDM, gib: int) -> Row:
    """Clips where torch may hold ``gib``, with the weights and all that is recorded, and without the driver's own."""
    cuda, row = torch.cuda.is_available(), Row()
    pipe.engine.reset()
    release()
    parts = (pipe.unet, pipe.vae, pipe.vocoder, pipe.clap.text_encoder)
    weights = sum(p.nbytes for part in parts for p in part.parameters())
    if cuda:
        room = gib * 2**30 + torch.cuda.memory_reserved() - weights
        torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        for batch in (1, 4, 16):
            run = partial(bench.whole, pipe, steps=bench.steps(25)[0], batch=batch)
            row[f"batch {batch}"] = "does not fit"
            times = paired({"fast": run}, bench.device, warm=2)["fast"]
            row[f"batch {batch}"] = {**times, "s_a_clip": times["s"] / batch}
    except torch.OutOfMemoryError:
        for batch in (4, 16):
            row.setdefault(f"batch {batch}", "does not fit")
    finally:
        if cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return row


def equality(bench: Bench) -> None:
    """Exact against diffusers, fast against exact by part, and the same seed on CPU and GPU."""
    steps = bench.steps(10)[0]

    def exact() -> Row:
        pipe = bench.pipe("exact")
        mine = bench.whole(pipe, steps=steps)
        other = bench.whole(bench.pipe("diffusers fp32"), steps=steps)
        return error(*aligned(mine, other, pipe.vocoder))

    bench.book.add("equality S", "exact against diffusers fp32, whole, TF32 as torch sets it", exact)
    bench.book.add("equality S", "the same without TF32", partial(without_tf32, exact))
    bench.book.add("drift S by part", "fast against exact", partial(drift, bench), needs=10)
    bench.book.add("drift S whole", f"fast against exact, {steps} steps", lambda: error(
        bench.whole(bench.pipe("fast"), steps=steps), bench.whole(bench.pipe("exact"), steps=steps)
    ))  # fmt: skip
    if bench.device == "cuda":
        bench.book.add(
            "same seed",
            "CPU against GPU, exact, 4 steps, 2.56 s, no TF32",
            partial(without_tf32, partial(both_devices, bench)),
            needs=30,
        )


def without_tf32(run: Callable[[], Row]) -> Row:
    """``run`` with true float32 convolutions; matrix products have it already."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        return run()
    finally:
        torch.backends.cudnn.allow_tf32 = before


def both_devices(bench: Bench) -> Row:
    """One seed on the GPU and on the CPU."""
    here = bench.whole(bench.pipe("exact"), steps=4, seconds=2.56)
    nets = Nets(
        *(
            net.cpu()
            for net in (lambda c: (c.unet, c.vae, c.vocoder, c.text_encoder))(bench.nets.copy(torch.float32))
        ),  # type: ignore[arg-type]
        bench.nets.tokenizer,
    )
    return error(here, bench.whole(ours(nets), steps=4, seconds=2.56))


def parts(bench: Bench) -> None:
    """Each part alone, with its share of the floor, which grows as the batch does."""
    floor = next((row for row in bench.book.rows if row["group"] == "floors" and row["name"] == "S"), {})
    for batch in (1,) if bench.tiny else (1, 16):
        for part in ("vae", "vocoder", "text", "unet step"):

            def run(part: str = part, batch: int = batch) -> Row:
                inputs = {n: typed(bench, bench.pipe(n), batch) for n in (BASE, "fast")}
                runs = {n: partial(call_part, bench.pipe(n), part, inputs[n]) for n in inputs}
                row = ratios(paired(runs, bench.device, repeats=3 if bench.tiny else 10, warm=3, most=6))
                for value in row.values() if part in floor else ():
                    value["floor_share"] = round(batch * floor[part]["floor_ms"] / 1e3 / value["s"], 3)
                return row

            bench.book.add(f"parts S batch {batch}", part, run, needs=8)


def profiles(bench: Bench) -> None:
    """Each part of ours by itself, and its ten kernels that take longest."""
    pipe = bench.pipe("fast")
    for batch in (1,) if bench.tiny else (1, 16, 64):
        for part in ("unet step", "vae", "vocoder") if batch < 64 else ("unet step",):

            def run(part: str = part, batch: int = batch) -> Row:
                call = partial(call_part, pipe, part, typed(bench, pipe, batch))
                return {
                    **paired({"fast": call}, bench.device, repeats=30),
                    "kernels": kernels(call, bench.device),
                }

            bench.book.add(f"profile S batch {batch}", part, run, needs=8)
    release()


def calls(bench: Bench, base: str = BASE) -> None:
    """One U-Net call against the rows of a batch (two a guided clip), all sizes; S whole, too, if ``base`` compiles."""
    beside = ", diffusers compiled" if base == PEER_COMPILED else ""
    for size in ("S",) if bench.tiny else ("L", "M", "S"):
        nets = bench.nets if size == "S" else build(size, bench.device)
        pipes = {name: bench.pipe(name, nets) for name in (base, "fast")}
        for batch in (1,) if bench.tiny else (1, 4, 16, 64):

            def run(pipes: dict[str, Any] = pipes, batch: int = batch) -> Row:
                inputs = {name: typed(bench, pipe, batch) for name, pipe in pipes.items()}
                runs = {n: partial(call_part, p, "unet step", inputs[n]) for n, p in pipes.items()}
                return ratios(paired(runs, bench.device, repeats=10, warm=4))

            bench.book.add(f"U-Net call {size}{beside}", f"{2 * batch} rows", run, needs=30 if beside else 15)
            release()
        if beside and size == "S":
            wholes = {n: partial(bench.whole, p, steps=bench.steps(10)[0]) for n, p in pipes.items()}
            bench.book.add(
                f"latency S batch 1{beside}", "10 steps",
                lambda runs=wholes: ratios(paired(runs, bench.device, warm=3)), needs=30,
            )  # fmt: skip
        if beside:
            torch.compiler.reset()  # of a function it compiles eight variants and runs the ninth uncompiled


def throughput(bench: Bench) -> None:
    """Clips per minute against the batch."""
    steps = bench.steps(25)[0]
    for batch in (2,) if bench.tiny else (64, 16, 4):
        row = bench.book.add(
            "throughput S",
            f"batch {batch}, {steps} steps",
            partial(
                bench.compare,
                (BASE, "fast"),
                partial(bench.whole, steps=steps, batch=batch),
                repeats=5,
                most=40,
            ),
            needs=30,
        )
        for value in (row or {}).values():
            if isinstance(value, dict):
                value["clips_per_minute"] = 60 * batch / value["s"]
    bench.book.write()


def sizes(bench: Bench) -> None:
    """M and L: whole clips, one by one and in batches."""
    bench.drop(*list(bench.pipes))
    for size in ("M", "L"):
        nets = build(size, bench.device, tiny=bench.tiny)
        pipes = {n: bench.pipe(n, nets) for n in (BASE, "fast")}
        for steps, batch in ((2, 1),) if bench.tiny else ((10, 1), (25, 1), (25, 16), (25, 64)):

            def run(pipes: dict[str, Any] = pipes, steps: int = steps, batch: int = batch) -> Row:
                runs = {n: partial(bench.whole, p, steps=steps, batch=batch) for n, p in pipes.items()}
                return ratios(paired(runs, bench.device, repeats=5, warm=2, most=60))

            bench.book.add(f"latency {size} batch {batch}", f"{steps} steps", run, needs=batch + 15)
            release()
        del nets, pipes
        release()


def lengths(bench: Bench) -> None:
    """Time and memory of one clip against its length."""
    steps = bench.steps(10)[0]
    for seconds in (1.28, 2.56) if bench.tiny else (10.24, 30.72, 122.88):

        def run(seconds: float = seconds) -> Row:
            pipe = bench.pipe("fast")
            whole = partial(bench.whole, pipe, steps=steps, seconds=seconds)
            most = peak_mib(whole, bench.device)
            return {
                **paired({"fast": whole}, bench.device, repeats=5)["fast"],
                "peak_above_weights_mib": most,
            }

        bench.book.add("lengths S, fast", f"{seconds} s, {steps} steps", run, needs=20)


def main() -> None:
    """Parse, run every group in order, leave the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=480.0, help="stop beginning rows after this time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--rehearse", action="store_true", help="toy sizes, on the CPU")
    parser.add_argument("--only", nargs="*", choices=GROUPS, default=GROUPS, help="these groups only")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("no CUDA device; --rehearse runs the same rows at toy sizes on the CPU")
    device = "cpu" if options.rehearse else "cuda"
    about = {"what": "gpu", "rehearsal": options.rehearse, "machine": machine(device)}
    book = Book(options.out, seconds=options.seconds, about=about)
    bench = Bench(book, device=device, rehearse=options.rehearse)
    groups: dict[str, Callable[[], None]] = {
        "peaks": partial(peaks, bench),
        "calls": partial(calls, bench),
        "parts": partial(parts, bench),
        "latency": partial(latency, bench),
        "throughput": partial(throughput, bench),
        "cards": partial(cards, bench),
        "profile": partial(profiles, bench),
        "equality": partial(equality, bench),
        "lengths": partial(lengths, bench),
        "peer": partial(calls, bench, PEER_COMPILED),
        "sizes": partial(sizes, bench),
    }
    for name, run in groups.items():
        if name in options.only:
            run()
    print(f"{len(book.rows)} rows in {options.out}")


if __name__ == "__main__":
    main()
