"""One training step of the latent U-Net: from a latent cache, and as the public code takes it.

naive    every step makes the mel, runs the VAE's encoder and CLAP's audio tower, all in float32, then the U-Net's step;
         the sound is already on the device, so reading and decoding files costs nothing here
cached   ours: posteriors and embeddings come from a cache on disk; bfloat16 autocast, and on a GPU recorded steps
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torchaudio
from torch import Tensor
from transformers import ClapAudioConfig
from transformers.models.clap.modeling_clap import ClapAudioModelWithProjection

from audioldm.batch import Condition, LatentBatch
from audioldm.datasets.latents import Encoded, LatentDataset, collate_latents, write_latents
from audioldm.diffusion.schedule import audioldm
from audioldm.nets.vae import encode
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.data import DataModule
from audioldm.training.latent_diffusion import LatentDiffusion
from audioldm.training.optim import adamw
from audioldm.training.speed import RecordedStep
from benchmarks.bench import Bench, release
from benchmarks.measure import Row, paired, peak_mib
from benchmarks.shapes import Nets

Step = Callable[[], Tensor]


def module_of(nets: Nets) -> LatentDiffusion:
    """Our training module on a fresh float32 copy of the U-Net."""
    unet = nets.copy(torch.float32).unet.train().requires_grad_(True)
    empty = torch.zeros(512, device=unet.device)
    module = LatentDiffusion(unet, audioldm(), scaling_factor=1.0, empty=empty, batches=1000, lr=1e-5)
    module.schedule = module.schedule.to(unet.device)
    return module.to(unet.device).train()


def cached_batches(folder: Path, shape: tuple[int, int, int], batch: int) -> Iterator[LatentBatch]:
    """Batches of a cache of random posteriors, read as training reads them."""
    rng = torch.Generator().manual_seed(0)
    windows = (
        Encoded(
            torch.randn(shape, generator=rng),
            torch.rand(shape, generator=rng),
            torch.randn(512, generator=rng),
            torch.randn(1, 512, generator=rng),
            "noise",
        )
        for _ in range(max(64, batch))
    )
    write_latents(windows, folder, about={"null": [0.0] * 512})
    data = DataModule(LatentDataset(folder, seed=0), batch_size=batch, collate=collate_latents)
    return iter(data.train_dataloader())


def cached_step(nets: Nets, batch: int, *, seconds: float, graph: bool, bf16: bool = True) -> Step:
    """One step of ours at ``batch`` clips."""
    module = module_of(nets)
    device = module.unet.device
    optimizer = adamw(module.unet.parameters(), module.lr, capturable=graph)
    spec = AudioSpec()
    rng = torch.Generator(device).manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        batches = cached_batches(Path(folder), spec.latent_shape(seconds, 8), batch)

    def whole(z: Tensor, t: Tensor, noise: Tensor, condition: Condition) -> dict[str, Tensor]:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            loss = module.step(z, t, noise, condition)["loss"]
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    recorded = RecordedStep(whole) if graph else whole

    def step() -> Tensor:
        z, t, noise, condition = module.draw(next(batches).to(device), rng, drop=0.1)
        return recorded(z, t, noise, condition)["loss"]

    return step


class ClapAudio(torch.nn.Module):
    """CLAP's audio tower (HTSAT-tiny, random weights) from a 16 kHz wave, as in the public training code."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = ClapAudioModelWithProjection(ClapAudioConfig())
        self.mel = torchaudio.transforms.MelSpectrogram(
            48000, n_fft=1024, hop_length=480, f_min=50, f_max=14000, n_mels=64, norm="slaney"
        )
        self.decibel = torchaudio.transforms.AmplitudeToDB()

    def forward(self, wave: Tensor) -> Tensor:
        """(B, 1, N) at 16 kHz to (B, 512): its first 10 s, as its input size wants."""
        wave = torchaudio.functional.resample(wave[:, 0], 16000, 48000)[:, :480_000]
        wave = torch.nn.functional.pad(wave, (0, 480_000 - wave.shape[-1]))
        return self.tower(self.decibel(self.mel(wave)).transpose(1, 2)[:, None]).audio_embeds


def naive_step(nets: Nets, batch: int, *, seconds: float) -> Step:
    """One step as the public training code takes it: nothing cached, float32."""
    module = module_of(nets)
    device, spec = module.unet.device, AudioSpec()
    with torch.device(device):
        clap = ClapAudio().eval().requires_grad_(False)
    mel = LogMel(spec).to(device)
    optimizer = torch.optim.AdamW(module.unet.parameters(), lr=1e-5)
    rng = torch.Generator(device).manual_seed(1)
    wave = torch.randn(batch, 1, spec.samples(seconds), generator=rng, device=device) * 0.1

    def step() -> Tensor:
        with torch.no_grad():
            mean, std = encode(nets.vae, mel(wave))
            embedding = clap(wave)
        loss = module.losses(LatentBatch(mean, std, embedding, embedding), rng, drop=0.1)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def train_rows(bench: Bench, size: str, nets: Nets, batches: tuple[int, ...]) -> None:
    """Clips per second at each of ``batches``: naive, cached and recorded, cached; a row of the book for each."""
    seconds = bench.seconds
    for batch in batches:
        makers: dict[str, Callable[[], Step]] = {
            "naive fp32": partial(naive_step, nets, batch, seconds=seconds),
            "cached bf16 recorded": partial(cached_step, nets, batch, seconds=seconds, graph=True),
            "cached bf16": partial(cached_step, nets, batch, seconds=seconds, graph=False),
        }

        def run(makers: dict[str, Callable[[], Step]] = makers, batch: int = batch) -> Row:
            row: Row = {}
            for name, make in makers.items():
                try:
                    step = make()
                    most = peak_mib(step, bench.device)
                    times = paired(
                        {name: step}, bench.device, repeats=3 if bench.tiny else 10, warm=3, most=6
                    )
                    row[name] = {
                        "clips_per_s": batch / times[name]["s"],
                        "step_peak_mib": most,
                        **times[name],
                    }
                except Exception as problem:  # one way that fails must not hide the other
                    row[name] = {"error": f"{type(problem).__name__}: {problem}"[:400]}
                step = None  # type: ignore[assignment]
                release()
            base = row["naive fp32"].get("clips_per_s")
            for value in row.values():
                if base and "clips_per_s" in value:
                    value["times_faster"] = round(value["clips_per_s"] / base, 2)
            return row

        bench.book.add(f"training {size}", f"batch {batch}, {seconds} s", run, needs=30)
