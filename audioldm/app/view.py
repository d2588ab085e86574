"""What the page shows of sounds and of trainings, as HTML; words of the user are escaped."""

import html
from typing import Any

from audioldm.app.studio import Take
from audioldm.cli import figure
from audioldm.evaluation.html import figure as drawn
from audioldm.evaluation.html import image
from audioldm.evaluation.picture import Picture
from audioldm.evaluation.run_report import Points, smooth
from audioldm.pipeline.sounds import Sound

History = list[dict[str, Any]]


def line(take: Take) -> dict[str, Any]:
    """What the history keeps of a take."""
    settings = take.record["settings"]
    return {
        "what": settings.get("edit", "generate"), "prompt": take.record["prompt"], "seed": take.seed,
        "seconds": take.record["sound"]["seconds"], "audio": str(take.audio), "sidecar": str(take.sidecar),
    }  # fmt: skip


def shown(past: History) -> tuple[str, list[str]]:
    """The history as a table, newest first, and its files."""
    newest = past[::-1]
    return rows_of(newest), [row[kind] for row in newest for kind in ("audio", "sidecar")]


def rows_of(past: History) -> str:
    """An HTML table."""
    if not past:
        return "<p>Nothing yet.</p>"
    names = ("what", "prompt", "seed", "seconds")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in names) + "</tr>"
        for row in past
    )
    table = f'<table class="history"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="history-box" tabindex="0" role="region" aria-label="History">{table}</div>'


def selectable(sound: Sound, rate: int) -> str:
    """The waveform of an upload, on which a region can be drawn; the model hears it at ``rate`` Hz."""
    picture = image(
        figure.strip(sound.mono(rate).numpy()),
        f"Waveform, {sound.seconds:.1f} seconds: drag to select a region",
    )
    return f'<div id="wave" data-seconds="{sound.seconds:.4f}">{picture}<div class="shade"></div></div>'


def curve(points: Points) -> str:
    """The loss of a training, batch by batch, and its running mean."""
    if not points:
        return ""
    batches, losses = zip(*points, strict=True)
    picture = Picture(figsize=(9, 2.6))
    axes = picture.subplots()
    axes.plot(batches, losses, linewidth=0.6, color="#93c5fd")
    axes.plot(batches, smooth(losses), linewidth=1.4, color="#1d4ed8")
    axes.set(xlabel="batch", ylabel="loss")
    axes.grid(alpha=0.3)
    return drawn(picture, f"Loss of {len(points)} batches, {losses[0]:.3g} at first, {losses[-1]:.3g} now")
