"""One table of what changes a trained model from outside: adapters, words, controls, sound prompts, a classifier.

    python -m recipes.personal.compare my_sounds/ --prompt "typing on a keyboard" --right "Computer keyboard|Typing" \
        --clips held_out/ --classifier runs/embedded/classifier/model/classifier --device cuda -o out/compare

Adapters are trained by their recipes, at their length, on ``my_sounds``, and judged by YAMNet: the mean score of the
right classes over 24 clips of the prompt, and how many of 40 clips of other prompts (ESC-10's classes) are still
recognised.   Controls that come with the model are judged on held-out clips with captions, each under another clip's
caption, by the measures of ``recipes.embedded.extras``.   The same noise with and without, always.   Rows that an
earlier call left in ``-o`` stay in the table.   N samples.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audioldm.control.controls import IP_ADAPTER, AudioPromptControl, MapControl, load_net
from audioldm.control.maps import MAPS
from audioldm.convert.reference import EMBEDDED
from audioldm.datasets.decode import decode
from audioldm.datasets.prepare.folder import folder as rows_of
from audioldm.evaluation.embedders.yamnet import YamNet
from audioldm.evaluation.prompts import class_scores, fits, right_classes
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.pipeline.guidance import GuidanceConfig, TargetClass
from audioldm.signal.level import normalise_peak
from audioldm.tables import markdown
from recipes.embedded.extras import MEASURES, MIX, asks, score

ADAPTERS = ("lora", "locon", "loha", "lokr", "dora", "dreambooth", "dreambooth_lora", "textual_inversion")
OTHERS = {
    "a dog barking": "Dog|Bark", "rain falling": "Rain", "sea waves": "Ocean|Waves", "a baby crying": "Baby cry",
    "a clock ticking": "Tick|Clock", "a person sneezing": "Sneeze", "a helicopter flying": "Helicopter",
    "a chainsaw running": "Chainsaw", "a rooster crowing": "Crowing|Chicken", "a crackling fire": "Crackle|Fire",
}  # fmt: skip
LABELS = dict(zip(OTHERS, ("dog bark", "rain", "sea waves", "baby cry", "clock tick", "person sneeze", "helicopter",
                           "chainsaw", "rooster", "fire crackling"), strict=True))  # fmt: skip
"""ESC-10's names of them, which its classifier knows"""
Row = dict[str, Any]


class Compared:
    """The model, its judge, and the rows of the table so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.yamnet, file = args, YamNet(), args.out / "compare.json"
        self.rows: list[Row] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
        self.pipe = AudioLDM.from_pretrained(args.model, device=args.device)
        self.settings: Row = {"batch_size": 12, **({"steps": 2} if args.quick else {})}
        self.seeds = 2 if args.quick else 24

    @cached_property
    def base(self) -> tuple[list[float], int]:
        """The model alone: its scores of the prompt, and how many clips of others are recognised."""
        return self.target(self.pipe, self.args.prompt), self.kept(self.pipe)

    def scores(self, waves: Tensor) -> list[dict[str, float]]:
        rate = self.pipe.spec.rate
        return [class_scores(normalise_peak(wave[None].cpu())[0], rate, self.yamnet) for wave in waves]

    def target(self, pipe: AudioLDM, prompt: str) -> list[float]:
        """The largest score of a right class, of each clip."""
        waves = pipe([prompt] * self.seeds, seeds=range(self.seeds), **self.settings)
        right = self.args.right.split("|")
        return [max(p for name, p in scores.items() if fits(name, right)) for scores in self.scores(waves)]

    def kept(self, pipe: AudioLDM) -> int:
        """Recognised clips of the other prompts, four of each."""
        prompts = [prompt for prompt in OTHERS for _ in range(1 if self.args.quick else 4)]
        waves = pipe(prompts, seeds=range(len(prompts)), **self.settings)
        pairs = zip(prompts, self.scores(waves), strict=True)
        return sum(bool(right_classes(scores, OTHERS[prompt].split("|"))) for prompt, scores in pairs)

    def add(self, name: str, measure: str, before: list[float], after: list[float], **more: Any) -> None:
        """A row: means without and with, their difference with its standard error, on how many clips it is better."""
        gain = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
        better = int((-gain if "RMSE" in measure else gain).gt(0).sum())
        difference = f"{gain.mean():+.3f} ± {gain.std() / len(gain) ** 0.5:.3f}"
        means = [f"{sum(values) / len(values):.3f}" for values in (before, after)]
        row = {"net": name, "measure": measure, "without": means[0], "with": means[1]}
        row |= {"difference": difference, "better on": f"{better} of {len(gain)}", **more}
        self.rows = [one for one in self.rows if one["net"] != name] + [row]
        columns = (
            "net",
            "measure",
            "without",
            "with",
            "difference",
            "better on",
            "others kept",
            "MB",
            "minutes",
        )
        table = [[str(one.get(column, "")) for column in columns] for one in self.rows]
        (self.args.out / "compare.json").write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        (self.args.out / "compare.md").write_text(markdown(columns, table) + "\n", encoding="utf-8")
        print(self.rows[-1], flush=True)

    def adapter(self, kind: str) -> None:
        """Train by the recipe and judge; the whole U-Net of DreamBooth is a model of its own."""
        run, begin = self.args.out / kind, time.time()
        short = ["batches=2", "val_every=2", "batch_size=2"] if self.args.quick else []
        words = [
            f"data.folder={self.args.sounds}",
            f"data.prompt='{self.args.prompt}'",
            f"run_dir={run}",
            *short,
        ]
        words += ["data.windows=1", f"trainer={'gpu' if self.args.device == 'cuda' else 'cpu'}"]
        with (self.args.out / f"{kind}.log").open("w") as log:
            command = [sys.executable, "-m", "audioldm", "train", f"personal/{kind}", *words]
            subprocess.run(command, stdout=log, stderr=log, check=True)
        minutes, file = (time.time() - begin) / 60, run / "model" / "adapter.safetensors"
        pipe = AudioLDM.from_pretrained(
            self.args.model if file.exists() else run / "model", device=self.args.device
        )
        if file.exists():
            pipe.adapt(str(file))
        files = [file] if file.exists() else list((run / "model" / "unet").glob("*.safetensors"))
        prompt = "<mine>" if kind == "textual_inversion" else self.args.prompt
        size = sum(one.stat().st_size for one in files) / 1e6
        kept = f"{self.kept(pipe)} of {self.base[1]}"
        about = {"others kept": kept, "MB": f"{size:.2f}", "minutes": f"{minutes:.1f}"}
        self.add(kind, "YAMNet's score", self.base[0], self.target(pipe, prompt), **about)

    def clips(self, name: str) -> list[tuple[Tensor, str]]:
        """At most 16 held-out windows (N,) that the map has something to say of, each with another one's caption."""
        spec, out = self.pipe.spec, list[tuple[Tensor, str]]()
        seconds = spec.latent_frames(2.56) * spec.seconds_per_latent
        for row in (row for row in rows_of(self.args.clips) if row.captions):
            wave = decode(row.path, rate=spec.rate, seconds=seconds)[: spec.samples(seconds)]
            wave = normalise_peak(
                torch.nn.functional.pad(wave, (0, spec.samples(seconds) - len(wave)))[None]
            )[0]
            if name == IP_ADAPTER or asks(name, MAPS[name].analyse(wave, spec)):
                out.append((wave, row.captions[0]))
            if len(out) == (2 if self.args.quick else 16):
                break
        half = len(out) // 2
        return [(wave, out[(i + half) % len(out)][1]) for i, (wave, _) in enumerate(out)]

    @torch.no_grad()
    def control(self, name: str) -> None:
        """A net that comes with the model, on held-out clips."""
        pipe, spec, clips = self.pipe, self.pipe.spec, self.clips(name)
        net = load_net(Path(self.args.nets) / name).to(pipe.device)
        vectors = pipe.clap.embed_audio(
            torch.stack([wave for wave, _ in clips])[:, None].to(pipe.device), spec.rate
        )
        settings = {"seconds": len(clips[0][0]) / spec.rate, "steps": 2 if self.args.quick else 20}
        without, with_net = list[float](), list[float]()
        for i, (wave, words) in enumerate(clips):
            curve = MAPS[name].analyse(wave, spec) if name in MAPS else None
            control: Any = (
                AudioPromptControl(net, vectors[i : i + 1], MIX)
                if curve is None
                else MapControl(net, curve, spec)
            )
            for parts, values in ((pipe, without), (replace(pipe, controls=(control,)), with_net)):
                sound = normalise_peak(parts([words], seeds=[i], **settings))
                if curve is None:
                    near = pipe.clap.embed_audio(sound[:, None].to(pipe.device), spec.rate) @ vectors[i]
                    values.append(float(near))
                else:
                    values.append(score(name, curve, MAPS[name].analyse(sound[0].cpu(), spec)))
        kind = json.loads((Path(self.args.nets) / name / "config.json").read_text()).get("_class_name", "")
        self.add(f"{kind or 'net'}: {name}", MEASURES[name], without, with_net)

    def classifier(self) -> None:
        """The empty prompt with a noisy classifier's gradient, each of ESC-10's classes, by YAMNet."""
        seeds = range(1 if self.args.quick else 4)
        settings = {"batch_size": len(seeds), **({"steps": 2} if self.args.quick else {})}
        before, after = list[float](), list[float]()
        for prompt, label in LABELS.items():
            aim = GuidanceConfig(
                classifier=TargetClass.load(self.args.classifier, label), classifier_scale=4.0
            )
            for guidance, hits in ((None, before), (aim, after)):
                waves = self.pipe(
                    [""] * len(seeds), seeds=seeds, guidance=1.0, guidance_config=guidance, **settings
                )
                hits += [float(bool(right_classes(s, OTHERS[prompt].split("|")))) for s in self.scores(waves)]
        self.add("classifier guidance, no words", "recognised by YAMNet", before, after)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sounds", help="folder of the sound that adapters learn")
    parser.add_argument("--prompt", required=True)
    parser.add_argument(
        "--right", required=True, help="AudioSet classes that count, or their first words: A|B"
    )
    parser.add_argument("--clips", type=Path, help="held-out clips with captions, for controls")
    parser.add_argument("--nets", type=Path, default=EMBEDDED / "control", help="the controls, a folder each")
    parser.add_argument("--classifier", type=Path, help="of noisy latents, by recipe embedded/classifier")
    parser.add_argument("-m", "--model", help="the model; without it the embedded one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--only", nargs="*", default=[*ADAPTERS, "controls", "classifier"], help="of the rows"
    )
    parser.add_argument("--quick", action="store_true", help="two batches, two steps: a rehearsal")
    parser.add_argument("-o", "--out", type=Path, default=Path("out/compare"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    table = Compared(args)
    for kind in args.only:
        if kind == "controls" and args.clips:
            for name in sorted(place.name for place in args.nets.iterdir() if place.is_dir()):
                table.control(name)
        elif kind == "classifier" and args.classifier:
            table.classifier()
        elif kind in ADAPTERS:
            table.adapter(kind)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
