"""Pages that need no other file: players, pictures and tables inside one HTML text.   N samples."""

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import torch
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.signal.mel import log_mel
from audioldm.spec import SPECS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPEC = SPECS["16k_64"]
DECIBELS = 8.685889638
TOP, RANGE = 30.0, 80.0
"""dB re a mel magnitude of 1: the one colour scale of every spectrogram"""
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color:#1b1b1b;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:.6em 0;font-variant-numeric:tabular-nums}
th,td{padding:.25em .6em;text-align:left;vertical-align:top;border-bottom:1px solid #e3e3e3}
th{background:#f3f3f3}td.n{text-align:right}.scroll{overflow-x:auto}img{max-width:100%}audio{width:100%;min-width:200px}
.warn{background:#fff4d6;border-left:4px solid #e0a400;padding:.4em .8em;margin:.4em 0}
.small{color:#555;font-size:.87em}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:1em}
.clip{border:1px solid #ddd;border-radius:6px;padding:.6em}
@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}th{background:#262626}
th,td,.clip{border-color:#383838}.warn{background:#3a2f10}.small{color:#a5a5a5}}
"""


def page(title: str, *sections: str) -> str:
    """A whole document."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><h1>{html.escape(title)}</h1>{''.join(sections)}</body></html>"
    )


def section(title: str, *parts: str) -> str:
    """A heading with what belongs to it."""
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Cells are escaped; numbers stand right.

    >>> table(["a"], [["<b>"]])
    '<div class="scroll"><table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table></div>'
    """

    def cell(value: object) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return f"<td{' class=n' if number else ''}>{html.escape(text)}</td>"

    heads = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{heads}</tr>{lines}</table></div>'


def data(content: bytes, kind: str) -> str:
    """A ``data:`` address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(figure: "Figure", text: str) -> str:
    """A matplotlib figure as a PNG inside the page; ``text`` is what it shows."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return f'<img alt="{html.escape(text, quote=True)}" src="{data(buffer.getvalue(), "image/png")}">'


def player(wave: Tensor, rate: int) -> str:
    """A player of (N,): FLAC of 16 bits, so that no browser changes its level."""
    whole = np.rint(wave.clamp(-1, 1).numpy() * 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, whole, rate, format="FLAC", subtype="PCM_16")
    return f'<audio controls preload="none" src="{data(buffer.getvalue(), "audio/flac")}"></audio>'


def spectrogram(wave: Tensor, rate: int) -> str:
    """The log-mel of (N,) at 16 kHz, from TOP - RANGE to TOP dB in every page."""
    import matplotlib
    from PIL import Image

    wave = resample(wave.float(), rate, SPEC.rate)
    wave = torch.nn.functional.pad(wave, (0, max(0, SPEC.n_fft - len(wave))))
    decibels = log_mel(wave[None, None], SPEC)[0, 0].numpy() * DECIBELS
    share = ((decibels - (TOP - RANGE)) / RANGE).clip(0, 1)
    colours = matplotlib.colormaps["magma"](share.T[::-1], bytes=True)[..., :3]
    image = Image.fromarray(colours).resize((420, 128))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    seconds = len(wave) / SPEC.rate
    told = f"log-mel, 0 to {seconds:.2f} s, 0 to 8 kHz"
    return f'<img alt="{told}" title="{told}" width="420" height="128" src="{data(buffer.getvalue(), "image/png")}">'
