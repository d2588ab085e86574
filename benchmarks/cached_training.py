"""What a cache is worth on this machine: one U-Net, one batch, trained from a cache and as the public code does it.

    python -m benchmarks.cached_training --batch 2 --repeats 3          # the published S shape; a few minutes on a CPU

naive    mel, VAE encoder and CLAP's audio tower in every step, float32, AdamW as torch runs it by default
cached   ours: raw posteriors and embeddings from disk, bfloat16 autocast, AdamW's fused kernel
Both train the same weights and AdamW's same state, in turn (ABAB), so that other load on the machine meets both.
Then how fast one worker reads: whole clips from FLAC, and windows from the cache.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import soundfile as sf
import torch

from audioldm.batch import LatentBatch
from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.manifest import Row
from audioldm.diffusion.schedule import audioldm
from audioldm.nets.vae import encode
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.steps import adamw
from benchmarks.measure import machine
from benchmarks.shapes import Nets, build
from benchmarks.training import ClapEar, cached_batches

SECONDS = 10.24


class Clock:
    """Seconds spent in each named part of each step."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        begin = time.perf_counter()
        yield
        self.parts.setdefault(name, []).append(time.perf_counter() - begin)

    def medians(self) -> dict[str, float]:
        """Median seconds of each part."""
        return {name: median(times) for name, times in self.parts.items()}


class Trainee:
    """A U-Net with its optimiser, and the two ways to take a step."""

    def __init__(self, nets: Nets, batch: int, seconds: float) -> None:
        unet = nets.unet.train().requires_grad_(True)
        self.module = LatentDiffusion(
            unet, audioldm(), scaling_factor=1.0, empty=torch.zeros(512), batches=1000, lr=1e-5
        ).train()
        self.optimizer = adamw(unet.parameters(), 1e-5)
        self.rng = torch.Generator().manual_seed(0)
        self.vae, self.ear, self.mel = nets.vae, ClapEar().eval().requires_grad_(False), LogMel(AudioSpec())
        self.wave = 0.1 * torch.randn(batch, 1, AudioSpec().samples(seconds), generator=self.rng)
        self.folder = tempfile.TemporaryDirectory()
        self.batches = cached_batches(Path(self.folder.name), AudioSpec().latent_shape(seconds, 8), batch)
        next(self.batches)

    def descend(self, batch: LatentBatch, clock: Clock, *, ours: bool) -> None:
        """U-Net forward and backward, then the optimiser."""
        with clock.part("U-Net forward and backward"):
            with torch.autocast("cpu", torch.bfloat16, enabled=ours):
                loss = self.module.losses(batch, self.rng, drop=0.1)[0].mean()
            loss.backward()
        for group in self.optimizer.param_groups:
            group["fused"] = ours
        with clock.part("optimiser"):
            self.optimizer.step()
            self.optimizer.zero_grad()

    def naive(self, clock: Clock) -> None:
        """As the public training code."""
        with torch.no_grad():
            with clock.part("mel"):
                mel = self.mel(self.wave)
            with clock.part("VAE encoder"):
                mean, std = encode(self.vae, mel)
            with clock.part("CLAP audio tower"):
                heard = self.ear(self.wave)
        self.descend(LatentBatch(mean, std, heard, heard), clock, ours=False)

    def cached(self, clock: Clock) -> None:
        """Ours."""
        with clock.part("waiting for data"):
            batch = next(self.batches)
        self.descend(batch, clock, ours=True)


def compare(trainee: Trainee, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of every part and of the whole step, both ways in turn."""
    ways: dict[str, Callable[[Clock], None]] = {"naive": trainee.naive, "cached": trainee.cached}
    clocks = {name: Clock() for name in ways}
    for way in ways.values():
        way(Clock())  # allocations and kernels' caches
    for _ in range(repeats):
        for name, way in ways.items():
            with clocks[name].part("step"):
                way(clocks[name])
    return {name: clock.medians() for name, clock in clocks.items()}


def flac_rate(folder: Path, clips: int = 40) -> float:
    """Clips of 10 s a second that one worker decodes from 16 kHz FLAC, crops and hands on."""
    rows = []
    for i in range(8):
        sf.write(folder / f"{i}.flac", 0.1 * torch.randn(160_000).clamp(-9, 9).numpy(), 16000)
        rows.append(Row(str(folder / f"{i}.flac"), ("noise",)))
    data = AudioText(rows, AudioSpec(), 5.12, seed=0, cache=False)
    begin = time.perf_counter()
    for draw in range(clips):
        data[(draw % 8, draw)]
    return clips / (time.perf_counter() - begin)


def cache_rate(batches: Iterator[LatentBatch], batch: int, clips: int = 400) -> float:
    """Windows a second that one worker reads from the cache and joins."""
    begin = time.perf_counter()
    for _ in range(clips // batch):
        next(batches)
    return clips // batch * batch / (time.perf_counter() - begin)


def report(found: dict[str, dict[str, float]], batch: int, rates: dict[str, float]) -> str:
    """The table."""
    lines = [f"{'part':28}{'naive s':>10}{'cached s':>10}"]
    names = dict.fromkeys([*found["naive"], *found["cached"]])
    for name in names:
        cells = [f"{found[way][name]:10.3f}" if name in found[way] else f"{'-':>10}" for way in found]
        lines.append(f"{name:28}{''.join(cells)}")
    speed = {way: batch / found[way]["step"] for way in found}
    waiting = found["cached"]["waiting for data"] / found["cached"]["step"]
    lines += [
        f"{'clips a second':28}{speed['naive']:10.3f}{speed['cached']:10.3f}",
        f"ratio of medians {speed['cached'] / speed['naive']:.2f}; waiting for data {100 * waiting:.2f} % of a step",
        *(f"{name}: {rate:.0f} clips/s a worker" for name, rate in rates.items()),
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure and print; ``--json FILE`` keeps the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--tiny", action="store_true", help="toy nets: a rehearsal")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    trainee = Trainee(build("S", "cpu", tiny=args.tiny), args.batch, args.seconds)
    found = compare(trainee, args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        rates = {"FLAC": flac_rate(Path(folder)), "cache": cache_rate(trainee.batches, args.batch)}
    print(report(found, args.batch, rates))
    if args.json:
        about = {**machine("cpu"), "batch": args.batch, "seconds": args.seconds, "repeats": args.repeats}
        args.json.write_text(json.dumps({"about": about, "found": found, "rates": rates}, indent=1))
    return found


if __name__ == "__main__":
    main()
