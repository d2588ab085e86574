"""Training steps of the published shapes on one GPU, one way of computing them after the other.

python -m benchmarks.steps unet out.json      # or vae, vocoder; --tiny rehearses on a CPU; --only NAME,NAME

Random weights and data; Lightning's loop, the module's own step, optimiser and clipping.   Each way trains the same
``STEPS`` batches from the same weights with the same draws, so that their losses can be laid over one another.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.nn import functional as nnf
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from audioldm.batch import Batch, LatentBatch
from audioldm.diffusion.schedule import audioldm
from audioldm.nets import discriminators, hifigan
from audioldm.nets.discriminators import PatchDiscriminator, WaveDiscriminator
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.vae import build_vae
from audioldm.spec import AudioSpec
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.speed import Speed
from audioldm.training.vae import VaeTraining
from audioldm.training.vocoder import VocoderTraining
from benchmarks.shapes import unet_of

GFLOP = 3 * 103.393
"""of a training step of S, a clip of 10.24 s"""


@dataclass(frozen=True)
class Way:
    """How a step is computed."""

    speed: Speed = field(default_factory=Speed)
    precision: str = "bf16-mixed"
    benchmark: bool = False
    steps: int = 100
    warm: int = 12
    more: dict[str, Any] = field(default_factory=dict)


class Batches(Dataset[Any]):
    """The same few batches again and again, on the device."""

    def __init__(self, batches: list[Any], length: int) -> None:
        self.batches, self.length = batches, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.batches[index % len(self.batches)]


class Clock(L.Callback):
    """Losses of all steps, the seconds of those after the first ``warm``, and a profile of the last three."""

    def __init__(self, warm: int, steps: int) -> None:
        self.warm, self.last, self.losses = warm, steps - 3, []
        self.begin, self.first, self.ready, self.end = time.perf_counter(), 0.0, 0.0, 0.0
        self.profiler = profile(activities=[ProfilerActivity.CUDA])

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *args: Any) -> None:
        """Keep the loss; start the clock when all is warm."""
        self.losses.append(outputs["loss"].detach().clone())
        number = len(self.losses)
        if number not in (1, self.warm, self.last):
            return
        synchronise()
        now = time.perf_counter()
        if number == 1:
            self.first = now
        elif number == self.warm:
            self.ready = now
        else:
            self.end = now
            if torch.cuda.is_available():
                self.profiler.start()

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """The profile is whole."""
        synchronise()
        if torch.cuda.is_available():
            self.profiler.stop()

    def kernels(self) -> list[tuple[str, float, int]]:
        """(kernel, milliseconds, calls) of one step, the longest first."""
        if not torch.cuda.is_available():
            return []
        rows = [
            (e.key[:110], e.self_device_time_total / 3e3, e.count // 3) for e in self.profiler.key_averages()
        ]
        return sorted(rows, key=lambda row: -row[1])[:28]


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(build: Callable[[], L.LightningModule], batches: list[Any], way: Way) -> dict[str, Any]:
    """Train as ``way`` says: seconds a step, clips a second, seconds until warm, peak memory, losses."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    plain = way.more.get("plain")
    discriminators._run = plain_run if plain else FAST_RUN
    hifigan.generate = plain_generate if plain else FAST_GENERATE
    module: Any = build()
    way.speed.apply(module)
    clock = Clock(way.warm, way.steps)
    if not module.automatic_optimization and isinstance(module, LatentDiffusion):
        module.clip = 1.0
    trainer = L.Trainer(
        accelerator=device, devices=1, precision=way.precision, benchmark=way.benchmark, max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
        gradient_clip_val=1.0 if module.automatic_optimization else None,
    )  # fmt: skip
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    clock.begin = time.perf_counter()
    trainer.fit(module, DataLoader(Batches(batches, way.steps), batch_size=None))
    seconds = (clock.end - clock.ready) / (clock.last - clock.warm)
    first = batches[0]
    clips = len(first.wave) if isinstance(first, Batch) else len(first.mean)
    row = {
        "ms": 1e3 * seconds,
        "batches_per_s": 1 / seconds,
        "clips_per_s": clips / seconds,
        "first_s": clock.first - clock.begin,
        "warm_s": clock.ready - clock.begin,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0,
        "losses": [float(loss) for loss in clock.losses],
        "kernels": clock.kernels(),
    }
    if isinstance(module, LatentDiffusion):
        row["tflops"] = GFLOP * clips / seconds / 1e3
    return row


def ways_of(part: str) -> dict[str, Way]:
    """``plain``: as the libraries run it; ``recipe``: as the recipe in audiocaps/ does; then parts of that alone."""
    late, now = {"start": 10**6}, {"start": 0}
    fast: dict[str, Any] = {"channels_last": True, "graph": True}
    if part == "unet":
        return {
            "plain": Way(steps=100),
            "recipe": Way(Speed(compile=True, **fast), benchmark=True),
            "without compile": Way(Speed(**fast), benchmark=True, steps=40),
            "TF32": Way(precision="32-true"),
        }
    if part == "vae":
        return {
            "plain": Way(more={**now, "plain": True}),
            "recipe": Way(Speed(**fast), benchmark=True, more=now),
            "recipe, before the discriminator": Way(Speed(**fast), benchmark=True, more=late, steps=60),
            "TF32": Way(precision="32-true", more={**now, "plain": True}),
        }
    return {
        "plain": Way(more={"plain": True}),
        "recipe": Way(Speed(graph=True), benchmark=True),
        "recipe in TF32": Way(Speed(graph=True), precision="32-true", benchmark=True, steps=40),
        "TF32": Way(precision="32-true", more={"plain": True}),
    }


def experiment(
    part: str, *, tiny: bool
) -> tuple[dict[str, Way], Callable[[Way], L.LightningModule], list[Any]]:
    """The ways, what builds the module, and its batches."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spec, rng = AudioSpec(), torch.Generator(device).manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, device=device)

    if part == "unet":
        rows, frames = (2, 16) if tiny else (64, 256)

        def build(way: Way) -> L.LightningModule:
            net = unet_of("S", tiny=tiny).train().requires_grad_(True)
            return LatentDiffusion(
                net, audioldm(), scaling_factor=1.0, empty=torch.zeros(512), batches=10**5, lr=1e-4, warmup=10
            )

        latents = [
            LatentBatch(
                rand(rows, 8, frames, 16), rand(rows, 8, frames, 16).abs(), rand(rows, 512), rand(rows, 512)
            )
            for _ in range(4)
        ]
        return ways_of(part), build, latents
    rows, samples = {"vae": (4, 163840), "vocoder": (96, 8192)}[part]
    if tiny:
        rows, samples = 2, 10240
    waves = [Batch(0.3 * rand(rows, 1, samples), ["noise"] * rows) for _ in range(4)]

    def build_vae_training(way: Way) -> L.LightningModule:
        net = build_vae(channels=(8, 16), groups=4) if tiny else build_vae()
        return VaeTraining(
            net, spec, discriminator=PatchDiscriminator(), adversarial_start=way.more["start"], batches=10**5, lr=4.5e-5
        )  # fmt: skip

    def build_vocoder_training(way: Way) -> L.LightningModule:
        net = build_hifigan(channels=32) if tiny else build_hifigan()
        small = {"period_width": 4, "resolution_width": 4} if tiny else {}
        return VocoderTraining(
            net, spec, discriminator=WaveDiscriminator(**small), adversarial_start=0, batches=10**5, lr=2e-4
        )

    return ways_of(part), build_vae_training if part == "vae" else build_vocoder_training, waves


FAST_RUN, FAST_GENERATE = discriminators._run, hifigan.generate


def plain_run(layers: Any, last: Any, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A discriminator's layers as torch runs them."""
    features = []
    for layer in layers:
        x = nnf.leaky_relu(layer(x), discriminators.SLOPE)
        features.append(x)
    return last(x), features


def plain_generate(vocoder: Any, mel: torch.Tensor) -> torch.Tensor:
    """HiFi-GAN as transformers runs it."""
    wave: torch.Tensor = vocoder(mel[:, 0])[:, None]
    return wave


def main() -> None:
    """Measure the ways of a part in turn, ``--repeat`` times; the file is written after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("unet", "vae", "vocoder"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", default="", help="names, separated by semicolons")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="of a way's turns after its first")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further measurement after these")
    choice = parser.parse_args()
    begin = time.perf_counter()
    torch.set_float32_matmul_precision("high")
    ways, build, batches = experiment(choice.part, tiny=choice.tiny)
    only = [name for name in choice.only.split(";") if name] or list(ways)
    results: dict[str, list[Any]] = {name: [] for name in only}
    for turn, name in product(range(choice.repeat), only):
        way = replace(ways[name], steps=(turn and choice.steps) or ways[name].steps)
        if time.perf_counter() - begin > choice.seconds:
            print(choice.part, name, "left out: no time", flush=True)
            continue
        try:
            row = measure(lambda way=way: build(way), batches, way)  # type: ignore[misc]
        except Exception as error:  # one way that fails must not hide the others
            row = {"error": f"{type(error).__name__}: {error}"[:2000]}
        results[name].append(row)
        numbers = {k: round(v, 2) for k, v in row.items() if isinstance(v, float)}
        print(
            choice.part,
            turn,
            name,
            row.get("error") or numbers,
            f"at {time.perf_counter() - begin:.0f}s",
            flush=True,
        )
        first = results[only[0]][0]
        if "losses" in row and "losses" in first:
            pairs = list(zip(row["losses"], first["losses"], strict=False))
            row["off"] = [abs(a - b) / abs(b) for a, b in pairs]
            print("   losses", [round(a, 4) for a, _ in pairs[:: max(1, len(pairs) // 6)]],
                  "greatest difference from the first way", max(row["off"]), flush=True)  # fmt: skip
        choice.out.parent.mkdir(parents=True, exist_ok=True)
        choice.out.write_text(json.dumps(results, indent=1))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
