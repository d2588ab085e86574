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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional as nnf
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from audioldm.batch import Batch, LatentBatch
from audioldm.diffusion.schedule import audioldm
from audioldm.nets import discriminators
from audioldm.nets.discriminators import PatchDiscriminator, WaveDiscriminator
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.vae import build_vae
from audioldm.spec import AudioSpec
from audioldm.training import vocoder as vocoder_training
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
    attention: str = "flash"
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
    cuda = torch.backends.cuda
    for name in ("flash", "cudnn", "mem_efficient"):
        getattr(cuda, f"enable_{name}_sdp")(way.attention in (name, "any") or name == "mem_efficient")
    discriminators._run = run_last if way.more.get("judge") else plain_run
    module: Any = build()
    way.speed.apply(module)
    if way.more.get("attention"):
        module.vae.set_attn_processor(AttnProcessor())
    for part in way.more.get("channels_last", ()):
        getattr(module, part).to(memory_format=torch.channels_last)
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


def unet_ways() -> dict[str, Way]:
    """Of the latent U-Net: eager as it was, then one thing more at a time."""
    fast: dict[str, Any] = {"channels_last": True, "graph": True}
    return {
        "eager": Way(),
        "graph": Way(Speed(graph=True), steps=40),
        "norms": Way(Speed(channels_last=True), steps=40),
        "norms, graph": Way(Speed(**fast)),
        "norms, graph, benchmark": Way(Speed(**fast), benchmark=True, steps=60),
        "attentions, norms, graph": Way(Speed(compile=True, **fast)),
        "attentions, norms, graph, benchmark": Way(Speed(compile=True, **fast), benchmark=True),
        "attentions, norms, graph, benchmark, cudnn": Way(
            Speed(compile=True, **fast), benchmark=True, attention="cudnn", steps=60
        ),
    }


def vae_ways() -> dict[str, Way]:
    """Of the autoencoder: as its recipe was, then one thing more at a time; with its discriminator at the end."""
    fast = {"channels_last": True, "graph": True}
    late, now = {"start": 10**6}, {"start": 0}
    return {
        "recipe": Way(more={**late, "channels_last": ["vae"]}, steps=26),
        "norms": Way(Speed(channels_last=True), more=late, steps=40),
        "norms, graph": Way(Speed(**fast), more=late, steps=60),
        "norms, graph, benchmark": Way(Speed(**fast), benchmark=True, more=late, steps=60),
        "attention, norms, graph": Way(Speed(**fast), more={**late, "attention": True}, steps=60),
        "attention, norms, graph, benchmark": Way(
            Speed(**fast), benchmark=True, more={**late, "attention": True}, steps=60
        ),
        "attention, norms, graph, adversarial": Way(Speed(**fast), more={**now, "attention": True}, steps=60),
        "recipe, adversarial": Way(more={**now, "channels_last": ["vae"]}, steps=26),
        "norms, graph, benchmark, adversarial": Way(Speed(**fast), benchmark=True, more=now, steps=60),
        "norms, graph, benchmark, adversarial, discriminator too": Way(
            Speed(**fast), benchmark=True, more={**now, "judge": True}, steps=60
        ),
    }


def vocoder_ways() -> dict[str, Way]:
    """Of HiFi-GAN: as its recipe was, then one thing more at a time."""
    return {
        "recipe": Way(precision="32-true", steps=22, warm=8),
        "bf16": Way(steps=30, warm=8),
        "bf16, pictures": Way(steps=30, warm=8, more={"pictures": True}),
        "bf16, pictures, discriminator": Way(steps=30, warm=8, more={"pictures": True, "judge": True}),
        "bf16, graph": Way(Speed(graph=True), steps=30),
        "bf16, pictures, discriminator, graph": Way(
            Speed(graph=True), steps=30, more={"pictures": True, "judge": True}
        ),
        "bf16, discriminator, graph": Way(Speed(graph=True), steps=30, more={"judge": True}),
        "bf16, pictures, graph, benchmark": Way(
            Speed(graph=True), benchmark=True, steps=40, more={"pictures": True}
        ),
        "bf16, pictures, discriminator, graph, benchmark": Way(
            Speed(graph=True), benchmark=True, steps=40, more={"pictures": True, "judge": True}
        ),
        "TF32, pictures, discriminator, graph, benchmark": Way(
            Speed(graph=True),
            precision="32-true",
            benchmark=True,
            steps=30,
            more={"pictures": True, "judge": True},
        ),
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
        return unet_ways(), build, latents
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
        vocoder_training.vocode = pictures if way.more.get("pictures") else plain_vocode  # type: ignore[assignment]
        return VocoderTraining(
            net, spec, discriminator=WaveDiscriminator(**small), adversarial_start=0, batches=10**5, lr=2e-4
        )

    return (
        (vae_ways(), build_vae_training, waves)
        if part == "vae"
        else (vocoder_ways(), build_vocoder_training, waves)
    )


plain_vocode, plain_run = vocoder_training.vocode, discriminators._run


def run_last(layers: Any, last: Any, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """``_run`` on channels-last memory from the first layer's output on."""
    features = []
    for layer in layers:
        x = nnf.leaky_relu(layer(x), 0.1).contiguous(memory_format=torch.channels_last)
        features.append(x)
    return last(x), features


def pictures(vocoder: Any, mel: torch.Tensor) -> torch.Tensor:
    """The vocoder's function as pictures one row high, channels-last."""
    from audioldm.nets.hifigan import generate, trimmed

    return trimmed(generate(vocoder, mel), mel.shape[-2] * 160)


def main() -> None:
    """Measure the ways of a part in turn; the file is written after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("unet", "vae", "vocoder"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", default="", help="names, separated by semicolons")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further way after these")
    choice = parser.parse_args()
    begin = time.perf_counter()
    torch.set_float32_matmul_precision("high")
    ways, build, batches = experiment(choice.part, tiny=choice.tiny)
    only = [name for name in choice.only.split(";") if name] or list(ways)
    results: dict[str, Any] = {}
    for name in only:
        way = ways[name]
        if time.perf_counter() - begin > choice.seconds:
            print(choice.part, name, "left out: no time", flush=True)
            continue
        try:
            row = measure(lambda way=way: build(way), batches, way)  # type: ignore[misc]
        except Exception as error:  # one way that fails must not hide the others
            row = {"error": f"{type(error).__name__}: {error}"[:2000]}
        results[name] = row
        numbers = {k: round(v, 2) for k, v in row.items() if isinstance(v, float)}
        print(
            choice.part,
            name,
            row.get("error") or numbers,
            f"at {time.perf_counter() - begin:.0f}s",
            flush=True,
        )
        if "losses" in row and "losses" in results.get(only[0], {}):
            for kernel, ms, calls in row["kernels"]:
                print(f"   {ms:7.2f} ms {calls:5d} x {kernel}", flush=True)
            pairs = list(zip(row["losses"], results[only[0]]["losses"], strict=False))
            row["off"] = [abs(a - b) / abs(b) for a, b in pairs]
            print("   losses", [round(a, 4) for a, _ in pairs[:: max(1, len(pairs) // 6)]],
                  "greatest difference from the first way", max(row["off"]), flush=True)  # fmt: skip
        choice.out.parent.mkdir(parents=True, exist_ok=True)
        choice.out.write_text(json.dumps(results, indent=1))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        torch._dynamo.reset()


if __name__ == "__main__":
    main()
