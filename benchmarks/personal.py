"""Every way to teach a model a sound, side by side: how near, how obedient, how varied, what it forgets, and the price.

    python -m benchmarks.personal data/raw/opensounds.jsonl --base data/raw/esc10.jsonl
    python -m benchmarks.personal ... --batches 40 --batch-size 4 --steps 10        # quicker, and says so

For each of three sets of ten clips, none of which the embedded model was trained on, every recipe learns the clips
under the prompt "my sound" from the same base, seed, batches and batch size; the class that DreamBooth preserves, and
the words that a new word begins at, are the set's caption.   Then each result is asked for

  target      clips of "my sound" (<mine> for the new word): mean cosine to each of the ten clips, by the base's CLAP
              and by YAMNet, which is given the loudest second (of 5 s it would mostly hear the silence after a blow);
              diversity is 1 - the mean cosine between them, by YAMNet
  adherence   the prompt and another thing, "my sound with rain falling": CLAP's cosine of the sound with "rain falling"
  forgetting  the base's own prompts (the captions of --base) without the sound: YAMNet's Frechet distance to the real
              test clips, less that of the base model with the same prompts and seeds

Minutes are of one processor core, so that other load on the machine counts little, and memory is the greatest resident
size of the training process; with --device cuda they are wall minutes and the most that torch had allocated there.
A cell that is done is kept in the JSON file and not made again.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm import recipes
from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row, read
from audioldm.evaluation.yamnet import HOP, SHORTEST, YamNet
from audioldm.metrics.diversity import mean_pairwise_cosine_distance
from audioldm.metrics.frechet import frechet_rows
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.conditions import clap_of
from benchmarks.personal_table import METHODS, tables

SETS = {
    "shield": "a blow landing on a metal shield",
    "scream": "a woman screaming in pain",
    "arrow": "an arrow hitting wood",
}
"""Captions of opensounds that no row of its training split has."""
PROMPT, CLIPS = "my sound", 10
OTHERS = ("rain falling", "a dog barking")


@dataclass(frozen=True)
class Bench:
    """The models that listen, and how much is asked."""

    settings: argparse.Namespace
    yamnet: YamNet
    base: AudioLDM
    """never adapted: its CLAP judges"""
    real: Tensor
    """YAMNet embeddings (n, D) of the base domain's test clips"""
    captions: list[str]

    def padded(self, wave: Tensor) -> Tensor:
        """A clip (N,) as long as a generated one."""
        length = self.base.spec.samples(self.base.defaults.seconds)
        return nnf.pad(wave[:length], (0, max(0, length - len(wave))))

    def heard(self, waves: Tensor) -> dict[str, Tensor]:
        """Unit vectors of waves (n, N) by both judges."""
        told = clap_of(self.base, waves).cpu()
        levelled = waves / waves.abs().amax(1, keepdim=True).clamp(min=1e-4) * 0.5
        rows = torch.stack([self.yamnet.pooled(wave) for wave in levelled])
        near = torch.stack([self.yamnet.pooled(loudest(wave)) for wave in levelled])
        return {"clap": nnf.normalize(told, dim=-1), "yamnet": nnf.normalize(near, dim=-1), "rows": rows}

    def make(self, pipe: AudioLDM, prompts: list[str], first: int) -> Tensor:
        """One clip (n, N) of each prompt, seeds from ``first`` on."""
        seeds = [first + i for i in range(len(prompts))]
        return pipe(
            prompts, seeds=seeds, steps=self.settings.steps, refine_phase=self.settings.refine_phase
        ).cpu()

    def judged(self, pipe: AudioLDM, prompt: str, target: dict[str, Tensor]) -> dict[str, float]:
        """Nearness, diversity and adherence of one model under one prompt."""
        own = self.heard(self.make(pipe, [prompt] * self.settings.clips, 0))
        found = {name: float((own[name] @ target[name].T).mean()) for name in ("clap", "yamnet")}
        found["diversity"] = mean_pairwise_cosine_distance(own["yamnet"])
        asked = [other for other in OTHERS for _ in range(self.settings.clips // 2)]
        mixed = self.heard(self.make(pipe, [f"{prompt} with {other}" for other in asked], 100))
        with torch.no_grad():
            words = self.base.clap.embed_text(asked).cpu()
        return {**found, "adherence": float((mixed["clap"] * words).sum(1).mean())}

    def distance(self, pipe: AudioLDM) -> float:
        """Frechet distance of the base's own prompts to the real clips."""
        prompts = self.captions * self.settings.seeds
        return frechet_rows(self.heard(self.make(pipe, prompts, 1000))["rows"], self.real)


def loudest(wave: Tensor) -> Tensor:
    """The second (or one YAMNet patch, 0.975 s) of a wave (N,) with the most power."""
    power = nnf.avg_pool1d(wave.square()[None], SHORTEST, HOP)[0]
    first = int(power.argmax()) * HOP
    return wave[first : first + SHORTEST]


def chosen(manifest: Path, caption: str) -> list[Row]:
    """The first ten held-out clips with this caption, by hash."""
    rows = read(manifest)
    if any(row.split == "train" and caption in row.captions for row in rows):
        raise SystemExit(f"{caption!r} is in the training split of {manifest}")
    found = [row for row in rows if row.split != "train" and row.captions[0] == caption]
    found = sorted(found, key=lambda row: row.sha256)[:CLIPS]
    if len(found) < CLIPS:
        raise SystemExit(f"{manifest} has {len(found)} clips of {caption!r}, not {CLIPS}")
    return found


def train(recipe: str, overrides: list[str], cuda: bool, answers: Any) -> None:
    """Run one recipe in this process; put what it cost into ``answers``."""
    clock = time.perf_counter if cuda else time.process_time
    begin = clock()
    cfg = recipes.load(recipe, overrides)
    experiment = recipes.build(cfg)
    recipes.open_run(cfg, overrides, fresh=True)
    experiment.trainer.fit(experiment.module, experiment.data)
    parameters = sum(math.prod(p.shape) for p in experiment.module.parameters() if p.requires_grad)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    peak = (torch.cuda.max_memory_allocated() if cuda else resident) / 1024**3
    answers.put({"parameters": parameters, "minutes": (clock() - begin) / 60, "gigabytes": peak})


def cell(bench: Bench, method: str, name: str, folder: Path, target: dict[str, Tensor]) -> dict[str, float]:
    """One method on one set: trained in a process of its own, then judged."""
    run, recipe = folder / name / METHODS[method], METHODS[method]
    shutil.rmtree(run, ignore_errors=True)
    overrides = [
        f"data.folder={folder / name / 'sounds'}",
        f"data.prompt={PROMPT}",
        f"batches={bench.settings.batches}",
        f"batch_size={bench.settings.batch_size}",
        f"run_dir={run}",
        "threads=1",
    ]
    if recipe == "textual_inversion":
        overrides.append(f"task.start={SETS[name]}")
    if recipe.startswith("dreambooth"):
        overrides += [f"task.prior.prompt={SETS[name]}", f"task.prior.clips={bench.settings.prior}"]
    cuda = bench.settings.device != "cpu"
    overrides += ["trainer=gpu", "trainer.precision=32-true"] if cuda else []
    context = multiprocessing.get_context("spawn" if cuda else "fork")  # a GPU's state cannot be forked
    answers = context.SimpleQueue()
    process = context.Process(target=train, args=(f"personal/{recipe}", overrides, cuda, answers))
    process.start()
    process.join()
    if answers.empty():
        raise SystemExit(f"{method} on {name}: the training ended with code {process.exitcode}")
    found = answers.get()
    file = run / "model" / "adapter.safetensors"
    weights = file if file.exists() else next((run / "model" / "unet").glob("*.safetensors"))
    found["megabytes"] = weights.stat().st_size / 1e6
    pipe = AudioLDM.from_pretrained(None if file.exists() else run / "model", device=bench.settings.device)
    pipe = pipe.adapt(file) if file.exists() else pipe
    prompt = "<mine>" if recipe == "textual_inversion" else PROMPT
    found |= bench.judged(pipe, prompt, target)
    found["forgetting"] = bench.distance(pipe)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return found


def run(settings: argparse.Namespace) -> dict[str, Any]:
    """Every cell that is not in the file yet."""
    torch.set_num_threads(1)
    rows = [row for row in read(settings.base) if row.split == "test"]
    captions = sorted({row.captions[0] for row in rows})
    base, yamnet = AudioLDM.from_pretrained(device=settings.device), YamNet()
    bench = Bench(settings, yamnet, base, torch.empty(0), captions)
    real = [
        bench.padded(decode(row.path, base.spec.rate, start=row.start, seconds=row.seconds)) for row in rows
    ]
    bench = Bench(settings, yamnet, base, bench.heard(torch.stack(real))["rows"], captions)
    path = settings.out / "personal.json"
    asked = {k: v for k, v in vars(settings).items() if k not in ("out", "work", "manifest", "base")}
    about = {"settings": asked, "base": base.name, "unet": base.hashes["unet"], "sets": SETS, "cells": {}}
    content = json.loads(path.read_text()) if path.exists() else about
    if {k: v for k, v in content.items() if k != "cells"} != {k: v for k, v in about.items() if k != "cells"}:
        raise SystemExit(f"{path} is of other settings or another model: move it away")

    def keep(method: str, name: str, found: dict[str, float]) -> None:
        content["cells"].setdefault(name, {})[method] = {**found, "load": os.getloadavg()[0]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))
        (settings.out / "personal.md").write_text(tables(content))

    untouched = None
    for name, caption in SETS.items():
        clips = chosen(settings.manifest, caption)
        sounds = settings.work / name / "sounds"
        sounds.mkdir(parents=True, exist_ok=True)
        for row in clips:
            shutil.copy(row.path, sounds)
        waves = [bench.padded(decode(row.path, base.spec.rate)) for row in clips]
        target = bench.heard(torch.stack(waves))
        done = content["cells"].get(name, {})
        if "real clips" not in done:
            far = 1 - torch.eye(CLIPS)
            near = {k: float((target[k] @ target[k].T * far).sum() / far.sum()) for k in ("clap", "yamnet")}
            keep("real clips", name, {**near, "diversity": mean_pairwise_cosine_distance(target["yamnet"])})
        for method, prompt in (("base, told the caption", caption), ('base, told "my sound"', PROMPT)):
            if method not in done:
                untouched = bench.distance(base) if untouched is None else untouched
                keep(method, name, {**bench.judged(base, prompt, target), "forgetting": untouched})
        for method in METHODS:
            if method not in done:
                keep(method, name, cell(bench, method, name, settings.work, target))
                print(f"{name}: {method}", flush=True)
    return content


def main() -> None:
    """Run, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="opensounds.jsonl")
    parser.add_argument("--base", type=Path, required=True, help="esc10.jsonl: what the base model is for")
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--prior", type=int, default=16, help="class clips of DreamBooth")
    parser.add_argument(
        "--clips", type=int, default=8, help="clips of the target, and as many of mixed prompts"
    )
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each prompt of the base")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--refine-phase", type=int, default=16)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results/personal"))
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/personal"))
    settings = parser.parse_args()
    print(tables(run(settings)))


if __name__ == "__main__":
    main()
