"""Pages that need no other file: players, pictures and tables inside one HTML text.   N samples."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import soundfile
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.evaluation.picture import Picture
from audioldm.signal.decibels import mel_decibels
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]
TOP, RANGE = 30.0, 80.0  # dB re a mel magnitude of 1: the one colour scale of every spectrogram
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1180px;padding:0 1em;color:#1b1b1b;background:#fff}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ccc}
table{border-collapse:collapse;margin:.6em 0;font-variant-numeric:tabular-nums}
th,td{padding:.25em .6em;text-align:left;vertical-align:top;border-bottom:1px solid #e3e3e3}
th{background:#f3f3f3}td.n{text-align:right}.scroll{overflow-x:auto}img{max-width:100%}audio{width:100%;min-width:200px}
.warn{background:#fff4d6;border-left:4px solid #e0a400;padding:.4em .8em;margin:.4em 0}
.small{color:#555;font-size:.87em}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:1em}
.clip{border:1px solid #ddd;border-radius:6px;padding:.6em;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}th{background:#262626}
th,td,.clip{border-color:#383838}.warn{background:#3a2f10}.small{color:#a5a5a5}}
"""


def page(title: str, *sections: str) -> str:
    """A whole document."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><h1>{text(title)}</h1>{''.join(sections)}</body></html>\n"
    )


def text(value: object) -> str:
    """Any value as text of a page: HTML is escaped, control characters are written out.

    >>> text("<b>\\x1b[1m")
    '&lt;b&gt;\\\\x1b[1m'
    """
    shown = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in str(value))
    return html.escape(shown)


def section(title: str, *parts: str) -> str:
    return f"<h2>{text(title)}</h2>{''.join(parts)}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Cells are escaped, but for ``Markup``; numbers stand right.

    >>> table(["a"], [["<b>"]])
    '<div class="scroll"><table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table></div>'
    """

    def cell(value: object) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        shown = f"{value:.4g}" if isinstance(value, float) else value
        content = shown.text if isinstance(shown, Markup) else text(shown)
        return f"<td{' class=n' if number else ''}>{content}</td>"

    heads = "".join(f"<th>{text(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{heads}</tr>{lines}</table></div>'


class Markup:
    """HTML that is not escaped again, and that a notebook shows."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return self.text


def data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image(png: bytes, description: str, more: str = "") -> str:
    """A PNG inside the page; ``description`` is what it shows."""
    return f'<img alt="{text(description)}" {more}src="{data(png, "image/png")}">'


def figure(picture: Picture, description: str) -> str:
    return image(picture.png(dpi=100), description)


def player(wave: Tensor, rate: int, kind: str = "FLAC") -> str:
    """A player of (N,) as a file of 16 bits, so that no browser changes its level."""
    whole = np.rint(wave.clamp(-1, 1).numpy() * 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, whole, rate, format=kind, subtype="PCM_16")
    address = data(buffer.getvalue(), f"audio/{kind.lower()}")
    return f'<audio controls preload="metadata" src="{address}"></audio>'


def spectrogram(wave: Tensor, rate: int) -> str:
    """The log-mel of (N,) at 16 kHz, from TOP - RANGE to TOP dB in every page."""
    import matplotlib
    from PIL import Image

    wave = resample(wave.float(), rate, SPEC.rate)
    share = ((mel_decibels(wave.numpy(), SPEC) - (TOP - RANGE)) / RANGE).clip(0, 1)
    colours = matplotlib.colormaps["magma"](share.T[::-1], bytes=True)[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((420, 128)).save(buffer, format="PNG")
    description = f"log-mel, 0 to {len(wave) / SPEC.rate:.2f} s, 0 to 8 kHz"
    return image(buffer.getvalue(), description, f'title="{description}" width="420" height="128" ')


def card(title: str, note: str, *parts: str) -> str:
    """A clip's box: its title, a small line and what belongs to it."""
    head = f"<b>{text(title)}</b>" if title else ""
    return f'<div class="clip">{head}<div class="small">{text(note)}</div>{"".join(parts)}</div>'


def plain(value: object) -> str:
    """A nested value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(part)}" for key, part in value.items())
    return ", ".join(map(plain, value)) if isinstance(value, list | tuple) else str(value)
