"""One page about one training run: curves, previews over time, settings against another run."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audioldm.datasets.decode import opened
from audioldm.errors import AudioLDMError
from audioldm.evaluation import html
from audioldm.evaluation.picture import Picture
from audioldm.progress import counted
from audioldm.tables import read_text

STEPS = 5
"""previews of so many moments, the last one among them"""
CURVES = 12
Points = list[tuple[float, float]]


def read_run(folder: Path) -> dict[str, Points]:
    """name -> (batch, value) of the run's ``metrics.jsonl``; a line that an interruption cut off is left out."""
    lines = text_of(folder / "metrics.jsonl").split("\n")
    series: dict[str, Points] = defaultdict(list)
    for line in lines:
        if line.startswith("{") and line.endswith("}"):
            try:
                row = {name: float(value) for name, value in json.loads(line).items()}
            except (ValueError, TypeError, OverflowError, RecursionError):  # a line that no training wrote
                continue
            for name, value in row.items():
                if name != "batch" and math.isfinite(row.get("batch", math.nan)):
                    series[name].append((int(row["batch"]), value))
    if not series:
        raise AudioLDMError(f"{folder / 'metrics.jsonl'} is empty.", "Train longer first.")
    return dict(series)


def run_page(folder: Path, *, against: Path | None = None) -> str:
    """The whole page."""
    ours = read_run(folder)
    theirs = read_run(against) if against is not None else {}
    sections = [
        html.section("Where it stands", last_values(ours)),
        html.section("Curves", curves(ours, theirs)),
        previews(folder),
    ]
    if against is not None:
        sections.append(html.section(f"Settings that differ from {against}", differences(folder, against)))
    sections.append(html.section("Made by", provenance(folder)))
    sections.append(html.section("Settings", f"<pre>{html.text(text_of(folder / 'config.yaml'))}</pre>"))
    return html.page(f"Run {folder}", *sections)


def last_values(series: dict[str, Points]) -> str:
    """Last and best value of every quantity."""
    cells = []
    for name, points in series.items():
        finite = [point for point in points if math.isfinite(point[1])]
        low = min(finite, key=lambda point: point[1]) if finite else (0, math.nan)
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
    place = folder / "tensorboard"
    if not place.is_dir():
        return ""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"Previews need {error.name}.", 'Run: pip install "audioldm[train]"') from None
    events = EventAccumulator(str(place), size_guidance={"audio": 0, "images": 0}).Reload()
    parts = []
    for kind, read in (("audio", events.Audio), ("images", events.Images)):
        for tag in events.Tags()[kind]:
            steps = sorted({event.step: event for event in read(tag)}.items())
            last = len(steps) - 1
            some = steps if last < STEPS else [steps[i * last // (STEPS - 1)] for i in range(STEPS)]
            cards = "".join(
                html.card("", f"batch {step}", preview(kind, step, event))
                for step, event in counted(some, "previews")
            )
            parts.append(f'<h3>{html.text(tag)}</h3><div class="clips">{cards}</div>')
    return html.section("Previews over time", *parts) if parts else ""


def preview(kind: str, step: int, event: Any) -> str:
    """A picture, or a sound with its spectrogram."""
    if kind == "images":
        return html.image(event.encoded_image_string, f"log-mel at batch {step}", 'style="width:100%" ')
    with opened(f"the preview of batch {step}", content=event.encoded_audio_string) as file:
        wave = torch.from_numpy(np.concatenate(list(file.blocks())).mean(axis=1))
        return html.spectrogram(wave, file.rate) + html.player(wave, file.rate)


def differences(folder: Path, against: Path) -> str:
    """Settings that are not the same in both runs."""
    ours, theirs = settings(folder), settings(against)
    pairs = [
        (name, ours.get(name, "-"), theirs.get(name, "-")) for name in sorted(ours.keys() | theirs.keys())
    ]
    rows = [row for row in pairs if row[1] != row[2]]
    return html.table(["setting", str(folder), str(against)], rows) if rows else "<p>None.</p>"


def settings(folder: Path) -> dict[str, str]:
    """``config.yaml`` as dotted names."""
    import yaml

    def flat(value: Any, name: str) -> dict[str, str]:
        if isinstance(value, dict):
            parts = [flat(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()]
            return {key: text for part in parts for key, text in part.items()}
        return {name: str(value)}

    path = folder / "config.yaml"
    try:
        return flat(yaml.safe_load(text_of(path)) or {}, "")
    except (yaml.YAMLError, ValueError, RecursionError):
        raise AudioLDMError(f"{path} is not valid YAML.", "Restore it.") from None


def text_of(path: Path) -> str:
    """A text file of the run, or an error that names it."""
    if not path.is_file():
        raise AudioLDMError(
            f"{path.parent} holds no {path.name}.", "Name the folder of a run, such as runs/tiny/vae."
        )
    return read_text(path)


def json_of(path: Path) -> dict[str, Any]:
    """A JSON object of the run, or an error that names it."""
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise AudioLDMError(f"{path} is not JSON ({error}).", "Restore it, or remove it.") from None
    if not isinstance(content, dict):
        raise AudioLDMError(f"{path} holds no JSON object.", "Restore it, or remove it.")
    return content


def provenance(folder: Path) -> str:
    """Versions, git state, data."""
    path = folder / "provenance.json"
    if not path.is_file():
        return "<p>provenance.json is not there.</p>"
    return html.table(["", "value"], [[key, html.plain(value)] for key, value in json_of(path).items()])
