"""What the cases share: a tiny model and what commands make of it, whole; and secrets that nobody may touch."""

import functools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from harness import command

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny_model

QUICK = ("--seconds", "0.64", "--steps", "2", "--set", "figure=false")
TRAIN = (
    "batch_size=2",
    "seconds=0.32",
    "threads=1",
    "val_every=2",
    "callbacks.listen=null",
    "callbacks.preview=null",
    "callbacks.bar=null",
    "logger=[csv]",
)
RUN = (
    "train",
    "tiny/vae",
    *TRAIN,
    "task.vae.channels=[8,8,16]",
    "task.vae.latent_channels=4",
    "task.vae.groups=4",
    "run_dir=run",
)
"""An autoencoder of the tiny model's shape, in a folder that may be copied and trained on from beside it"""
RATE = 16000


@dataclass(frozen=True)
class World:
    """Files and folders that every case reads and none may change."""

    folder: Path
    large: bool
    seed: int

    @property
    def secret(self) -> Path:
        """Everything that no case may read, write or remove."""
        return self.folder / "secret"

    @property
    def material(self) -> Path:
        """What cases copy or read."""
        return self.folder / "material"

    @property
    def model(self) -> Path:
        """A whole tiny model."""
        return self.material / "tiny"

    @property
    def clips(self) -> Path:
        """Four whole sounds, and ``clips.jsonl`` that names them."""
        return self.material / "clips"

    @property
    def adapter(self) -> Path:
        """A LoRA of the model."""
        return self.material / "lora.safetensors"

    @property
    def run(self) -> Path:
        """A training of two batches."""
        return self.material / "run"

    @property
    def cache(self) -> Path:
        """Latents."""
        return self.material / "cache"

    @property
    def test(self) -> Path:
        """A listening test with answers."""
        return self.material / "test"

    @property
    def shards(self) -> Path:
        """The clips as WebDataset."""
        return self.material / "shards"

    @property
    def tables(self) -> Path:
        """The clips, and tables of captions, of prompts and of a curve."""
        return self.material / "tables"

    @property
    def prompts(self) -> Path:
        """One list of prompts in every format."""
        return self.material / "prompts"

    @property
    def made(self) -> Path:
        """Two generated clips and their sidecars."""
        return self.material / "made"

    @property
    def protocol(self) -> Path:
        """The folder of a protocol of the clips."""
        return self.material / "protocol"

    def some(self, items: list, few: int, salt: str = "") -> list:
        """All at the large size, ``few`` drawn by the seed and ``salt`` at the small one."""
        if self.large or len(items) <= few:
            return items
        places = np.random.default_rng([self.seed, *salt.encode()]).choice(len(items), few, replace=False)
        return [items[place] for place in sorted(places)]


def build(folder: Path, *, large: bool, seed: int) -> World:
    """Write the shared material; what a command loads is loaded once from here on."""
    world = World(folder, large, seed)
    world.clips.mkdir(parents=True)
    tiny_model.write(world.model)
    rng, rows = np.random.default_rng(seed), []
    for number in range(4):
        wave = 0.1 * rng.standard_normal(12000) * (1 + np.sin(np.arange(12000) / (200 + 300 * number)))
        soundfile.write(world.clips / f"clip{number}.wav", wave, RATE)
        split = "val" if number == 3 else "train"
        row = {"path": f"clip{number}.wav", "captions": [f"sound number {number}", "a sound"], "split": split}
        rows.append({**row, "licence": "CC0", "source": "made", "author": "nobody", "group": f"g{number}"})
    (world.clips / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    world.secret.mkdir()
    soundfile.write(world.secret / "secret.wav", wave, RATE)
    (world.secret / "secret.txt").write_text("nobody reads this")
    load_once(world.material)
    derive(world)
    return world


def derive(world: World) -> None:
    """What the package itself makes of the model and the clips."""
    for name in ("tables", "prompts", "protocol"):
        (world.material / name).mkdir()
    rows = [f"clip{number}.wav,clip{number},sound {number}" for number in range(4)]
    for number in range(4):
        (world.tables / f"clip{number}.wav").write_bytes((world.clips / f"clip{number}.wav").read_bytes())
        (world.tables / f"clip{number}.txt").write_text(f"sound {number}")
    (world.tables / "captions.csv").write_text("\n".join(["file_name,id,caption", *rows]) + "\n")
    (world.tables / "asked.tsv").write_text("rain\tRain\nsound 0\tDog|Bark\n")
    clips = [{"path": f"clip{number}.wav", "prompt": "rain", "seed": number} for number in range(4)]
    (world.tables / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clips))
    (world.tables / "curve.csv").write_text("time,value\n0,220\n0.5,440\n1,0\n")
    cells = {
        "prompt": "rain",
        "seed": 3,
        "seconds": 0.64,
        "steps": 2,
        "guidance": 1.5,
        "negative": "wind",
        "out": "x",
    }
    lines = [json.dumps(cells | {"out": name}) for name in "xy"]
    (world.prompts / "p.jsonl").write_text("\n".join(lines) + "\n")
    for name, separator in (("p.csv", ","), ("p.tsv", "\t")):
        lines = [separator.join(cells), separator.join(map(str, cells.values()))]
        (world.prompts / name).write_text("\n".join(lines) + "\n")
    (world.prompts / "p.txt").write_text("rain\na dog\n")
    adapter(world)
    manifest = world.clips / "clips.jsonl"
    os.chdir(world.material)
    for words in (
        (*RUN, "batches=2"),
        (
            "data",
            "encode",
            manifest,
            "-o",
            world.cache,
            "--vae",
            world.model,
            "--clap",
            world.model,
            "--seconds",
            "0.64",
        ),
        (
            "listen",
            "prepare",
            f"a={world.clips}",
            f"b={world.clips}",
            "-o",
            world.test,
            "--captions",
            world.tables / "captions.csv",
            "--seed",
            "1",
        ),
        ("data", "shard", manifest, "-o", world.shards),
        ("generate", "rain", "-n", "2", "--seed", "0", "-m", world.model, "-o", world.made, *QUICK),
        ("evaluate", "protocol", manifest, "-o", world.protocol / "protocol.json", "--split", "any"),
    ):
        result = command(*words)
        if result.code:
            raise SystemExit(f"the material could not be made: {words}\n{result.err}")
    answers(world)


def adapter(world: World) -> None:
    """A LoRA whose factors are random."""
    import torch

    from audioldm.adapters.adapter import defaults, start
    from audioldm.adapters.files import write
    from audioldm.pipeline.audioldm import AudioLDM

    unet, rng = AudioLDM.from_pretrained(world.model).unet, torch.Generator().manual_seed(0)
    lora = start(unet, "lora", rank=2, targets=defaults(unet, convolutions=True), generator=rng)
    for layer in lora.layers.values():
        for name, value in layer.factors.items():
            layer.factors[name] = value + 0.1 * torch.randn(value.shape, generator=rng)
    write(world.adapter, lora)


def answers(world: World) -> None:
    """Two raters answer every trial of the listening test."""
    from audioldm.listening.folder import load
    from audioldm.listening.study import Session, Study

    study = Study(load(world.test))
    for _ in range(2):
        code = study.join("x")
        study.volume(code, device="headphones", beeps=2)
        while (state := study.state(code))["phase"] != "done":
            if state["phase"] == "volume":
                study.volume(code, device="headphones", beeps=state["tries"] + 2)
            else:
                study.answer(code, state["trial"]["index"], "A", Session(None, 3.0, 0, "notebook"))
    study.close()


def load_once(shared: Path) -> None:
    """Models and embedders stay loaded between commands, as they do in a process that lives longer."""
    from audioldm.evaluation import embedders
    from audioldm.pipeline.audioldm import AudioLDM

    plain, kept = AudioLDM.from_pretrained, dict[str, AudioLDM]()

    def load(ref=None, **choices):
        if ref is None or not Path(ref).is_relative_to(shared):
            return plain(ref, **choices)
        key = f"{ref} {sorted(choices.items(), key=str)}"
        if key not in kept:
            kept[key] = plain(ref, **choices)
        return kept[key]

    AudioLDM.from_pretrained = load
    embedders.load_embedder = functools.cache(embedders.load_embedder)
