"""The page: prompts, an edit with a drawn region, takes to compare, history."""

import base64
import html
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from audioldm.app.gate import Gate
from audioldm.app.studio import EDITS, Done, EditRequest, Progress, Studio, Take
from audioldm.cli import figure
from audioldm.diffusion.samplers import SAMPLERS
from audioldm.errors import AudioLDMError

STATIC = Path(__file__).with_name("static")
CSS = """
#wave { position: relative; touch-action: none; cursor: crosshair; user-select: none; }
#wave img { width: 100%; display: block; pointer-events: none; }
#wave .shade { position: absolute; top: 0; bottom: 0; width: 0; background: #2563eb55; }
#wave .shade { border-inline: 2px solid #1d4ed8; }
.picture img { width: 100%; display: block; }
button[role=tab].selected { color: #1d4ed8; }
.dark button[role=tab].selected { color: #93c5fd; }
time, time#time, time#duration { color: var(--body-text-color); }
button.playback, .playback { color: var(--body-text-color); }
.history { width: 100%; border-collapse: collapse; }
.history td, .history th { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #8888; }
.history-box { overflow-x: auto; }
"""
Update = dict[str, Any]
History = list[dict[str, Any]]


def build(studio: Studio) -> gr.Blocks:
    """The page of a studio; ``launch`` it with ``settings(studio)``."""
    page = gr.Blocks(title="audioldm", analytics_enabled=False, fill_width=True)
    with page:
        gr.Markdown(f"# audioldm\nText to sound, and edits of sound, with the model {studio.pipe.name}.")
        history = gr.State([])
        with gr.Tabs():
            with gr.Tab("Generate", id="generate"):
                generate_tab(studio, history)
            with gr.Tab("Edit", id="edit"):
                edit_tab(studio, history)
            with gr.Tab("History", id="history"):
                table = gr.HTML(rows_of([]), elem_id="history")
                files = gr.Files(label="Sounds and sidecars", interactive=False, elem_id="files")
        history.change(shown, history, [table, files], show_progress="hidden", api_visibility="private")
    page.queue(max_size=studio.limits.waiting, default_concurrency_limit=1)
    return page


def settings(studio: Studio, host: str) -> dict[str, Any]:
    """How the page is launched at ``host``: local fonts, upload limits, the gate, and results as the only folder."""
    script = (STATIC / "selection.js").read_text(encoding="utf-8")
    return {
        "max_file_size": studio.limits.upload_mb * 2**20,
        "server_name": host,
        "allowed_paths": [str(studio.results.absolute())],
        "app_kwargs": {"middleware": [Middleware(Gate, folder=studio.out, host=host)]},
        "theme": theme(),
        "css": CSS,
        "head": f"<script>{script}</script>",
        "footer_links": [],
        "ssr_mode": False,
        "share": False,
    }


def theme() -> gr.themes.Base:
    """Fonts of the machine, and a blue on which white can be read (WCAG AA)."""
    base = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"], primary_hue="blue")
    return base.set(
        button_primary_background_fill="#1d4ed8",
        button_primary_background_fill_hover="#1e40af",
        button_primary_background_fill_dark="#1d4ed8",
        block_label_text_color="*body_text_color",
        block_title_text_color="*body_text_color",
    )


def generate_tab(studio: Studio, history: gr.State) -> None:
    """Prompt, settings, takes."""
    default = studio.pipe.defaults
    prompt = gr.Textbox(label="Prompt", placeholder="a dog barking", elem_id="prompt", lines=1)
    with gr.Row():
        seconds = gr.Number(default.seconds, label="Seconds", minimum=0.1, maximum=studio.limits.seconds)
        takes = gr.Number(1, label="Takes", precision=0, minimum=1, maximum=studio.limits.takes)
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    with gr.Accordion("More settings", open=False):
        negative = gr.Textbox(label="What not to hear", lines=1)
        with gr.Row():
            steps = gr.Number(default.steps, label="Steps", precision=0, minimum=1)
            guidance = gr.Number(default.guidance, label="Guidance", minimum=0)
            sampler = gr.Dropdown(sorted(SAMPLERS), value=default.sampler, label="Sampler")
    start, stop, status = buttons("Generate")
    takes_shown = players(studio)

    def run(
        prompt: str, negative: str, seconds: float, takes: int, seed: int, steps: int, guidance: float, sampler: str,
        past: History,
    ) -> Iterator[list[Any]]:  # fmt: skip
        yield from updates(studio, past, lambda: studio.generate(
            prompt or "", seconds=seconds or default.seconds, takes=int(takes or 1), seed=int(seed or 0),
            steps=int(steps or default.steps), guidance=guidance, sampler=sampler, negative=negative or "",
        ))  # fmt: skip

    inputs = [prompt, negative, seconds, takes, seed, steps, guidance, sampler, history]
    wire(start, stop, status, run, inputs, [status, history, *takes_shown], api_name="generate", enter=prompt)


def edit_tab(studio: Studio, history: gr.State) -> None:
    """A sound, a region drawn on it, and what to do there."""
    default = studio.pipe.defaults
    sound = gr.Audio(
        label="Sound to edit", type="filepath", sources=["upload", "microphone"], elem_id="sound"
    )
    wave = gr.HTML("", elem_id="wave-box")
    with gr.Row():
        begin = gr.Number(0.0, label="From (seconds)", elem_id="from", minimum=0)
        end = gr.Number(0.0, label="To (seconds)", elem_id="to", minimum=0)
        kind = gr.Dropdown(list(EDITS), value="inpaint", label="Edit", elem_id="kind")
    prompt = gr.Textbox(label="Prompt for the edit", placeholder="birds singing", lines=1)
    with gr.Row():
        strength = gr.Slider(0, 1, 0.5, label="Strength (transfer, vary, denoise)")
        longer = gr.Number(2.0, label="Seconds longer (continue)", minimum=0.1)
    splice = gr.Checkbox(False, label="Splice: leave every sample outside the region as it is")
    with gr.Accordion("More settings", open=False), gr.Row():
        takes = gr.Number(1, label="Takes", precision=0, minimum=1, maximum=studio.limits.takes)
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
        steps = gr.Number(default.steps, label="Steps", precision=0, minimum=1)
        guidance = gr.Number(default.guidance, label="Guidance", minimum=0)
    start, stop, status = buttons("Apply the edit")
    takes_shown = players(studio)

    def run(
        kind: str, path: str | None, prompt: str, begin: float, end: float, strength: float, longer: float,
        splice: bool, takes: int, seed: int, steps: int, guidance: float, past: History,
    ) -> Iterator[list[Any]]:  # fmt: skip
        request = EditRequest(
            kind, path, prompt or "", begin or 0.0, end or 0.0, strength, longer or 0.0, splice,
            int(takes or 1), int(seed or 0),
        )  # fmt: skip
        work = partial(studio.edit, request, steps=int(steps or default.steps), guidance=guidance)
        yield from updates(studio, past, work)

    def opened(path: str | None) -> tuple[str, str]:
        if not path:
            return "", ""
        try:
            return picture(studio, path), ""
        except AudioLDMError as error:
            return "", f"{error}"

    sound.change(opened, sound, [wave, status], show_progress="hidden", api_visibility="private")
    inputs = [
        kind,
        sound,
        prompt,
        begin,
        end,
        strength,
        longer,
        splice,
        takes,
        seed,
        steps,
        guidance,
        history,
    ]
    wire(start, stop, status, run, inputs, [status, history, *takes_shown], api_name="edit")


def buttons(label: str) -> tuple[gr.Button, gr.Button, gr.Markdown]:
    """Start, stop, and the line that says what is going on."""
    with gr.Row():
        start = gr.Button(label, variant="primary")
        stop = gr.Button("Cancel", variant="secondary")
    return start, stop, gr.Markdown("", elem_classes="status", container=True, min_height=24)


def players(studio: Studio) -> list[Any]:
    """A player and a picture for each take, hidden until there is one."""
    parts: list[Any] = []
    with gr.Row():
        for place in range(studio.limits.takes):
            label = f"Take {place + 1}"
            with gr.Column(min_width=280):
                parts.append(gr.Audio(label=label, interactive=False, visible=False, buttons=["download"]))
                parts.append(gr.HTML("", visible=False, elem_classes="picture"))
    return parts


def wire(
    start: gr.Button, stop: gr.Button, status: gr.Markdown, run: Any, inputs: list[Any], outputs: list[Any], *,
    api_name: str, enter: gr.Textbox | None = None,
) -> None:  # fmt: skip
    """Start by the button or by Enter, one request at a time for all pages; stop by the other button."""
    common: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "hidden"}
    events: list[Any] = [start.click(run, inputs, outputs, api_name=api_name, **common)]
    if enter is not None:
        events.append(enter.submit(run, inputs, outputs, api_visibility="private", **common))
    stop.click(
        lambda: "Cancelled.",
        None,
        status,
        cancels=events,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def updates(studio: Studio, past: History, work: Any) -> Iterator[list[Any]]:
    """Updates of the page while ``work()`` goes on: the line, the history, the takes."""
    still: list[Any] = [gr.skip()] * (2 * studio.limits.takes)
    yield ["Waiting for the model.", gr.skip(), *still]
    try:
        for news in work():
            if isinstance(news, Progress):
                yield [f"Step {news.done} of {news.steps}.", gr.skip(), *still]
            elif isinstance(news, Done):
                yield [f"Done: {len(news.result)} of {len(news.result)}.", past + [line(t) for t in news.result],
                       *visible(studio, news.result)]  # fmt: skip
    except AudioLDMError as error:
        yield [f"{error}", gr.skip(), *still]
    except Exception as error:
        yield [
            f"The request failed ({type(error).__name__}); the server's log has the details.",
            gr.skip(),
            *still,
        ]
        raise


def visible(studio: Studio, takes: Sequence[Take]) -> list[Update]:
    """Every player: those with a take shown, the others hidden."""
    parts: list[Update] = []
    for place, take in enumerate(takes):
        label = f"ake {place + 1}, seed {take.seed}"
        image = img(take.figure.read_bytes(), f"Waveform and log-mel of t{label}")
        parts.append(gr.update(value=str(take.audio), visible=True, label=f"T{label}"))
        parts.append(gr.update(value=image, visible=True))
    hidden = [gr.update(value=None, visible=False)] * 2
    return parts + hidden * (studio.limits.takes - len(takes))


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
    """An HTML table; words of the user are escaped."""
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


def picture(studio: Studio, path: str) -> str:
    """The waveform of an upload, on which a region can be drawn."""
    sound = studio.opened(path)
    png = figure.strip(sound.mono(studio.pipe.spec.rate).numpy())
    drawn = img(png, f"Waveform, {sound.seconds:.1f} seconds: drag to select a region")
    return f'<div id="wave" data-seconds="{sound.seconds:.4f}">{drawn}<div class="shade"></div></div>'


def img(png: bytes, words: str) -> str:
    """A picture inside the page, with words for those who do not see it."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{data}">'
