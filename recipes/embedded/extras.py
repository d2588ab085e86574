"""Trains what is tied to one U-Net anew: the control nets, the audio prompt and the adapter that come with a model.

    python -m recipes.embedded.extras --model DIR --parts DIR --shield DIR --out DIR --minutes 1.8

``--model`` is a model folder, ``--parts`` the sounds of ``model_parts``, ``--shield`` a folder of ten blows on a metal
shield, or the manifest that has them.
Six processes share one GPU; each writes into ``--out`` (the model folder itself, if it is to have them) what a model
folder holds: ``control/NAME`` or ``adapters/shield.safetensors``, float16, tied to the U-Net by its hash.   Each is
then compared on held-out clips with what the same noise and words give without it (``checks/NAME.json``).   A file
``deadline`` in ``OUT/work/NAME`` (seconds since 1970) moves the end of its training.   B batch, N samples, T frames,
F bins.
"""

import argparse
import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pool, get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as nnf
from torch.nn.utils import parametrize

from audioldm.adapters.adapter import attach, defaults, layers_of, learned, start
from audioldm.adapters.files import write
from audioldm.batch import Condition
from audioldm.control.controls import IP_ADAPTER, AudioPromptControl, MapControl, load_net
from audioldm.control.maps import MAPS, pictures
from audioldm.control.nets import joined
from audioldm.datasets import manifest
from audioldm.datasets.decode import decode
from audioldm.diffusion import objective
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import save_component, weight_file
from audioldm.nets.unet import NetCall, net_call
from audioldm.nets.vae import encode
from audioldm.paths import sha256, staged
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.level import normalise_peak
from audioldm.signal.mel import LogMel
from audioldm.spec import AudioSpec
from audioldm.training.control import build_control
from recipes.embedded import model_lease as lease

SECONDS = 2.56
CLEAR = 0.3
"""share of frames with a pitch from which on a window has a clear one"""
STEPS = 10
"""of sampling, in comparisons"""
WORD, SHIELD = "my sound", "a blow landing on a metal shield"
MIX = 0.6
"""strength of the audio prompt that is compared"""
DECAY, WARMUP, SAVED = 0.995, 20, 40.0
"""moving average, batches of warm-up, seconds between two savings"""


@dataclass(frozen=True)
class Extra:
    """One net and how it learns.   ``pitched``: share of windows with a clear pitch; ``batches``: end before time."""

    kind: str
    lr: float
    depth: int | None = None
    text_prob: float = 0.5
    drop: float = 0.3
    weighting: objective.Weighting = "uniform"
    rows: int = 32
    pitched: float | None = None
    batches: int | None = None


EXTRAS = {
    "loudness": Extra("controlnet", 5e-4, depth=2),
    "pitch": Extra("t2i_adapter", 2e-3, drop=0.5, pitched=0.7),
    "onset": Extra("t2i_adapter", 2e-3),
    "edges": Extra("t2i_adapter", 2e-3),
    IP_ADAPTER: Extra("ip_adapter", 1e-3, text_prob=1.0),
    "shield": Extra("lora", 1e-3, text_prob=1.0, drop=0.0, weighting="min_snr", rows=4, batches=60),
}
DRAWN = tuple(name for name in EXTRAS if name in MAPS)


def curves_of(task: tuple[Tensor, AudioSpec]) -> list[Tensor]:
    """Each map of windows (B, N), peak 0.5, as float16 (B, T) or (B, T, F)."""
    waves, spec = task
    return [torch.stack([MAPS[name].analyse(wave, spec) for wave in waves]).half() for name in DRAWN]


@torch.no_grad()
def posteriors(pipe: AudioLDM, wave: Tensor) -> dict[str, Tensor]:
    """What the model's own nets say of windows (B, N): mean and std (B, C, T, F), audio (B, D)."""
    mean, std = encode(pipe.vae, LogMel(pipe.spec).to(wave.device)(wave[:, None]))
    return {"mean": mean, "std": std, "audio": pipe.clap.embed_audio(wave[:, None], pipe.spec.rate)}


@torch.no_grad()
def prepare(pipe: AudioLDM, windows: lease.Windows, count: int, pool: Any) -> dict[str, Tensor]:
    """``count`` windows with what is said of them and every map, on the CPU."""
    texts = [windows.texts[i : i + 512] for i in range(0, len(windows.texts), 512)]
    table = torch.cat([pipe.clap.embed_text(part) for part in texts])
    parts: list[dict[str, Tensor]] = []
    waves: list[Tensor] = []
    for begin in range(0, count, 64):
        wave, text, _ = windows.draw(min(64, count - begin), pipe.spec.samples(SECONDS))
        wave = normalise_peak(wave)
        parts.append({**posteriors(pipe, wave), "text": table[text]})
        waves.append(wave.cpu())
    drawn = pool.imap(curves_of, [(wave, pipe.spec) for wave in waves])
    out = {name: torch.cat([part[name] for part in parts]).half().cpu() for name in parts[0]}
    return out | dict(zip(DRAWN, map(torch.cat, zip(*drawn, strict=True)), strict=True))


def chances(pitch: Tensor, share: float | None) -> Tensor:
    """Cumulated chances (B,) of windows whose pitch curves are (B, T): ``share`` for those with a clear pitch."""
    clear = (pitch > 0).float().mean(1) > CLEAR
    weights = torch.ones(len(pitch), dtype=torch.float64)
    if share is not None and 0 < int(clear.sum()) < len(clear):
        weights = torch.where(clear, share / clear.sum(), (1 - share) / (~clear).sum()).double()
    return weights.cumsum(0) / weights.sum()


class Training:
    """One extra, its net on the U-Net of ``pipe``, and the windows (``prepare``) that it learns from."""

    def __init__(self, name: str, pipe: AudioLDM, model: Path) -> None:
        self.name, self.extra, self.pipe, self.device = name, EXTRAS[name], pipe, pipe.device
        self.base, self.average = sha256(weight_file(model / "unet")), None
        self.net, self.adapter = torch.nn.Module(), None
        pipe.unet.requires_grad_(False).eval()
        if self.extra.kind == "lora":
            rng = torch.Generator().manual_seed(0)
            layers = defaults(pipe.unet, convolutions=False)
            self.adapter = start(pipe.unet, "lora", rank=8, targets=layers, generator=rng)
            self.learned = attach(pipe.unet, self.adapter)
            return
        about = {
            "dim": pipe.clap.dim,
            "stride": pipe.spec.stride,
            "base": self.base,
            "depth": self.extra.depth,
        }
        map_ = name if name in MAPS else None
        self.net = build_control(self.extra.kind, pipe.unet, map_, **about).to(self.device)
        self.average = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.learned = list(self.net.parameters())

    def call(self, index: Tensor) -> NetCall:
        """The U-Net as the extra changes it, for the windows ``index`` (B,)."""
        call, net = net_call(self.pipe.unet), self.net
        if self.adapter is not None:
            return call
        if self.name == IP_ADAPTER:
            around: NetCall = AudioPromptControl(net, self.data["audio"][index]).around(call, self.pipe.unet)
            return around
        picture = self.pictures[index].float().expand(-1, -1, -1, self.pipe.spec.mels)

        def steered(x: Tensor, t: Tensor, condition: Condition, **residuals: Any) -> Tensor:
            return call(x, t, condition, **joined(residuals, net.residuals(x, t, condition, picture)))

        return steered

    def step(self, dummy: Tensor) -> dict[str, Tensor]:
        """One batch, drawn on the device."""
        extra, data, rows = self.extra, self.data, self.extra.rows
        with torch.no_grad():
            draw = torch.rand(rows, dtype=torch.float64, device=self.device)
            index = torch.searchsorted(self.chance, draw).clamp(max=len(self.chance) - 1)
            mean, std = data["mean"][index], data["std"][index]
            z = (mean + std * torch.randn_like(mean)) * self.pipe.vae.config.scaling_factor
            told = torch.rand(rows, 1, device=self.device) < extra.text_prob
            film = torch.where(told, data["text"][index], data["audio"][index])
            film = torch.where(torch.rand(rows, 1, device=self.device) < extra.drop, self.empty, film)
            even = torch.arange(rows, dtype=torch.float64, device=self.device) / rows
            t = (even + torch.rand(1, dtype=torch.float64, device=self.device)) % 1
            t = (t * self.schedule.length).long().clamp(max=self.schedule.length - 1)
            noise = torch.randn_like(z)
        with lease.half(self.device):
            call = self.call(index)
            losses = objective.loss(
                lambda x, times: call(x, times, Condition(film=film)).float(),
                z, t, noise, self.schedule, self.pipe.prediction, extra.weighting,
            )  # fmt: skip
        loss = losses.float().mean()
        norm = lease.descend(loss, self.optimizer, 1.0)
        if self.average is not None:
            lease.follow(self.average, self.net, DECAY)
        return {"loss": loss.detach(), "norm": norm}

    def fit(self, data: dict[str, Tensor], clock: lease.Clock, args: argparse.Namespace) -> int:
        """Learn until the clock says so; the number of batches."""
        self.data = {k: v.to(self.device).float() for k, v in data.items() if k not in DRAWN}
        self.chance = chances(data["pitch"], self.extra.pitched).to(self.device)
        if self.name in DRAWN:
            drawn = pictures(self.name, data[self.name], self.pipe.spec)
            flat = self.name in ("loudness", "onset")
            self.pictures = (drawn[..., :1] if flat else drawn).half().to(self.device)
        with torch.no_grad():
            self.empty = self.pipe.clap.embed_text([""])
        self.schedule = self.pipe.schedule.to(self.device)
        self.optimizer = lease.adamw(self.learned, self.extra.lr, self.device, (0.9, 0.99))
        run = lease.recorded(self.step, self.device, args)
        lines, count, dummy, saved = lease.Lines(), 0, torch.zeros(1, device=self.device), time.time()
        while (progress := clock.progress(count)) < 1:
            warm, cool = min(1.0, (count + 1) / WARMUP), 0.5 * (1 + math.cos(math.pi * progress))
            lease.set_rate(self.optimizer, self.extra.lr * warm * (0.01 + 0.99 * cool))
            lines.add(count, run(dummy))
            count += 1
            if self.average is not None and count % 20 == 0 and time.time() - saved > SAVED:
                self.save(args.out, count)
                saved = time.time()
        return count

    def save(self, out: Path, count: int) -> None:
        """Write the net where a model folder holds it."""
        if self.adapter is None:
            save_component(self.average, out / "control" / self.name, dtype=torch.float16)
            return
        adapter = learned(self.pipe.unet, self.adapter)
        layers = {
            name: replace(layer, factors={k: v.half() for k, v in layer.factors.items()})
            for name, layer in adapter.layers.items()
        }
        about = {
            "batches": str(count), "licence": "CC-BY-SA-3.0", "model": self.pipe.name, "prompt": WORD,
            "sounds": "10 blows on a metal shield, Wildfire Games (0 A.D.)",
        }  # fmt: skip
        file = out / "adapters" / "shield.safetensors"
        write(file, replace(adapter, layers=layers, base={"unet": self.base}, about=about))


MEASURES = {
    "loudness": "RMSE in dB, mean difference taken off; less is better",
    "pitch": "share of pitched frames within 50 cents",
    "onset": "F1 within 50 ms",
    "edges": "correlation",
    IP_ADAPTER: "CLAP's cosine to the sound",
    "shield": "CLAP's cosine to the ten clips",
}


def score(name: str, wanted: Tensor, heard: Tensor) -> float:
    """How well a curve is followed, by MEASURES."""
    if name == "loudness":
        apart = heard - wanted
        return float((apart - apart.mean()).square().mean().sqrt())
    if name == "pitch":
        asked = wanted > 0
        cents = 1200 * (heard[asked].clamp(min=1e-3) / wanted[asked]).log2().abs()
        return float((cents < 50).float().mean())
    if name == "onset":
        one, other = (curve.nonzero()[:, 0] for curve in (wanted, heard))
        near = (one[:, None] - other[None]).abs() <= 5
        hits = near.any(1).sum() + near.any(0).sum()
        return float(hits / max(1, len(one) + len(other)))
    one, other = (curve.flatten() - curve.mean() for curve in (wanted, heard))
    return float((one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-6))


def asks(name: str, curve: Tensor) -> bool:
    """Whether a held-out clip's curve says enough to be followed."""
    if name == "loudness":
        return float(curve.std()) > 6
    return int((curve > 0).sum()) >= {"pitch": 60, "onset": 2, "edges": 200}[name]


def held_out(name: str, args: argparse.Namespace, pipe: AudioLDM) -> Iterator[tuple[Tensor, str]]:
    """At most ``args.checked`` held-out windows (N,), no two of one caption, and another window's caption for each."""
    clips: dict[str, Tensor] = {}
    for wave, row in lease.read_valid(args.parts / "valid", args.limit):
        clips.setdefault(row["texts"][0], normalise_peak(wave[: pipe.spec.samples(SECONDS)][None])[0])
    best = sorted(clips)
    if name in MAPS:
        best = [text for text in clips if asks(name, MAPS[name].analyse(clips[text], pipe.spec))]
    best = best[:: max(1, len(best) // args.checked)][: args.checked]
    half = len(best) // 2
    for text, other in zip(best, best[half:] + best[:half], strict=True):
        yield clips[text], other


@torch.no_grad()
def compared(training: Training, args: argparse.Namespace) -> dict[str, Any]:
    """The mean measure with and without the extra, and on how many clips it is better."""
    name, pipe, spec, out = training.name, training.pipe, training.pipe.spec, args.out
    settings: dict[str, Any] = {"seconds": SECONDS, "steps": STEPS, "retry_silent": 0}

    def near(waves: Tensor, target: Tensor) -> list[float]:
        heard = pipe.clap.embed_audio(normalise_peak(waves)[:, None].to(pipe.device), spec.rate)
        return (heard * target).sum(-1).tolist()

    if training.adapter is not None:
        for layer in layers_of(pipe.unet).values():
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        settings["seconds"] = pipe.defaults.seconds
        words, seeds = [WORD] * 6, list(range(6))
        target = training.data["audio"].mean(0, keepdim=True)
        target = target / target.norm()
        before = near(pipe(words, seeds=seeds, **settings), target)
        pipe.adapt(f"{out / 'adapters' / 'shield.safetensors'}")
        after = near(pipe(words, seeds=seeds, **settings), target)
    else:
        net = load_net(out / "control" / name).to(pipe.device)
        clips = list(held_out(name, args, pipe))
        seeds = range(len(clips))
        plain = pipe([words for _, words in clips], seeds=seeds, **settings)
        sounds = torch.stack([wave for wave, _ in clips]).to(pipe.device)
        vectors = pipe.clap.embed_audio(sounds[:, None], spec.rate)
        controls: list[Any] = [
            AudioPromptControl(net, vectors[i : i + 1], MIX)
            if name == IP_ADAPTER
            else MapControl(net, MAPS[name].analyse(wave, spec), spec)
            for i, (wave, _) in enumerate(clips)
        ]
        waves = torch.cat(
            [
                replace(pipe, controls=(control,))([words], seeds=[seed], **settings)
                for seed, ((_, words), control) in enumerate(zip(clips, controls, strict=True))
            ]
        )
        if name == IP_ADAPTER:
            before, after = near(plain, vectors), near(waves, vectors)
        else:

            def follows(heard: Tensor) -> list[float]:
                drawn = [MAPS[name].analyse(normalise_peak(wave[None])[0], spec) for wave in heard]
                return [score(name, c.curve, d) for c, d in zip(controls, drawn, strict=True)]

            before, after = follows(plain), follows(waves)
    sign = -1 if name == "loudness" else 1
    better = sum(sign * (a - b) > 0 for a, b in zip(after, before, strict=True))
    means = [sum(values) / len(values) for values in (before, after)]
    return {
        "without": means[0],
        "with": means[1],
        "better": better,
        "of": len(after),
        "measure": MEASURES[name],
    }


def ten_clips(place: Path) -> list[Path]:
    """The first ten sounds of a folder by name, or of SHIELD in a manifest.   Raises AudioLDMError."""
    if place.is_dir():
        return sorted(place.iterdir())[:10]
    if not (paths := sorted(Path(row.path) for row in manifest.read(place) if SHIELD in row.captions)):
        raise AudioLDMError(f"{place} has no {SHIELD!r}.", "Prepare opensounds with its package 0ad-data.")
    return paths[:10]


def shield_windows(place: Path, pipe: AudioLDM) -> dict[str, Tensor]:
    """Ten clips, each at four places of a window, all called WORD."""
    samples, waves = pipe.spec.samples(pipe.defaults.seconds), []
    for path in ten_clips(place):
        clip = normalise_peak(decode(path, pipe.spec.rate)[None])[0][:samples]
        for late in (0.0, 0.1, 0.25, 0.5):
            begin = int(late * (samples - len(clip)))
            waves.append(nnf.pad(clip, (begin, samples - len(clip) - begin)))
    data = posteriors(pipe, torch.stack(waves).to(pipe.device))
    with torch.no_grad():
        data["text"] = pipe.clap.embed_text([WORD]).expand(len(waves), -1)
    return {**data, "pitch": torch.zeros(len(waves), 1)}


def train(name: str, args: argparse.Namespace) -> None:
    """One extra from begin to end, in a process of its own; the windows may come while it starts."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pipe = AudioLDM.from_pretrained(args.model, device=args.device)
    training, begin = Training(name, pipe, args.model), time.time()
    work = args.out / "work"
    if name == "shield":
        data = shield_windows(args.shield, pipe)
    else:
        while not (work / "windows.safetensors").exists():
            time.sleep(0.2)
        data = load_file(work / "windows.safetensors")
    (work / name).mkdir(exist_ok=True)
    clock = lease.Clock(work / name, args.minutes, args.steps or training.extra.batches)
    count = training.fit(data, clock, args)
    training.save(args.out, count)
    trained = time.time()
    result = {"batches": count, "rows": training.extra.rows, **compared(training, args)}
    (args.out / "checks").mkdir(exist_ok=True)
    (args.out / "checks" / f"{name}.json").write_text(json.dumps(result, indent=1))
    print(name, result, f"{trained - begin:.0f} + {time.time() - trained:.0f} s", flush=True)


def together(names: list[str], args: argparse.Namespace, prepared: Callable[[], None]) -> list[str]:
    """Train ``names``, each in its process; one that fails begins again without recorded steps.   Those that failed."""
    context = get_context("spawn")
    for attempt in range(2):
        args.eager = args.eager or attempt > 0
        processes = {name: context.Process(target=train, args=(name, args)) for name in names}
        for process in processes.values():
            process.start()
        if attempt == 0:
            prepared()
        for process in processes.values():
            process.join()
        names = [name for name, process in processes.items() if process.exitcode]
        if not names:
            break
        print(f"failed: {', '.join(names)}", flush=True)
    return names


def main() -> int:
    """Read the command line and train; 1 if one failed or is no better than nothing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("model", "parts", "shield", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1.8, help="of training, after the windows are there")
    parser.add_argument("--only", nargs="*", choices=tuple(EXTRAS), default=list(EXTRAS))
    parser.add_argument("--windows", type=int, default=8192)
    parser.add_argument("--checked", type=int, default=16, help="held-out clips that each is compared on")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="so many batches instead of minutes: a rehearsal")
    parser.add_argument("--limit", type=int, help="clips: a rehearsal")
    parser.add_argument("--eager", action="store_true")
    args = parser.parse_args()
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    work, begin = args.out / "work", time.time()
    work.mkdir(parents=True, exist_ok=True)

    def prepared() -> None:
        if set(args.only) == {"shield"} or (work / "windows.safetensors").exists():
            return
        # both pools fork before this process touches the GPU
        with Pool(args.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            clips = lease.read_parts(args.parts, len(list(args.parts.glob("part*"))), args.workers)
            torch.manual_seed(args.seed)
            windows = lease.Windows(clips[: args.limit], torch.device(args.device))
            pipe = AudioLDM.from_pretrained(args.model, device=args.device)
            data = prepare(pipe, windows, args.windows, pool)
        with staged(work / "windows.safetensors") as draft:
            save_file({k: v.contiguous() for k, v in data.items()}, draft)
        print(f"{args.windows} windows after {time.time() - begin:.0f} s", flush=True)

    failed = together(args.only, args, prepared)
    results = {
        path.stem: json.loads(path.read_text()) for path in sorted((args.out / "checks").glob("*.json"))
    }
    for name, row in results.items():
        worse = (row["with"] - row["without"]) * (-1 if name == "loudness" else 1) <= 0
        failed += [name] * worse
        print(f"{name:12} {row['without']:7.3f} -> {row['with']:7.3f}  better on {row['better']} of {row['of']}"
              f"  {row['batches']} batches of {row['rows']}{'  NO BETTER' if worse else ''}")  # fmt: skip
    print(f"{time.time() - begin:.0f} s", flush=True)
    if not failed:
        shutil.rmtree(work)
    return 1 if failed and not args.steps else 0


if __name__ == "__main__":
    raise SystemExit(main())
