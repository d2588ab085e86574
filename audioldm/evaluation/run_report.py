"""One page about one training run: curves, previews over time, settings against another run."""

import json
import math
from collections import defaultdict
from difflib import unified_diff
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audioldm.datasets.decode import opened
from audioldm.errors import AudioLDMError
from audioldm.evaluation import html
from audioldm.evaluation.clips import read_object
from audioldm.evaluation.picture import Picture
from audioldm.progress import counted
from audioldm.tables import lines, read_text

STEPS = 5
"""previews of so many moments, the last one among them"""
CURVES = 12
Points = list[tuple[float, float]]


def read_run(folder: Path) -> dict[str, Points]:
    """name -> (batch, value) of the run's ``metrics.jsonl``; a line that an interruption cut off is left out."""
    series: dict[str, Points] = defaultdict(list)
    for line in lines(read_text(folder / "metrics.jsonl")):
        try:
            row = {name: float(value) for name, value in json.loads(line).items()}
            batch = int(row.pop("batch"))
        # a line that no training wrote
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            continue
        for name, value in row.items():
            series[name].append((batch, value))
    if not series:
        raise AudioLDMError(f"{folder / 'metrics.jsonl'} is empty.", "Train longer first.")
    return dict(series)


def run_page(folder: Path, *, against: Path | None = None) -> str:
    """The whole page."""
    ours, theirs = read_run(folder), read_run(against) if against else {}
    settings = read_text(folder / "config.yaml")
    path = folder / "provenance.json"
    facts = read_object(path, "Restore it, or remove it.") if path.is_file() else {"provenance.json": "none"}
    sections = {
        "Where it stands": last_values(ours),
        "Curves": curves(ours, theirs),
        "Previews over time": previews(folder / "tensorboard"),
        "Made by": html.table(["", "value"], [[key, html.plain(value)] for key, value in facts.items()]),
        "Settings": f"<pre>{html.text(settings)}</pre>",
    }
    if against:
        texts = (read_text(against / "config.yaml").splitlines(), settings.splitlines())
        lines = unified_diff(*texts, str(against), str(folder), lineterm="")
        sections[f"Settings that differ from {against}"] = f"<pre>{html.text(chr(10).join(lines))}</pre>"
    return html.page(f"Run {folder}", *(html.section(*part) for part in sections.items() if part[1]))


def last_values(series: dict[str, Points]) -> str:
    """Last and lowest value of every quantity."""
    cells = []
    for name, points in series.items():
        finite = [point for point in points if math.isfinite(point[1])]
        low = min(finite, key=lambda point: point[1], default=(0, math.nan))
        cells.append([name, points[-1][1], int(points[-1][0]), low[1], int(low[0])])
    return html.table(["quantity", "last", "at batch", "lowest", "at batch"], cells)


def curves(ours: dict[str, Points], theirs: dict[str, Points]) -> str:
    """A panel a quantity: the run solid, the other run dashed; training smoothed over a twentieth of its points."""
    names = sorted(ours, key=lambda name: (not name.startswith("val/"), name))[:CURVES]
    height = -(-len(names) // 3)
    figure = Picture(figsize=(11, 2.3 * height))
    for axes, name in zip(figure.subplots(height, 3, squeeze=False).flat, names, strict=False):
        for points, style, label in ((ours[name], "-", "this run"), (theirs.get(name, []), "--", "other")):
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, smooth(y) if name.startswith("train/") else y, style, linewidth=1.2, label=label)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("batch", fontsize=8)
        if name in theirs:
            axes.legend(fontsize=7)
    for axes in figure.axes[len(names) :]:
        axes.set_visible(False)
    return html.figure(figure, "curves of the run")


def smooth(values: tuple[float, ...]) -> list[float]:
    """Running mean over the last twentieth of the points."""
    width = max(1, len(values) // 20)
    return [sum(values[max(0, i + 1 - width) : i + 1]) / min(i + 1, width) for i in range(len(values))]


def previews(folder: Path) -> str:
    """Sounds and pictures that training wrote to TensorBoard, at a few moments from first to last."""
    if not folder.is_dir():
        return ""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"Previews need {error.name}.", 'Run: pip install "audioldm[train]"') from None
    events = EventAccumulator(str(folder), size_guidance={"audio": 0, "images": 0}).Reload()
    parts = []
    for kind, read in (("audio", events.Audio), ("images", events.Images)):
        for tag in events.Tags()[kind]:
            steps = sorted({event.step: event for event in read(tag)}.items())
            places = np.linspace(0, len(steps) - 1, min(STEPS, len(steps)), dtype=int)
            shown = counted([steps[place] for place in places], "previews")
            cards = "".join(
                html.card("", f"batch {step}", preview(kind, step, event)) for step, event in shown
            )
            parts.append(f'<h3>{html.text(tag)}</h3><div class="clips">{cards}</div>')
    return "".join(parts)


def preview(kind: str, step: int, event: Any) -> str:
    """A picture, or a sound with its spectrogram."""
    if kind == "images":
        return html.image(event.encoded_image_string, f"log-mel at batch {step}", 'style="width:100%" ')
    with opened(f"the preview of batch {step}", content=event.encoded_audio_string) as file:
        wave = torch.from_numpy(np.concatenate(list(file.blocks())).mean(axis=1))
        return html.spectrogram(wave, file.rate) + html.player(wave, file.rate)
