"""Every way to steer or teach the embedded model, side by side: what each costs, and what it does with and without.

    python -m benchmarks.ways data/raw/esc10.jsonl -o benchmarks/results/ways.json
    python -m benchmarks.ways --show benchmarks/results/ways.json

The manifest's clips need one label each and a validation split.   What is taught is a doorbell, made by rule, which the
model does not know.   Judged by CLAP's cosine to eight such doorbells or to the sound that is followed, by the loudness
curve, or by which of the labels CLAP finds nearest.   Eight clips a measure: enough to see what works, not to rank
what is close.   "Others" is CLAP's cosine of other prompts' clips to what the model made of them before.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm import AudioLDM, recipes
from audioldm.control.controls import AudioPromptControl, MapControl, load_net
from audioldm.control.maps import MAPS
from audioldm.convert.reference import EMBEDDED
from audioldm.datasets.decode import decode, encode
from audioldm.datasets.manifest import Row, read
from audioldm.pipeline.conditions import clap_of
from audioldm.pipeline.guidance import GuidanceConfig, TargetClass

CLIPS = 8
PERSONAL = {
    "LoRA": ("lora", {}), "LoCon": ("locon", {}), "LoHa": ("loha", {}),
    "DreamBooth": ("dreambooth", {"task.prior.clips": 8}), "Textual Inversion": ("textual_inversion", {}),
}  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One row of the table."""

    name: str
    parameters: int
    minutes: float
    measure: str
    without: float
    with_it: float
    others: float | None = None


def doorbell(rate: int, number: int) -> Tensor:
    """Two struck tones (N,), the second lower; each a little different."""
    t = torch.arange(round(1.6 * rate)) / rate

    def strike(hertz: float, at: float) -> Tensor:
        after = (t - at).clamp(min=0)
        parts = [
            torch.exp(-after * (3 + 0.3 * number) * k) * torch.sin(2 * math.pi * hertz * k * after) / k
            for k in (1, 2, 3)
        ]
        return torch.stack(parts).sum(0)

    return 0.3 * (strike(660 + 6 * number, 0.02) + strike(524 + 5 * number, 0.47 + 0.02 * number))


class Bench:
    """The embedded model, the doorbells, the clips of the manifest, and where runs go."""

    def __init__(self, manifest: Path, work: Path, device: str, batches: int) -> None:
        self.work, self.device, self.batches, self.manifest = work, device, batches, manifest
        self.pipe = AudioLDM.from_pretrained(device=device)
        rows = [row for row in read(manifest) if row.labels]
        self.held = [row for row in rows if row.split == "val"][:CLIPS]
        self.labels = {row.labels[0]: row.captions[0] for row in rows}
        self.mine = work / "mine"
        self.mine.mkdir(parents=True, exist_ok=True)
        waves = [doorbell(self.pipe.spec.rate, number) for number in range(8)]
        for number, wave in enumerate(waves):
            encode(self.mine / f"{number}.wav", wave, self.pipe.spec.rate)
        self.bells = clap_of(self.pipe, torch.stack(waves)).mean(0, keepdim=True)
        self.asked = ["a dog barking", "rain falling", "a clock ticking", "sea waves"] * 2
        self.before = clap_of(self.pipe, self.pipe(self.asked, seeds=range(CLIPS)))

    def cache(self, split: str) -> Path:
        """Latents of a split, with loudness maps."""
        out, part = self.work / f"latents_{split}", EMBEDDED
        words = [
            str(self.manifest),
            "-o",
            str(out),
            "--split",
            split,
            "--seconds",
            "5.12",
            "--maps",
            "loudness",
        ]
        words += ["--vae", str(part / "vae"), "--clap", str(part), "--device", self.device, "--force"]
        subprocess.run([sys.executable, "-m", "audioldm", "data", "encode", *words], check=True)
        return out

    def learn(self, recipe: str, **settings: Any) -> tuple[Any, float]:
        """A recipe's trained module, and its minutes."""
        trainer = "gpu" if self.device == "cuda" else "cpu"
        fixed = {
            "batches": self.batches,
            "val_every": 10**6,
            "trainer": trainer,
            "run_dir": self.work / recipe,
        }
        words = [f"{key}={value}" for key, value in {**fixed, **settings}.items()]
        experiment = recipes.build(recipes.load(recipe, words), fresh=True)
        experiment.trainer.progress_bar_callback.disable()
        begin = time.time()
        experiment.fit()
        return experiment.module, (time.time() - begin) / 60

    def like_bells(self, pipe: AudioLDM, prompt: str) -> float:
        """Mean cosine of a prompt's clips and the doorbells."""
        return cosine(clap_of(pipe, pipe([prompt] * CLIPS, seeds=range(CLIPS))), self.bells)

    def personal(self, name: str) -> Way:
        """One way to teach a sound."""
        recipe, settings = PERSONAL[name]
        word = recipe == "textual_inversion"
        module, minutes = self.learn(
            f"personal/{recipe}", **{"data.folder": self.mine, "data.prompt": "my sound", **settings}
        )
        size = sum(p.numel() for p in module.parameters() if p.requires_grad)
        result = self.work / "personal" / recipe / "model"
        pipe = AudioLDM.from_pretrained(result if recipe == "dreambooth" else None, device=self.device)
        if recipe != "dreambooth":
            pipe.adapt(result / "adapter.safetensors")
        prompt = "<mine>" if word else "my sound"
        others = cosine(clap_of(pipe, pipe(self.asked, seeds=range(CLIPS))), self.before)
        first = self.like_bells(self.pipe, "my sound")
        return Way(name, size, minutes, "CLAP to the doorbells", first, self.like_bells(pipe, prompt), others)

    def followed(self, kind: str) -> Way:
        """A net that follows loudness: correlation (over frames) of the curve asked for and the curve made, in dB."""
        module, minutes = self.learn(f"control/{kind}", **{"data.folder": self.work / "latents_train"})
        net = load_net(self.work / "control" / kind / "model" / "control").to(self.device)
        spec, waves = self.pipe.spec, [self.wave(row) for row in self.held]
        curves = [MAPS["loudness"].analyse(wave, spec) for wave in waves]

        def follows(steer: bool) -> float:
            values = []
            for seed, (curve, row) in enumerate(zip(curves, self.held, strict=True)):
                pipe = replace(self.pipe, controls=(MapControl(net, curve, spec),)) if steer else self.pipe
                made = MAPS["loudness"].analyse(pipe([row.captions[0]], seeds=[seed])[0], spec)
                length = min(len(made), len(curve))
                values.append(
                    float(torch.corrcoef(torch.stack([made[:length], curve[:length]]))[0, 1].nan_to_num())
                )
            return sum(values) / len(values)

        size = sum(p.numel() for p in module.control.parameters())
        name = {"controlnet": "ControlNet", "t2i_adapter": "T2I-Adapter"}[kind]
        return Way(name, size, minutes, "correlation of loudness", follows(False), follows(True))

    def wave(self, row: Row) -> Tensor:
        """A held-out clip (N,), as long as the model's own."""
        spec = self.pipe.spec
        wave = decode(row.path, spec.rate, start=row.start, seconds=row.seconds)[: spec.samples(5.12)]
        return nnf.pad(wave, (0, spec.samples(5.12) - len(wave)))

    def ip_adapter(self) -> Way:
        """Attention to a sound under a prompt that says nothing of it."""
        settings = {"data.folder": self.work / "latents_train"}
        module, minutes = self.learn("control/ip_adapter", **settings)
        net = load_net(self.work / "control" / "ip_adapter" / "model" / "control").to(self.device)
        vectors = clap_of(self.pipe, torch.stack([self.wave(row) for row in self.held]))

        def near(scale: float) -> float:
            waves = [
                replace(self.pipe, controls=(AudioPromptControl(net, vector[None], scale),))(
                    ["a sound"], seeds=[i]
                )
                for i, vector in enumerate(vectors)
            ]
            return cosine(clap_of(self.pipe, torch.cat(waves)), vectors)

        size = sum(p.numel() for p in module.control.parameters())
        return Way("IP-Adapter", size, minutes, "CLAP to the sound", near(0.0), near(1.0))

    def classifier(self) -> Way:
        """Classifier guidance without a prompt: clips that CLAP finds nearest to the caption of the label."""
        folders = {"data.folder": self.work / "latents_train", "data.val_folder": "null"}
        module, minutes = self.learn("embedded/classifier", **folders)
        texts = self.pipe.clap.embed_text(list(self.labels.values()))
        target = TargetClass.load(
            self.work / "embedded" / "classifier" / "model" / "classifier", next(iter(self.labels))
        )

        def recognised(scale: float) -> float:
            right = 0
            for place, label in enumerate(self.labels):
                config = GuidanceConfig(classifier=replace(target, label=label), classifier_scale=scale)
                waves = self.pipe(
                    [""] * 4, seeds=range(4), guidance=1.0, guidance_config=config if scale else None
                )
                right += int((clap_of(self.pipe, waves) @ texts.T).argmax(1).eq(place).sum())
            return right / (4 * len(self.labels))

        size = sum(p.numel() for p in module.parameters())
        return Way(
            "classifier guidance", size, minutes, "share CLAP recognises", recognised(0.0), recognised(4.0)
        )


def cosine(first: Tensor, second: Tensor) -> float:
    """Mean cosine of rows."""
    return float(nnf.cosine_similarity(first, second, dim=-1).mean())


def table(rows: list[Way]) -> str:
    """Markdown."""
    lines = [
        "| way | trained numbers | minutes | measured | without | with | others |",
        "|---|--:|--:|---|--:|--:|--:|",
    ]
    for row in rows:
        others = "" if row.others is None else f"{row.others:.2f}"
        lines.append(
            f"| {row.name} | {row.parameters:,} | {row.minutes:.1f} | {row.measure} | {row.without:.2f} "
            f"| {row.with_it:.2f} | {others} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, train every way and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("-o", "--out", type=Path, default=Path("out/ways.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/ways"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--show", type=Path, help="print a table that was made")
    args = parser.parse_args()
    if args.show:
        print(table([Way(**row) for row in json.loads(args.show.read_text())["ways"]]))
        return
    bench = Bench(args.manifest.absolute(), args.work.absolute(), args.device, args.batches)
    bench.cache("train")
    steps: list[Callable[[], Way]] = [bench.classifier, bench.ip_adapter]
    steps += [lambda kind=kind: bench.followed(kind) for kind in ("t2i_adapter", "controlnet")]  # type: ignore[misc]
    steps += [lambda name=name: bench.personal(name) for name in PERSONAL]  # type: ignore[misc]
    rows: list[Way] = []
    for step in steps:
        rows.append(step())
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        about = {"device": args.device, "batches": args.batches, "clips": CLIPS, "base": bench.pipe.hashes}
        args.out.write_text(json.dumps({**about, "ways": [asdict(row) for row in rows]}, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
