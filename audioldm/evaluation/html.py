"""Pages that need no other file: templates of HTML, with players and pictures inside the text.   N samples."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.image import imsave
from torch import Tensor

from audioldm.datasets.decode import resample
from audioldm.evaluation.picture import Picture
from audioldm.signal.decibels import mel_decibels
from audioldm.spec import SPECS

SPEC = SPECS["16k_64"]
TOP, RANGE = 30.0, 80.0  # dB re a mel magnitude of 1: the one colour scale of every spectrogram


def plain(value: object) -> str:
    """Any value in a line of text; control characters are written out, and ``Markup`` stays.

    >>> plain({"a": [0.123456, "<b>\\x1b[1m"]})
    'a 0.1235, <b>\\\\x1b[1m'
    """
    if isinstance(value, Markup):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "".join(map(visible, f"{value:.4g}" if isinstance(value, float) else str(value)))


def visible(letter: str) -> str:
    return letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1]


LOADER = FileSystemLoader(Path(__file__).parents[1])
TEMPLATES = Environment(
    loader=LOADER, autoescape=True, finalize=plain, undefined=StrictUndefined, trim_blocks=True
)
PARTS = TEMPLATES.get_template("evaluation/pages/parts.html").module
TEMPLATES.globals |= {"parts": PARTS, "top": TOP, "range": RANGE}


def page(template: str, **content: object) -> str:
    """A whole document by a template of the package, such as ``evaluation/pages/score.html``; text is escaped."""
    return TEMPLATES.get_template(template).render(content)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Cells are escaped, but for ``Markup``; numbers stand right."""
    return Markup(PARTS.table(head, rows))  # type: ignore[attr-defined]


def data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image(png: bytes, description: str, more: str = "") -> Markup:
    """A PNG inside the page; ``description`` is what it shows."""
    return Markup(f'<img alt="{escape(plain(description))}" {more}src="{data(png, "image/png")}">')


def figure(picture: Picture, description: str) -> Markup:
    return image(picture.png(dpi=100), description)


def player(wave: Tensor, rate: int, kind: str = "FLAC") -> Markup:
    """A player of (N,) as a file of 16 bits, so that no browser changes its level."""
    whole = np.rint(wave.clamp(-1, 1).numpy() * 32767).astype(np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, whole, rate, format=kind, subtype="PCM_16")
    address = data(buffer.getvalue(), f"audio/{kind.lower()}")
    return Markup(f'<audio controls preload="metadata" src="{address}"></audio>')


def spectrogram(wave: Tensor, rate: int) -> Markup:
    """The log-mel of (N,) at 16 kHz, from TOP - RANGE to TOP dB in every page."""
    wave, buffer = resample(wave.float(), rate, SPEC.rate), io.BytesIO()
    mel = mel_decibels(wave.numpy(), SPEC).T[::-1]
    imsave(buffer, mel, vmin=TOP - RANGE, vmax=TOP, cmap="magma", format="png")
    description = f"log-mel, 0 to {len(wave) / SPEC.rate:.2f} s, 0 to 8 kHz"
    return image(buffer.getvalue(), description, f'title="{description}" width="420" height="128" ')
