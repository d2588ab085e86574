"""Trains the embedded model's vocoder on one GPU against the clock; its numbers are in embedded/vocoder.yaml.

    python -m recipes.embedded.vocoder_lease --parts DIR --valid DIR --vae FOLDER --out DIR --minutes 24

``--parts`` is watched: each folder in it that holds ``list.jsonl`` (a ``path`` and a ``weight`` a line) and a file
``done`` is decoded by all cores into the card's memory, also while the training runs.   A file ``deadline`` in
``--out`` (seconds since 1970) moves the end, and with it the learning rate, which follows the clock.

``--decoder SHARE`` trains the autoencoder's decoder along, from the sound's losses through the vocoder, on that share
of the rows; the encoder stays as it is, so that latents and what was trained on them keep their meaning.
"""

import argparse
import copy
import json
import math
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio.functional as taf
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor, nn

from audioldm.losses.spectral import mel_pyramid
from audioldm.nets.discriminators import WaveDiscriminator
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.speed import RecordedStep
from audioldm.training.vocoder import VocoderLoss, Weights
from recipes.embedded.sound_bank import SoundBank, gained, mixed, notes

WARMUP, ADVERSARIAL = 500, 1500
"""Steps until the full learning rate, and until the discriminators join."""
VAE_FROM, VAE_SHARE = 0.6, 0.4
"""Share of the time after which mels come from the autoencoder, too, and in which share of the rows."""
DECAY = 0.999
LONG = 512
"""Frames that the autoencoder sees at once, as in generation."""


def decoded(task: tuple[str, float]) -> tuple[Tensor, float]:
    """A file as int16 at 16 kHz."""
    path, weight = task
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    sound = torch.from_numpy(wave.mean(1))
    if rate != 16000:
        sound = taf.resample(sound, rate, 16000)
    return (sound.clamp(-1, 1) * 32767).round().to(torch.int16).numpy(), weight


class Parts:
    """Folders that have come, decoded beside the training."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.seen, self.pending = folder, set(), []
        self.pool = ThreadPool(workers)

    def look(self) -> None:
        """Start decoding what is new."""
        for mark in sorted(self.folder.glob("*/done")):
            if mark.parent not in self.seen:
                self.seen.add(mark.parent)
                rows = [json.loads(line) for line in (mark.parent / "list.jsonl").read_text().splitlines()]
                tasks = [(str(mark.parent / row["path"]), row["weight"]) for row in rows]
                self.pending.append(self.pool.map_async(decoded, tasks, chunksize=16))
                print(f"{mark.parent.name}: {len(tasks)} files", flush=True)

    def arrived(self, *, wait: bool = False) -> list[tuple[Tensor, float]]:
        """What has been decoded since."""
        ready = [task for task in self.pending if wait or task.ready()]
        self.pending = [task for task in self.pending if task not in ready]
        return [(torch.from_numpy(wave), weight) for task in ready for wave, weight in task.get()]


def adamw(net: nn.Module, lr: float, *, cuda: bool) -> torch.optim.AdamW:
    """AdamW whose rate is a tensor that a recorded step reads."""
    decayed = [p for p in net.parameters() if p.dim() > 1]
    rest = [p for p in net.parameters() if p.dim() <= 1]
    rate = torch.tensor(lr, device=decayed[0].device)
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.8, 0.99), fused=True, capturable=cuda)


class Trainer:
    """Nets, optimisers and the two recorded functions: drawing a batch, and a step."""

    def __init__(self, args: argparse.Namespace, bank: SoundBank) -> None:
        self.args, self.bank, self.spec = args, bank, AudioSpec()
        device = bank.device
        cuda = device.type == "cuda"
        torch.manual_seed(args.seed)
        shape = {"width": 64, "hidden": 128, "depth": 2} if args.tiny else {}
        widths = {"period_width": 4, "resolution_width": 4} if args.tiny else {}
        self.net = ISTFTVocoder(**shape).to(device).train()
        self.ema = ISTFTVocoder(**shape).to(device).eval().requires_grad_(False)
        discriminator = WaveDiscriminator(phases=True, **widths).to(device)
        self.steps = 0
        if args.resume:
            held = gathered(args.resume)
            self.net.load_state_dict({k: v.float() for k, v in held["ema"].items()})
            if held["discriminator"]:
                discriminator.load_state_dict({k: v.float() for k, v in held["discriminator"].items()})
            self.steps = held["steps"]
            print(f"goes on from {args.resume}, step {self.steps}", flush=True)
        self.ema.load_state_dict(self.net.state_dict())
        self.mel = LogMel(self.spec).to(device)
        weights = Weights(*(args.distance * w for w in (15.0, 5.0, 1.0)))
        self.discriminator, self.loss = discriminator, VocoderLoss(weights)
        config = json.loads((args.vae / "config.json").read_text())
        self.vae = AutoencoderKL.from_config(config).to(device).eval().requires_grad_(False)
        weights = load_file(args.vae / "diffusion_pytorch_model.safetensors")
        self.vae.load_state_dict({k: v.float() for k, v in weights.items()})
        self.optimizers = (
            adamw(self.net, args.lr, cuda=cuda),
            adamw(self.discriminator, args.lr_discriminator, cuda=cuda),
        )
        self.averages = [(self.ema, self.net)]
        self.long = LONG
        if args.decoder:
            self.long = args.long
            average = AutoencoderKL.from_config(config).to(device).eval().requires_grad_(False)
            average.load_state_dict(self.vae.state_dict())
            self.ema_vae = average
            for name in ("decoder", "post_quant_conv"):
                getattr(self.vae, name).requires_grad_(True)
                self.averages.append((getattr(average, name), getattr(self.vae, name)))
                for group in adamw(getattr(self.vae, name), args.lr, cuda=cuda).param_groups:
                    self.optimizers[0].add_param_group(group)
            if args.freeze_vocoder:
                self.net.requires_grad_(False)
                del self.optimizers[0].param_groups[:2]
        else:
            self.ema_vae = self.vae
        self.frames = 104
        self.long_rows = max(1, round(args.rows * (args.decoder or VAE_SHARE)))
        self.dummy = torch.zeros(1, device=device)
        recorded = cuda and not args.eager
        self.draw = RecordedStep(self.batch) if recorded else self.batch
        self.step = RecordedStep(self.train_step) if recorded else self.train_step

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU, where the loss does not forbid it."""
        kind = self.bank.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda")

    @torch.no_grad()
    def batch(self, _: Tensor, vae: bool) -> dict[str, Tensor]:
        """Waves (B, 1, N), the mels (B, T, F) to make them from, and a seed for each.

        With ``--decoder`` the last rows' mels are missing: there are their latents and their first frames instead.
        """
        rows, hop, device = self.args.rows, self.spec.hop, self.bank.device
        samples = self.frames * hop
        short = rows - self.long_rows * vae
        with torch.autocast(device.type, enabled=False):
            wave = mixed(self.bank.crops(short, samples, speeds=True))
            output = max(1, rows // 16)
            wave = torch.cat([notes(output, samples, self.spec.rate, device), wave[output:]])
            wave = gained(wave)[:, None]
            mel = self.mel(wave)[:, 0]
        more = {}
        if vae:
            whole = self.bank.crops(self.long_rows, self.long * hop, speeds=False)
            with torch.autocast(device.type, enabled=False):
                whole = gained(mixed(whole, 0.1), quiet=0.2)[:, None]
                whole_mel = self.mel(whole)
            with self.autocast():
                posterior = self.vae.encode(whole_mel).latent_dist
            latent = posterior.mean.float()
            first = (torch.rand(self.long_rows, 1, device=device) * (self.long - self.frames + 1)).long()
            if self.args.decoder:
                noise = posterior.std.float() * torch.randn_like(latent)
                latent = latent + noise * (torch.rand(self.long_rows, 1, 1, 1, device=device) < 0.5)
                more = {"latent": latent, "first": first, "whole_mel": whole_mel}
            else:
                mel = torch.cat([mel, self.part(self.vae.decode(latent).sample.float(), first)])
            sample = first * hop + torch.arange(samples, device=device)
            wave = torch.cat([wave, whole[:, 0].gather(1, sample)[:, None]])
        seed = torch.randint(1 << 20, (rows,), device=device)
        return {"wave": wave, "mel": mel, "seed": seed, **more}

    def part(self, mel: Tensor, first: Tensor) -> Tensor:
        """Crops (B, T, F) of mels (B, 1, L, F) that begin at frames (B, 1)."""
        frame = first + torch.arange(self.frames, device=first.device)
        return mel[:, 0].gather(1, frame[..., None].expand(-1, -1, self.spec.mels))

    def descend(self, loss: Tensor, which: int, clip: float) -> Tensor:
        """Backward, clip, step; a step whose gradient is not finite is left out.   Gives the norm."""
        optimizer = self.optimizers[which]
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (clip / (norm + 1e-6)).clamp(max=1.0))
        optimizer.grad_scale, optimizer.found_inf = None, (~norm.isfinite()).float()
        optimizer.step()
        return norm

    def train_step(
        self,
        wave: Tensor,
        mel: Tensor,
        seed: Tensor,
        latent: Tensor | None = None,
        first: Tensor | None = None,
        whole_mel: Tensor | None = None,
        *,
        adversarial: bool,
    ) -> dict[str, Tensor]:
        """Discriminators first, on a detached wave; then the generator, and its average."""
        values = {}
        extra: Tensor | float = 0.0
        if latent is not None and first is not None and whole_mel is not None:
            through = self.vae.decode(latent).sample.float()
            values["decoder"] = distance = mel_pyramid(through, whole_mel)
            extra = self.args.keep * distance
            mel = torch.cat([mel, self.part(through, first)])
            values["decoder"] = distance.detach()
        output = self.net(mel, seed).float()[:, None]
        if adversarial:
            loss = self.loss.of_discriminator(self.discriminator, output, wave)
            values["norm_d"] = self.descend(loss, 1, 1000.0).detach()
            values["discriminator"] = loss.detach()
        with torch.autocast(wave.device.type, enabled=False):
            terms = self.loss.distances(self.mel, output, wave)
        if adversarial:
            terms |= self.loss.of_generator(self.discriminator, output, wave)
        values["norm"] = self.descend(self.loss.total(terms) + extra, 0, self.args.clip).detach()
        with torch.no_grad():
            for average, net in self.averages:
                torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - DECAY)
        return {name: term.detach() for name, term in terms.items()} | values

    def rate(self, progress: float) -> float:
        """Share of the learning rate: linear warm-up, then a cosine down to a fiftieth."""
        left = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return min(1.0, (self.steps + 1) / WARMUP) * (0.02 + 0.98 * left)

    def once(self, progress: float) -> dict[str, Tensor]:
        """One batch."""
        share = self.rate(progress)
        for optimizer, lr in zip(self.optimizers, (self.args.lr, self.args.lr_discriminator), strict=True):
            for group in optimizer.param_groups:
                group["lr"].fill_(lr * share)
        with self.autocast():
            batch = self.draw(self.dummy, vae=bool(self.args.decoder) or progress >= VAE_FROM)
            values = self.step(*batch.values(), adversarial=self.steps >= self.args.adversarial)
        self.steps += 1
        return values


def samples(wave: Tensor) -> np.ndarray:
    """A wave (1, 1, N) as 16-bit samples."""
    return (wave[0, 0].clamp(-1, 1).cpu().numpy() * 32767).astype("int16")


@torch.no_grad()
def validate(trainer: Trainer, clips: list[Tensor], out: Path) -> str:
    """Log-mel L1 of whole held-out clips (each peak at 0.5), from their mels and from the autoencoder's."""
    total = torch.zeros(2)
    sounds = {}
    for number, clip in enumerate(clips):
        wave = clip.float() / 32767
        wave = wave / wave.abs().max().clamp(min=1e-3) * 0.5
        frames = min(LONG, len(wave) // 1280 * 8)
        wave = wave[None, None, : frames * 160].to(trainer.bank.device)
        mel = trainer.mel(wave)
        through = trainer.ema_vae.decode(trainer.ema_vae.encode(mel).latent_dist.mean).sample
        for place, values in enumerate((mel, through)):
            output = trainer.ema(values[:, 0])[:, None]
            total[place] += (trainer.mel(output) - mel).abs().mean().cpu()
            if number < 8:
                sounds[f"{number}-{('mel', 'vae')[place]}"] = samples(output)
        if number < 8:
            sounds[f"{number}-real"] = samples(wave)
    np.savez_compressed(out / "samples.npz", **sounds)
    native, through = (total / len(clips)).tolist()
    return f"valid log-mel L1 {native:.4f}, of the autoencoder's mels {through:.4f}"


def save(trainer: Trainer, out: Path, *, final: bool) -> None:
    """The average in float16, in pieces that travel; at the end in float32, and the discriminators."""
    kind = torch.float32 if final else torch.float16
    state = {k: v.detach().to(kind).cpu() for k, v in trainer.ema.state_dict().items()}
    names, pieces = sorted(state), 5 if final else 3
    size = sum(v.numel() for v in state.values()) / pieces
    held: list[dict[str, Tensor]] = [{}]
    for name in names:
        if (
            sum(v.numel() for v in held[-1].values()) + state[name].numel() > size * 1.15
            and len(held) < pieces + 1
        ):
            held.append({})
        held[-1][name] = state[name]
    folder = out / ("final" if final else "ema")
    draft = out / "draft"
    draft.mkdir(exist_ok=True)
    for number, piece in enumerate(held):
        torch.save({"ema": piece, "steps": trainer.steps}, draft / f"{folder.name}-{number}.pt")
    if final:
        discriminator = {k: v.detach().half().cpu() for k, v in trainer.discriminator.state_dict().items()}
        torch.save({"discriminator": discriminator, "steps": trainer.steps}, draft / "discriminator.pt")
    folder.mkdir(exist_ok=True)
    for path in draft.iterdir():
        path.replace(folder / path.name)
    if trainer.args.decoder:
        copy.deepcopy(trainer.ema_vae).half().save_pretrained(out / "vae")
        copy.deepcopy(trainer.ema).half().save_pretrained(out / "vocoder")


def gathered(folder: Path) -> dict[str, Any]:
    """What ``save`` wrote in pieces."""
    held: dict[str, Any] = {"ema": {}, "discriminator": {}, "steps": 0}
    for path in sorted(folder.glob("*.pt")):
        piece = torch.load(path, map_location="cpu", weights_only=True)
        held["steps"] = piece["steps"]
        for name in ("ema", "discriminator"):
            held[name] |= piece.get(name, {})
    return held


def main() -> None:
    """Read the command line and train until the clock says so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("parts", "valid", "vae", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--lr-discriminator", type=float, default=3e-4)
    parser.add_argument("--clip", type=float, default=100.0)
    parser.add_argument("--adversarial", type=int, default=ADVERSARIAL)
    parser.add_argument("--every", type=float, default=75.0, help="seconds between validations")
    parser.add_argument("--lines", type=int, default=250, help="steps between lines")
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", type=Path, help="a folder of pieces that this script saved")
    parser.add_argument(
        "--decoder", type=float, default=0.0, help="share of rows through a decoder that learns"
    )
    parser.add_argument(
        "--long", type=int, default=256, help="frames that the learning decoder makes at once"
    )
    parser.add_argument("--keep", type=float, default=5.0, help="weight of the decoded mel's own distance")
    parser.add_argument("--freeze-vocoder", action="store_true", help="only the decoder learns")
    parser.add_argument("--distance", type=float, default=1.0, help="times the weights of the distances")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.time()
    parts = Parts(args.parts, args.workers)
    parts.look()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    bank = SoundBank(8_000_000 if args.tiny else 480_000_000, 8000, device)
    valid = [
        torch.from_numpy(wave)
        for wave, _ in map(decoded, ((str(p), 1.0) for p in sorted(args.valid.iterdir())))
    ]
    trainer = Trainer(args, bank)
    print(
        f"{sum(p.numel() for p in trainer.net.parameters()) / 1e6:.2f} M parameters, "
        f"{sum(p.numel() for p in trainer.discriminator.parameters()) / 1e6:.2f} M of discriminators, "
        f"{time.time() - start:.1f} s",
        flush=True,
    )

    def take(*, wait: bool = False) -> None:
        clips = parts.arrived(wait=wait)
        if args.tiny:
            clips = clips[:20]
        bank.add([clip for clip, _ in clips], [weight for _, weight in clips])
        if clips:
            print(
                f"{time.time() - start:.1f} s: {bank.count} clips, {bank.filled / 57_600_000:.2f} h",
                flush=True,
            )

    take(wait=True)
    begin, looked, checked, marked = time.time(), time.time(), time.time(), (time.time(), trainer.steps)
    deadline = start + 60 * args.minutes
    values: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    while (now := time.time()) < deadline:
        values = trainer.once((now - begin) / (deadline - begin))
        for name, value in values.items():
            sums[name] = sums.get(name, 0) + value
        if trainer.steps % 20 == 0:
            if device.type == "cuda":
                torch.cuda.synchronize()
            if time.time() - looked > 3:
                looked = time.time()
                parts.look()
                take()
                if (moved := args.out / "deadline").exists():
                    deadline = float(moved.read_text())
        if trainer.steps % args.lines == 0:
            line = "  ".join(f"{name} {float(value) / args.lines:.4g}" for name, value in sums.items())
            speed = (trainer.steps - marked[1]) / (time.time() - marked[0])
            print(f"{trainer.steps}  {time.time() - begin:.0f} s  {speed:.1f}/s  {line}", flush=True)
            marked, sums = (time.time(), trainer.steps), {}
        if time.time() - checked > args.every:
            checked = time.time()
            print(f"{trainer.steps}  {validate(trainer, valid, args.out)}", flush=True)
            save(trainer, args.out, final=False)
            if device.type == "cuda":
                print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", flush=True)
    save(trainer, args.out, final=True)
    print(f"{trainer.steps}  {validate(trainer, valid, args.out)}", flush=True)
    (args.out / "finished").touch()
    print(f"end: {trainer.steps} steps, {time.time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
