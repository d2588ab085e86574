"""What the cases share: a tiny model that is loaded once, whole sounds, and secrets that nobody may touch."""

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tiny_model

QUICK = ("--seconds", "0.64", "--steps", "2", "--set", "figure=false")
RATE = 16000


@dataclass(frozen=True)
class World:
    """Folders that every case reads and none may change."""

    folder: Path
    large: bool
    seed: int

    @property
    def secret(self) -> Path:
        """Everything that no case may read, write or remove."""
        return self.folder / "secret"

    @property
    def model(self) -> Path:
        """A whole tiny model."""
        return self.folder / "material" / "tiny"

    @property
    def clips(self) -> Path:
        """Four whole sounds, and ``clips.jsonl`` that names them."""
        return self.folder / "material" / "clips"

    def some(self, items: list, few: int) -> list:
        """All at the large size, ``few`` drawn by the seed at the small one."""
        if self.large or len(items) <= few:
            return items
        places = np.random.default_rng(self.seed).choice(len(items), few, replace=False)
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
        rows.append({"path": f"clip{number}.wav", "captions": [f"sound number {number}"], "split": split})
    (world.clips / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    world.secret.mkdir()
    soundfile.write(world.secret / "secret.wav", wave, RATE)
    (world.secret / "secret.txt").write_text("nobody reads this")
    load_once()
    return world


def load_once() -> None:
    """Models and embedders stay loaded between commands, as they do in a process that lives longer."""
    from audioldm.cli.options import model
    from audioldm.evaluation import embedders

    plain = model.load

    @functools.cache
    def once(name, device, mode):
        return plain(name, device=device, mode=mode)

    def load(name, *, device, dtype=None, mode="exact", **choices):
        if name is None or dtype is not None or not Path(name).is_relative_to(shared[0]):
            return plain(name, device=device, dtype=dtype, mode=mode, **choices)
        return once(name, device, mode)

    model.load = load
    embedders.load_embedder = functools.cache(embedders.load_embedder)


shared: list[Path] = []
"""the folder whose models are not loaded twice"""
