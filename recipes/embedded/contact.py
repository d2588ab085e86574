"""A contact sheet: one log-mel for each prompt of a list, generated, or for random clips of a manifest, as they are.

python -m recipes.embedded.contact data/prompts/demo.txt -o out/contact.png
python -m recipes.embedded.contact data/raw/composed.jsonl -o out/composed.png
"""

import argparse
from pathlib import Path
from random import Random
from textwrap import fill

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import read
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.signal.decibels import RANGE_DB, TICKS_HZ, mel_decibels, mel_position
from audioldm.spec import AudioSpec

COLUMNS, CLIPS = 3, 12


def generated(prompts: Path, model: str | None) -> tuple[AudioSpec, list[tuple[str, np.ndarray]]]:
    """Each prompt's sound with seed 0 and the model's own settings."""
    lines = [line for line in prompts.read_text().splitlines() if line.strip()]
    pipe = AudioLDM.from_pretrained(*([model] if model else []))
    return pipe.spec, [(line, pipe([line], seeds=[0])[0].numpy()) for line in lines]


def drawn(manifest: Path) -> tuple[AudioSpec, list[tuple[str, np.ndarray]]]:
    """Random clips with their first captions, the same ones every time."""
    spec, rows = AudioSpec(), read(manifest)
    drawn_rows = Random(0).sample(rows, min(CLIPS, len(rows)))
    waves = [decode(row.path, spec.rate, start=row.start, seconds=row.seconds) for row in drawn_rows]
    return spec, [(row.captions[0], wave.numpy()) for row, wave in zip(drawn_rows, waves, strict=True)]


def main(arguments: list[str] | None = None) -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=Path, help="one prompt a line, or a manifest (.jsonl)")
    parser.add_argument("-m", "--model", default=None, help="a model folder; the embedded model without it")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    manifest = options.source.suffix == ".jsonl"
    spec, sounds = drawn(options.source) if manifest else generated(options.source, options.model)
    rows = -(-len(sounds) // COLUMNS)
    figure, panels = plt.subplots(
        rows, COLUMNS, figsize=(13, 2.6 * rows), layout="constrained", squeeze=False
    )
    for axes, (words, wave) in zip(panels.flat, sounds, strict=False):
        decibels = mel_decibels(wave, spec)
        axes.imshow(
            decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=decibels.max() - RANGE_DB,
            extent=(0, wave.size / spec.rate, -0.5, spec.mels - 0.5), interpolation="nearest",
        )  # fmt: skip
        ticks = [hertz for hertz in TICKS_HZ if spec.fmin <= hertz <= spec.fmax]
        axes.set_yticks(
            [mel_position(np.array(hertz), spec) for hertz in ticks],
            labels=[str(hertz) for hertz in ticks],
        )
        axes.set_title(fill(words, 48), fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("time (s)")
    for axes in panels[:, 0]:
        axes.set_ylabel("Hz")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=70)


if __name__ == "__main__":
    main()
