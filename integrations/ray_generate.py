"""Sounds of a prompt file over the machines of a Ray cluster: ``python ray_generate.py prompts.csv out [model]``.

Each row keeps the seed of its place, so a second run makes the same bytes, and makes only what is not there.
"""

import sys
from pathlib import Path
from typing import Any

import ray.data
import torch


class Generator:
    """One model in one worker."""

    def __init__(self, out: str, model: str | None) -> None:
        from audioldm import AudioLDM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.out, self.pipe = Path(out), AudioLDM.from_pretrained(model, device=device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make the clip of one row, unless it is there."""
        from audioldm.cli.results import audio_bytes
        from audioldm.paths import write_bytes

        path = self.out / f"{row['seed']:06d}.wav"
        if not path.is_file():
            wave = self.pipe(row["prompt"], seeds=[row["seed"]])[0].numpy()
            write_bytes(path, audio_bytes(wave, self.pipe.spec.rate, "wav"))
        return {**row, "file": str(path)}


def main(prompts: str, out: str, model: str | None = None, workers: int = 2) -> None:
    """Read prompts, one a line below a header ``prompt``, and generate; Ray gives a lost worker's rows to others."""
    lines = Path(prompts).read_text(encoding="utf-8").splitlines()[1:]
    rows = ray.data.from_items([{"prompt": line, "seed": seed} for seed, line in enumerate(lines)])
    done = rows.repartition(4 * workers).map(
        Generator, fn_constructor_args=(out, model), compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=int(torch.cuda.is_available()),
    )  # fmt: skip
    files = [row["file"] for row in done.take_all()]  # a count alone would run nothing
    print(len(files), "clips in", out)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:4])
