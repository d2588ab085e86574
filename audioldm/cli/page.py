"""One HTML page of sounds: a player, a picture and what the manifest says of each, all inside the file."""

from collections.abc import Callable, Sequence

from audioldm.cli.figure import draw
from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.evaluation import html
from audioldm.spec import SPECS, AudioSpec

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; background: #fafafa; color: #222 }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(24em, 1fr)); gap: 1.5em }
article { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: 1em; overflow-wrap: anywhere }
h2 { font-size: 1.05em; margin: 0 0 .3em } ul { margin: .3em 0; padding-left: 1.2em; color: #444 }
img, audio { width: 100% } dl { margin: 0; font-size: .85em }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .8em }
dt { color: #777 } dd { margin: 0 } .wrong { color: #a00 }
"""
FACTS = ("split", "source", "licence", "author", "labels", "seconds", "loudness", "path")


def page(
    rows: Sequence[Row],
    *,
    title: str,
    spec: AudioSpec = SPECS["16k_64"],
    on_row: Callable[[], None] | None = None,
) -> str:
    """The page's text; a row whose sound cannot be read says so instead of playing."""
    parts = []
    for row in rows:
        parts.append(article(row, spec))
        if on_row is not None:
            on_row()
    head = f'<meta charset="utf-8"><title>{html.text(title)}</title><style>{STYLE}</style>'
    body = f"<h1>{html.text(title)}</h1><main>{''.join(parts)}</main>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def article(row: Row, spec: AudioSpec) -> str:
    """One row: its captions, the sound at the model's rate, its picture and the manifest's facts."""
    first, *others = row.captions or ("(no caption)",)
    captions = f"<h2>{html.text(first)}</h2>"
    if others:
        captions += f"<ul>{''.join(f'<li>{html.text(text)}</li>' for text in others)}</ul>"
    try:
        wave = decode(row.path, spec.rate, start=row.start, seconds=row.seconds)
        sound = html.player(wave, spec.rate)
        picture = html.image(draw(wave.numpy(), spec, title=""), "waveform over spectrogram")
    except AudioLDMError as error:
        sound, picture = f'<p class="wrong">{html.text(str(error))}</p>', ""
    facts = {name: getattr(row, name) for name in FACTS}
    facts = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in facts.items()}
    table = "".join(
        f"<dt>{name}</dt><dd>{html.text(str(value))}</dd>" for name, value in facts.items() if value
    )
    return f"<article>{captions}{sound}{picture}<dl>{table}</dl></article>"
