"""The picture of one generation over time: a row a part, a bar a call."""

import io
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from audioldm.pipeline.timing import PARTS, shares

if TYPE_CHECKING:
    from audioldm.pipeline.timing import Span

COLOURS = {"text": "#4c72b0", "unet": "#dd8452", "vae": "#55a868", "vocoder": "#c44e52"}


def title_of(result: dict[str, Any]) -> str:
    """What was run, on what."""
    return (
        f"{result['model']}, {result['mode']} ({result['dtype']}), {result['device']}: {result['clips']} x "
        f"{result['seconds']:g} s of sound, {result['steps']} steps"
    )


def draw(spans: list["Span"], *, title: str) -> bytes:
    """PNG; the label of a part says its seconds and its share, "rest" is the gaps."""
    seconds = shares(spans)
    parts = [part for part in PARTS if part != "rest"]
    figure, axes = plt.subplots(figsize=(11, 3.2), layout="constrained")
    for row, part in enumerate(parts):
        bars = [(s.start, s.end - s.start) for s in spans if s.part == part]
        axes.broken_barh(bars, (row - 0.38, 0.76), color=COLOURS[part], edgecolor="white", linewidth=0.4)
    labels = [f"{part}  {seconds[part]:.3f} s  {seconds[part] / seconds['all']:.0%}" for part in parts]
    axes.set_yticks(range(len(parts)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, seconds["all"])
    rest = f"between the parts {seconds['rest']:.3f} s ({seconds['rest'] / seconds['all']:.0%})"
    axes.set_xlabel(f"time in s;  all {seconds['all']:.3f} s;  {rest}")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    plt.close(figure)
    return out.getvalue()
