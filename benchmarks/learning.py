"""Does it learn, and what for: tiny/ldm from its cache against eps, uniform weights and no cache, for equal time.

    make tiny                                  # or: a cache and parts of your own
    python -m benchmarks.learning --cache runs/tiny/latents --parts runs/tiny/model --seconds 30 --json FILE

Every variant gets the same seconds of this process's CPU time (wall time on a machine that does nothing else), and
tiny/ldm's net, start, data, rate, schedule and batch.   All are judged by the same two losses on held-out sounds: the
error of eps (what eps with uniform weights itself minimises) and the error of x0 weighted by min(SNR, 5) (what v with
min-SNR minimises).   Then each says "a low tone" and "a high tone", and the decoded mels' centroids are compared.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from audioldm import recipes
from audioldm.batch import LatentBatch
from audioldm.datasets.latents import LatentDataset, collate_latents, null_embedding, scaling_factor
from audioldm.datasets.synthetic import Synthetic
from audioldm.diffusion.objective import add_noise
from audioldm.nets.clap import SmallClap
from audioldm.nets.folder import load_component
from audioldm.nets.vae import decode, encode, stride_of
from audioldm.pipeline.audioldm import EMBEDDED, AudioLDM
from audioldm.settings import Sampling
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.console import quieten
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.steps import adamw
from benchmarks.measure import machine

VARIANTS = {
    "v, min-SNR, cache": ("v", "min_snr", True),
    "eps, uniform, cache": ("eps", "uniform", True),
    "v, min-SNR, no cache": ("v", "min_snr", False),
    "eps, uniform, no cache": ("eps", "uniform", False),
}
BATCH, SECONDS = 16, 1.28


class Bench:
    """The trained parts around the U-Net, and the sounds."""

    def __init__(self, cache: Path, parts: Path) -> None:
        self.cache = cache
        self.vae, self.vocoder = load_component(parts / "vae"), load_component(parts / "vocoder")
        self.clap = SmallClap.load(parts).eval()
        self.channels = self.vae.config.latent_channels  # type: ignore[union-attr]
        self.spec = AudioSpec(stride=stride_of(self.vae), latent_channels=self.channels)  # type: ignore[arg-type]
        self.mel = LogMel(self.spec)
        self.train, self.held = (Synthetic(self.spec, SECONDS, 280, seed=s) for s in (0, 1))
        self.latents = LatentDataset(self.cache, seed=0)
        self.factor = scaling_factor(self.cache)

    @torch.no_grad()
    def encoded(self, items: list[tuple[Tensor, str, str]]) -> LatentBatch:
        """VAE and CLAP, now."""
        wave = normalise_peak(torch.stack([item[0] for item in items]))
        mean, std = encode(self.vae, self.mel(wave))  # type: ignore[arg-type]
        return LatentBatch(
            mean, std, self.clap.embed_text([item[1] for item in items]), self.clap.embed_audio(wave)
        )

    def module(self, prediction: str, weighting: str) -> LatentDiffusion:
        """That of tiny/ldm, always from the same start."""
        settings = [f"task.prediction={prediction}", f"task.weighting={weighting}", "trainer.listen=null"]
        sizes = [
            f"task.unet.latent_channels={self.channels}",
            f"task.unet.film_dim={len(null_embedding(self.cache))}",
        ]
        cfg = recipes.load("tiny/ldm", [f"data.folder={self.cache}", "batch_size=16", *settings, *sizes])
        return recipes.build(cfg).module  # type: ignore[no-any-return]

    def learn(self, name: str, seconds: float) -> tuple[LatentDiffusion, int]:
        """Train for ``seconds`` of CPU time; the module and its number of batches."""
        prediction, weighting, cached = VARIANTS[name]
        module = self.module(prediction, weighting).train()
        optimizer = adamw(module.unet.parameters(), module.lr)
        rng, count, begin = torch.Generator().manual_seed(0), 0, time.process_time()
        while time.process_time() - begin < seconds:
            rows = torch.randint(280, (BATCH,), generator=rng).tolist()
            if cached:
                batch = collate_latents([self.latents[row, count] for row in rows])
            else:
                batch = self.encoded([self.train[row] for row in rows])
            optimizer.zero_grad()
            module.losses(batch, rng, drop=module.drop)[0].mean().backward()
            optimizer.step()
            count += 1
        return module.eval(), count

    @torch.no_grad()
    def judge(self, module: LatentDiffusion, held: LatentBatch) -> tuple[float, float]:
        """(error of eps, error of x0 weighted by min(SNR, 5)), means over held-out sounds and even timesteps.

        The last timestep, where nothing of the sound is left and eps says nothing, is not among them.
        """
        rng = torch.Generator().manual_seed(1)
        z = held.mean * self.factor
        t = torch.arange(len(z)) * module.schedule.length // len(z)
        noise = torch.randn(z.shape, generator=rng)
        alpha, sigma = (c.float().view(-1, 1, 1, 1) for c in module.schedule.coefficients(t))
        x = add_noise(z, t, noise, module.schedule)
        said = torch.cat([
            module.unet(a, b, None, class_labels=c).sample
            for a, b, c in zip(x.split(70), t.split(70), held.text.split(70), strict=True)
        ])  # fmt: skip
        x0 = (x - sigma * said) / alpha if module.prediction == "eps" else alpha * x - sigma * said
        error, snr = (x0 - z).square().mean((1, 2, 3)), (alpha / sigma).square().flatten()
        return float((error * snr).mean()), float((error * snr.clamp(max=5)).mean())

    def centroids(self, module: LatentDiffusion, count: int = 6) -> dict[str, Tensor]:
        """Mean mel bin of the energy of ``count`` sounds of each prompt."""
        self.vae.register_to_config(scaling_factor=self.factor)  # type: ignore[operator]
        pipe = AudioLDM(
            module.unet,
            self.vae,
            self.vocoder,
            self.clap,
            self.spec,
            prediction=module.prediction,
            schedule=module.schedule,
            defaults=Sampling(seconds=SECONDS),
        )  # type: ignore[arg-type]
        found = {}
        for prompt in ("a low tone", "a high tone"):
            latent = pipe.sample(
                pipe.encode_text([prompt] * count), pipe.encode_text([""] * count), seeds=list(range(count)),
                seconds=SECONDS, steps=20, sampler="dpmpp_2m", grid="trailing", guidance=3.0,
            )  # fmt: skip
            with torch.no_grad():
                power = decode(self.vae, latent)[:, 0].double().exp().square().sum(1)  # type: ignore[arg-type]
            found[prompt] = (power * torch.arange(64)).sum(1) / power.sum(1)
        return found


def main(arguments: list[str] | None = None) -> dict[str, dict[str, Any]]:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--parts", type=Path, default=EMBEDDED)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    quieten()
    bench = Bench(args.cache, args.parts)
    held = bench.encoded([bench.held[i] for i in range(280)])
    found: dict[str, dict[str, Any]] = {}
    print(
        f"{'variant':26}{'batches':>9}{'eps error':>12}{'min-SNR error':>15}{'low, high: centroid in mel bins':>34}"
    )
    for name in VARIANTS:
        module, count = bench.learn(name, args.seconds)
        eps, weighted = bench.judge(module, held)
        tones = {prompt: sorted(values.tolist()) for prompt, values in bench.centroids(module).items()}
        found[name] = {"batches": count, "eps error": eps, "min-SNR error": weighted, "centroids": tones}
        low, high = (median(values) for values in tones.values())
        print(f"{name:26}{count:9}{eps:12.4f}{weighted:15.4f}{low:28.1f}{high:6.1f}", flush=True)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        about = {**machine("cpu"), "seconds each": args.seconds, "recipe": "tiny/ldm"}
        args.json.write_text(json.dumps({"about": about, "found": found}, indent=1))
    return found


if __name__ == "__main__":
    main()
