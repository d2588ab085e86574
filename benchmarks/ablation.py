"""What helped: the embedded U-Net's recipe at a small width, one change at a time, each for the same batches.

    python -m benchmarks.ablation --manifest data/raw/esc10.jsonl                # ten minutes of one core's time
    python -m benchmarks.ablation --manifest data/raw/esc10.jsonl --only recipe,eps
    python -m benchmarks.ablation --table                                        # of what is measured, and nothing else

Every variant is `audioldm train embedded/ldm` with the overrides of ``SMALL`` and its own of ``VARIANTS``; what is done
is in the JSON and is not done again, and a training that was cut off goes on.   All are judged alike: as denoisers on
held-out clips, the same noise at the same levels for all whatever they predict; then by the sounds of ESC-10's prompts.
The recipe is trained from three seeds: a difference within their range is none.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.batch import Condition
from audioldm.cli.train import train
from audioldm.datasets.latents import LatentDataset, collate_latents, scaling_factor
from audioldm.datasets.manifest import Row, read
from audioldm.diffusion.prediction import Denoiser, Prediction, as_denoiser
from audioldm.diffusion.schedule import FlowPath, audioldm, audioldm_zero_snr
from audioldm.diffusion.schedule import Path as NoisePath
from audioldm.evaluation.bars.sounds import Framing, halves, test_fold
from audioldm.evaluation.recognition import PROMPTS, Listener, Tally
from audioldm.evaluation.yamnet import YamNet
from audioldm.metrics.frechet import frechet_rows
from audioldm.nets.folder import load_component
from audioldm.nets.unet import net_call
from audioldm.pipeline.audioldm import EMBEDDED, AudioLDM
from benchmarks.measure import machine

RESULT = Path(__file__).parent / "results" / "embedded-v1" / "ablation.json"
SECONDS = 2.56
SMALL = ("trainer=cpu", "threads=1", "task.unet.channels=[32,64,96]", "batch_size=8", "task.warmup=50",
         "data.shares=null", "data.workers=0")  # fmt: skip
"""The recipe's own: width 96-160-192, batches of 128, 500 batches of warm-up, shares of four sources."""
CACHES = {
    "recipe": ("--windows", "4", "--speed", "0.08"),
    "one speed": ("--windows", "4"),
    "mixup": ("--windows", "4", "--speed", "0.08", "--mixup", "0.3"),
    "val": ("--windows", "4", "--split", "val"),
}
PLAIN = "schedule@task.schedule=audioldm"
FLOW = "task.schedule._target_=audioldm.diffusion.schedule.FlowPath"


@dataclass(frozen=True)
class Variant:
    """Overrides of the recipe, and what the net so trained must be called with."""

    overrides: tuple[str, ...] = ()
    prediction: Prediction = "v"
    schedule: str = "zero SNR"
    cache: str = "recipe"


VARIANTS: dict[str, Variant] = {
    "recipe": Variant(),
    "recipe, seed 1": Variant(("seed=1",)),
    "recipe, seed 2": Variant(("seed=2",)),
    "uniform weights instead of min-SNR": Variant(("task.weighting=uniform",)),
    "schedule without zero terminal SNR": Variant((PLAIN,), schedule="plain"),
    "eps instead of v, without zero terminal SNR": Variant((PLAIN, "task.prediction=eps"), "eps", "plain"),
    "no average of the weights": Variant(("trainer.ema=null",)),
    "timesteps drawn one by one": Variant(("task.draw=uniform",)),
    "no caption dropout": Variant(("task.drop=0",)),
    "captions only": Variant(("task.text_prob=1",)),
    "sounds only": Variant(("task.text_prob=0",)),
    "flow instead of v": Variant((FLOW, "task.prediction=flow"), "flow", "flow"),
    "with mixup .3": Variant(cache="mixup"),
    "windows at their own speed": Variant(cache="one speed"),
}
SAME = ("recipe", "recipe, seed 1", "recipe, seed 2")
LEVELS = 10


def path_of(name: str) -> NoisePath:
    """The schedule of a variant."""
    return {"zero SNR": audioldm_zero_snr, "plain": audioldm, "flow": FlowPath}[name]()


def encode(manifest: Path, work: Path, name: str) -> Path:
    """A cache of ESC-10's latents, made where it is not whole."""
    out = work / "latents" / name.replace(" ", "_")
    words = ["data", "encode", str(manifest), "-o", str(out), "--seconds", str(SECONDS), *CACHES[name]]
    words += ["--vae", str(EMBEDDED / "vae"), "--clap", str(EMBEDDED), "--batch-size", "4"]
    subprocess.run([sys.executable, "-m", "audioldm", *words], check=True, stdout=subprocess.DEVNULL)
    return out


def learn_one(variant: Variant, run: Path, caches: dict[str, Path], batches: int) -> dict[str, float]:
    """Run the recipe in this process; the processor's and the wall's seconds of this sitting."""
    words = [*SMALL, f"batches={batches}", f"val_every={max(1, batches // 2)}", f"run_dir={run}"]
    words += [f"data.folder={caches[variant.cache]}", f"data.val_folder={caches['val']}"]
    cpu, wall = time.process_time(), time.perf_counter()
    train("embedded/ldm", [*words, *variant.overrides], dry_run=False, fresh=False)
    return {
        "cpu_s": round(time.process_time() - cpu, 1),
        "wall_s": round(time.perf_counter() - wall, 1),
    }


def denoiser(unet: Any, variant: Variant, told: Tensor) -> Denoiser:
    """A trained net under captions (B, D), as samplers see it."""
    call = net_call(unet)
    return as_denoiser(
        lambda x, t: call(x, t, Condition(film=told)),
        path_of(variant.schedule),
        prediction=variant.prediction,
    )


@torch.no_grad()
def losses(unet: Any, variant: Variant, val: Path, factor: float, unit: float) -> dict[str, float]:
    """Errors on held-out latents, mean over LEVELS even times of AudioLDM's own schedule; the same draws for all.

    ``factor`` scales latents as in the training, ``unit`` is the recipe's own factor, in which errors are told.
    """
    data, rng = LatentDataset(val, seed=0), torch.Generator().manual_seed(1)
    held = collate_latents([data[i] for i in range(len(data))])
    z = held.mean * factor
    path = audioldm()
    totals = torch.zeros(3, dtype=torch.float64)
    for t in (torch.arange(LEVELS) + 0.5) * path.length / LEVELS:
        sigma = path.sigma_at(t).expand(len(z))
        x = z + float(sigma[0]) * torch.randn(z.shape, generator=rng)
        said = torch.cat([
            denoiser(unet, variant, text)(part, level)
            for part, level, text in zip(x.split(16), sigma.split(16), held.text.split(16), strict=True)
        ])  # fmt: skip
        error, snr = float((said - z).square().mean()) * (unit / factor) ** 2, float(sigma[0]) ** -2
        totals += torch.tensor([error * snr, error, error * min(snr, 5.0)], dtype=torch.float64)
    return dict(zip(("eps", "x0", "x0_min_snr"), (totals / LEVELS).tolist(), strict=True))


class Ear:
    """The classifier of real ESC-10 clips, and held-out real sound as a crowd."""

    def __init__(self, rows: Sequence[Row], seeds: int) -> None:
        self.yamnet, self.seeds, self.framing = YamNet(), seeds, Framing(SECONDS)
        self.listener = Listener.train(rows, self.yamnet)
        fold = test_fold(rows)
        self.held = self.embed([self.framing.of_row(row) for row in fold])
        half, _ = halves(rows, per_class=seeds, opensounds=0)
        self.real_fd = frechet_rows(self.embed([self.framing.of_row(row) for row in half]), self.held)

    def embed(self, waves: Sequence[Tensor]) -> Tensor:
        """YAMNet's embeddings (n, 1024)."""
        return torch.stack([self.yamnet.pooled(wave) for wave in waves])

    def judge(self, pipe: AudioLDM) -> dict[str, Any]:
        """Recognition and Fréchet distance of the prompts' clips; the seeds are the same for all."""
        wanted, heard, framed = [], [], []
        for label, prompt in PROMPTS.items():
            for wave in pipe([prompt] * self.seeds, seeds=range(self.seeds), seconds=SECONDS):
                wanted.append(label)
                heard.append(self.listener.hear(wave.clamp(-1, 1)))
                framed.append(self.framing(wave, pipe.spec.rate))
        tally = Tally.of(wanted, heard)
        hits = {label: hit for label, (hit, _) in tally.counts.items()}
        return {
            "recognised": tally.total[0],
            "of": tally.total[1],
            "per_class": hits,
            "fd": frechet_rows(self.embed(framed), self.held),
        }


def pipe_of(unet: Any, variant: Variant, factor: float) -> AudioLDM:
    """The embedded model with another U-Net."""
    pipe = AudioLDM.from_pretrained()
    pipe.vae.register_to_config(scaling_factor=factor)
    schedule: Any = path_of(variant.schedule)
    return replace(pipe, unet=unet, prediction=variant.prediction, schedule=schedule)


def table(book: dict[str, Any]) -> str:
    """Markdown; every number that lies outside the range of the recipe's seeds says on which side."""
    rows = book["rows"]
    base = [rows[name] for name in SAME if name in rows]

    def cell(row: dict[str, Any], key: str, digits: int, *, less: bool = True) -> str:
        if row.get(key) is None:
            return "not run"
        known = [r[key] for r in base if r.get(key) is not None]
        value, mark = row[key], ""
        if row not in base and len(known) > 1 and not min(known) <= value <= max(known):
            mark = " better" if (value < min(known)) == less else " worse"
        return f"{value:.{digits}f}{mark}"

    lines = [
        "| | batches | CPU s | error of eps | error of x0 | min-SNR error of x0 | recognised of "
        f"{book['clips']} | FD |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        cells = [cell(row, "eps", 4), cell(row, "x0", 3), cell(row, "x0_min_snr", 4)]
        cells += [cell(row, "recognised", 0, less=False), cell(row, "fd", 1)]
        lines.append(f"| {name} | {row['batches']} | {row['cpu_s']:.0f} | " + " | ".join(cells) + " |")
    if "real" in book:
        real = book["real"]
        lines.append(f"| real clips | | | | | | {real['recognised']} of {real['of']} | {real['fd']:.1f} |")
    return "\n".join(lines) + "\n"


def learn(given: argparse.Namespace, names: Sequence[str], book: dict[str, Any], save: Any) -> None:
    """Train what is not trained, and judge it on held-out latents."""
    caches = {name: encode(given.manifest, given.work, name) for name in ("val", "recipe")}
    for name in names:
        variant, start = VARIANTS[name], {"batches": given.batches, "cpu_s": 0.0, "wall_s": 0.0}
        row = book["rows"].setdefault(name, start)
        if "eps" in row:
            continue
        if variant.cache not in caches:
            caches[variant.cache] = encode(given.manifest, given.work, variant.cache)
        run = folder(given.work, name)
        for key, value in learn_one(variant, run, caches, given.batches).items():
            row[key] = round(row[key] + value, 1)
        unet = load_component(run / "model" / "unet")
        row |= {"overrides": list(variant.overrides), "cache": variant.cache}
        factors = (scaling_factor(caches[variant.cache]), scaling_factor(caches["recipe"]))
        row |= losses(unet, variant, caches["val"], *factors)
        save()
        print(name, json.dumps({k: row[k] for k in ("cpu_s", "eps", "x0", "x0_min_snr")}), flush=True)


def listen(given: argparse.Namespace, names: Sequence[str], book: dict[str, Any], save: Any) -> None:
    """Generate from what is trained and not heard."""
    todo = [name for name in names if "fd" not in book["rows"][name]]
    if not todo:
        return
    ear = Ear(read(given.manifest), given.seeds)
    real = ear.listener.real.total
    book |= {"real": {"recognised": real[0], "of": real[1], "fd": ear.real_fd}}
    for name in todo:
        variant = VARIANTS[name]
        cache = given.work / "latents" / variant.cache.replace(" ", "_")
        unet = load_component(folder(given.work, name) / "model" / "unet")
        book["rows"][name] |= ear.judge(pipe_of(unet, variant, scaling_factor(cache)))
        save()
        print(name, json.dumps({k: book["rows"][name][k] for k in ("recognised", "fd")}), flush=True)


def folder(work: Path, name: str) -> Path:
    """Where a variant is trained."""
    return work / "runs" / "".join(c if c.isalnum() else "_" for c in name)


def main(arguments: list[str] | None = None) -> None:
    """Train all, then listen to all, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, default=Path("data/raw/esc10.jsonl"))
    parser.add_argument("--batches", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=4, help="clips of each ESC-10 prompt")
    parser.add_argument("--only", default="", help="names of variants, joined by ;")
    parser.add_argument("--mute", action="store_true", help="judge by held-out latents only")
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(arguments)
    new = {
        "machine": machine("cpu"),
        "small": list(SMALL),
        "seconds": SECONDS,
        "clips": 10 * given.seeds,
        "rows": {},
    }
    book = json.loads(given.out.read_text()) if given.out.is_file() else new

    def save() -> None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(book, indent=1))

    if not given.table:
        names = [name.strip() for name in given.only.split(";") if name.strip()] or list(VARIANTS)
        if unknown := [name for name in names if name not in VARIANTS]:
            parser.error(f"unknown variant {unknown[0]!r}; known: {'; '.join(VARIANTS)}")
        torch.set_num_threads(1)
        learn(given, names, book, save)
        if not given.mute:
            listen(given, names, book, save)
    print(table(book))


if __name__ == "__main__":
    main()
