"""``audioldm app``: a page of prompts, edits with a drawn region, a training on own sounds, takes and history."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from audioldm.cli.options import Between, Command, option
from audioldm.cli.options.groups import ModelOptions
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError

with later():
    import gradio as gr
    from starlette import middleware

    from audioldm.app import gate, training
    from audioldm.cli import results
    from audioldm.diffusion import samplers
    from audioldm.evaluation import html, picture
    from audioldm.serve import jobs, service

STATIC = Path(__file__).with_name("static")
Update = dict[str, Any]
History = list[dict[str, Any]]
Work = Callable[[dict[str, Any]], Iterator[Any]]
MODEL: Update = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "hidden"}
"""One request computes at a time, for all visitors together."""
QUIET: Update = {"show_progress": "hidden", "api_visibility": "private"}


class Serve(Command):
    """Generate, edit, and train on your own sounds in the browser.

    One request computes at a time, others wait in a bounded queue. Uploads and results stay in --out; only its
    sounds, pictures and .json files can be read through the page. Requests by other names than this
    machine's, or from other sites, are refused. With --host, anybody who reaches the machine can use the page, and
    train on the folders below --sounds. Trainings stay in --out/training; one goes on while the server does.

    Examples:
      audioldm app
      audioldm app --sounds my_sounds
      audioldm app -m runs/my_model --port 8000 --longest 120
    """

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = option(7860, "Port; 0 takes a free one.", Between(0, 65535))
    out: Path = option(Path("out/app"), "Folder for uploads and results.", "-o", "DIR")
    longest: float = option(60.0, "Longest sound of a request.", "SECONDS", Between(0, 1800, above=True))
    waiting: int = option(32, "Requests that may wait; more are turned away.", Between(1))
    sounds: Path | None = option(None, "Train on folders below this one.  [default: no training]")
    model: ModelOptions = ModelOptions()

    def run(self) -> None:
        root = None if self.sounds is None else self.sounds.absolute()
        if root is not None and not root.is_dir():
            raise AudioLDMError(f"sounds={root} is no folder.", "Name the one that holds folders of sounds.")
        os.environ["GRADIO_TEMP_DIR"] = str((self.out / "uploads").absolute())
        self.out.mkdir(parents=True, exist_ok=True)
        limits = service.Limits(seconds=self.longest, waiting=self.waiting)
        queue = jobs.Jobs(max(self.waiting, limits.takes))
        studio = service.Service(self.model.load(), limits, queue, out=self.out)
        trainer = training.Trainer(studio, self.model, root)
        port, about = self.port or free_port(self.host), settings(studio, self.host)
        try:
            build(studio, trainer).launch(server_port=port, **about, quiet=False)
        except OSError as error:
            what = f"port={self.port} cannot be used: {error}."
            raise AudioLDMError(what, "Choose another --port.", code=1) from error
        finally:
            trainer.stop()


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Tab:
    """Fields by the names that requests call them, and below them the buttons, the line of news, and the players."""

    def __init__(self, fields: dict[str, Any], start: str, stop: str, takes: int) -> None:
        self.fields, self.players = fields, list[Any]()
        with gr.Row():
            self.start, self.stop = gr.Button(start, variant="primary"), gr.Button(stop, variant="secondary")
        self.status = gr.Markdown("", elem_classes="status", container=True, min_height=24)
        with gr.Row():
            for place in range(takes):
                about: Update = {"interactive": False, "visible": False, "buttons": ["download"]}
                with gr.Column(min_width=280):
                    self.players.append(gr.Audio(label=f"Take {place + 1}", **about))
                    self.players.append(gr.HTML("", visible=False, elem_classes="picture"))

    def runner(self, act: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """``act(answers, *rest)`` as Gradio calls it: with the value of each field (or its default), then more."""

        def run(*values: Any) -> Iterator[Any]:
            pairs = zip(self.fields.items(), values, strict=False)
            answers = {name: part.value if value is None else value for (name, part), value in pairs}
            yield from act(answers, *values[len(self.fields) :])

        return run

    def wire(self, studio: service.Service, history: gr.State, work: Work, api_name: str) -> None:
        """Start by the button or by Enter in a prompt alone, stop by the other button."""
        run = self.runner(partial(updates, studio.limits.takes, work))
        inputs, outputs = [*self.fields.values(), history], [self.status, history, *self.players]
        events: list[Any] = [self.start.click(run, inputs, outputs, api_name=api_name, **MODEL)]
        if api_name == "generate":
            enter = self.fields["prompt"].submit
            events.append(enter(run, inputs, outputs, api_visibility="private", **MODEL))
        self.stop.click(lambda: "Cancelled.", None, self.status, cancels=events, queue=False, **QUIET)


def build(studio: service.Service, trainer: training.Trainer) -> gr.Blocks:
    page = gr.Blocks(title="audioldm", analytics_enabled=False, fill_width=True)
    with page:
        gr.Markdown(f"# audioldm\nText to sound, and edits of sound, with the model {studio.pipe.name}.")
        history = gr.State([])
        with gr.Tabs():
            with gr.Tab("Generate", id="generate"):
                generate_tab(studio, history)
            with gr.Tab("Edit", id="edit"):
                edit_tab(studio, history)
            with gr.Tab("Train", id="train"):
                train_tab(page, trainer)
            with gr.Tab("History", id="history"):
                table = gr.HTML("<p>Nothing yet.</p>", elem_id="history")
                files = gr.Files(label="Sounds and sidecars", interactive=False, elem_id="files")
        history.change(history_html, history, [table, files], **QUIET)
    page.queue(max_size=studio.limits.waiting, default_concurrency_limit=1)
    return page


def settings(studio: service.Service, host: str) -> dict[str, Any]:
    css, script = ((STATIC / name).read_text(encoding="utf-8") for name in ("style.css", "selection.js"))
    blue, body = dict.fromkeys(("", "_dark"), "#1d4ed8") | {"_hover": "#1e40af"}, "*body_text_color"
    colours = {f"button_primary_background_fill{state}": colour for state, colour in blue.items()}
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"], primary_hue="blue")
    theme.set(**colours, block_label_text_color=body, block_title_text_color=body)
    return {
        "server_name": host, "max_file_size": studio.limits.upload_mb * 2**20,
        "allowed_paths": [str(studio.results.absolute())],
        "app_kwargs": {"middleware": [middleware.Middleware(gate.Gate, folder=studio.out, host=host)]},
        "theme": theme, "css": css, "head": f"<script>{script}</script>", "footer_links": [],
        "ssr_mode": False, "share": False,
    }  # fmt: skip


def number(label: str, value: float, least: float = 0, most: float | None = None, **about: Any) -> gr.Number:
    return gr.Number(value, label=label, minimum=least, maximum=most, **about)


def whole(label: str, value: float, least: int = 1, most: float | None = None) -> gr.Number:
    return number(label, value, least, most, precision=0)


def text(label: str, placeholder: str = "", **about: Any) -> gr.Textbox:
    return gr.Textbox("", label=label, placeholder=placeholder, lines=1, **about)


def generate_tab(studio: service.Service, history: gr.State) -> None:
    default, limits = studio.pipe.defaults, studio.limits
    fields: dict[str, Any] = {"prompt": text("Prompt", "a dog barking", elem_id="prompt"), "negative": None}
    with gr.Row():
        fields["seconds"] = number("Seconds", default.seconds, 0.1, limits.seconds)
        fields["takes"] = whole("Takes", 1, most=limits.takes)
        fields["seed"] = whole("Seed", 0, 0)
    with gr.Accordion("More settings", open=False):
        fields["negative"] = text("What not to hear")
        with gr.Row():
            fields["steps"] = whole("Steps", default.steps)
            fields["guidance"] = number("Guidance", default.guidance)
            fields["sampler"] = gr.Dropdown(sorted(samplers.SAMPLERS), value=default.sampler, label="Sampler")
    tab = Tab(fields, "Generate", "Cancel", limits.takes)
    tab.wire(studio, history, lambda answers: studio.generate(**answers), "generate")


def edit_tab(studio: service.Service, history: gr.State) -> None:
    default, limits = studio.pipe.defaults, studio.limits
    sources: Any = ["upload", "microphone"]
    sound = gr.Audio(label="Sound to edit", type="filepath", sources=sources, elem_id="sound")
    wave, fields = gr.HTML("", elem_id="wave-box"), dict[str, Any]()
    with gr.Row():
        begin = number("From (seconds)", 0.0, elem_id="from")
        end = number("To (seconds)", 0.0, elem_id="to")
        fields["kind"] = gr.Dropdown(list(service.EDITS), value="inpaint", label="Edit", elem_id="kind")
    fields |= {"path": sound, "prompt": text("Prompt for the edit", "birds singing"), "begin": begin}
    fields["end"] = end
    with gr.Row():
        fields["strength"] = gr.Slider(0, 1, 0.5, label="Strength (transfer, vary, denoise)")
        fields["seconds"] = number("Seconds longer (continue)", 2.0, 0.1)
    fields["splice"] = gr.Checkbox(False, label="Splice: leave every sample outside the region as it is")
    with gr.Accordion("More settings", open=False), gr.Row():
        fields |= {"takes": whole("Takes", 1, most=limits.takes), "seed": whole("Seed", 0, 0)}
        fields |= {"steps": whole("Steps", default.steps), "guidance": number("Guidance", default.guidance)}
    tab = Tab(fields, "Apply the edit", "Cancel", limits.takes)

    def work(answers: dict[str, Any]) -> Iterator[Any]:
        settings = {name: answers.pop(name) for name in ("steps", "guidance")}
        return studio.edit(service.EditRequest(**answers), **settings)

    def opened(path: str | None) -> tuple[str, str]:
        """The waveform to draw a region on, or what is wrong."""
        if not path:
            return "", ""
        try:
            sound = studio.opened(path)
        except AudioLDMError as error:
            return "", f"{error}"
        title = f"Waveform, {sound.seconds:.1f} seconds: drag to select a region"
        image = html.image(results.strip(sound.mono(studio.pipe.spec.rate).numpy()), title)
        shade = '<div class="shade"></div>'
        return f'<div id="wave" data-seconds="{sound.seconds:.4f}">{image}{shade}</div>', ""

    sound.change(opened, sound, [wave, tab.status], **QUIET)
    tab.wire(studio, history, work, "edit")


def train_tab(page: gr.Blocks, trainer: training.Trainer) -> None:
    going = "Learn the sounds of a folder on the server, one training at a time. It goes on when this page is closed."
    gr.Markdown(going if trainer.root else "This server trains on no folder; `--sounds FOLDER` names one.")
    about: Update = {"label": "Folder of sounds", "allow_custom_value": True, "elem_id": "folder"}
    folder = gr.Dropdown(trainer.folders(), value=None, **about)
    fields: dict[str, Any] = {"folder": folder}
    fields["prompt"] = text("What the sounds are (empty: the captions beside them)", "my sound")
    with gr.Accordion("More settings", open=False), gr.Row():
        fields["compare"] = text("Prompt before and after (empty: the same)")
        fields["batches"] = whole("Batches", 300)
    curve = gr.HTML("", elem_classes="curve", elem_id="curve")
    tab = Tab(fields, "Train", "Stop", 2)
    outputs = [tab.status, curve, *tab.players]

    def start(answers: dict[str, Any]) -> Iterator[list[Any]]:
        try:
            trainer.start(training.TrainRequest(**{**answers, "folder": answers["folder"] or ""}))
        except AudioLDMError as error:
            yield [f"{error}", *[gr.skip()] * (len(outputs) - 1)]
            return
        yield from progress()

    def progress() -> Iterator[list[Any]]:
        """The line, the curve, at last both takes."""
        points = None
        for news in trainer.watch():
            drawn = gr.skip() if news.curve == points else curve_html(news.curve)
            points = news.curve
            shown = visible(news.takes, ("Before", "After"), 2) if news.takes else [gr.skip()] * 4
            yield [news.line, drawn, *shown]

    free: Update = {"concurrency_limit": None, "show_progress": "hidden"}
    tab.start.click(tab.runner(start), list(fields.values()), outputs, api_name="train", **free)
    tab.stop.click(trainer.stop, None, None, api_name="stop", **free)
    page.load(progress, None, outputs, api_visibility="private", **free)
    page.load(lambda: gr.update(choices=trainer.folders()), None, folder, **QUIET)


def updates(count: int, work: Work, answers: dict[str, Any], past: History) -> Iterator[list[Any]]:
    """Updates of the page while ``work(answers)`` goes on: the line, the history, the takes."""
    still: list[Any] = [gr.skip()] * (1 + 2 * count)
    yield ["Waiting for the model.", *still]
    try:
        for news in work(answers):
            if isinstance(news, jobs.Progress):
                yield [f"Step {news.done} of {news.steps}.", *still]
            else:
                names = [f"Take {place + 1}" for place in range(len(news))]
                yield [finished(news), past + news, *visible(news, names, count)]
    except AudioLDMError as error:
        yield [f"{error}", *still]
    except Exception as error:
        yield [f"The request failed ({type(error).__name__}); the server's log has the details.", *still]
        raise


def finished(takes: list[service.Take]) -> str:
    """The last line of a request, with what became of the upload's channels and what was not used."""
    notes = (f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in takes[0]["settings"]["notes"])
    return " ".join([f"Done: {len(takes)} of {len(takes)}.", *notes])


def visible(takes: list[service.Take], names: Sequence[str], count: int) -> list[Update]:
    parts: list[Update] = []
    for take, name in zip(takes, names, strict=True):
        label = f"{name}, seed {take['seed']}"
        png = Path(take["figure"]).read_bytes()
        image = html.image(png, f"Waveform and log-mel of {label[:1].lower()}{label[1:]}")
        parts.append(gr.update(value=take["audio"], visible=True, label=label))
        parts.append(gr.update(value=image, visible=True))
    return parts + [gr.update(value=None, visible=False)] * 2 * (count - len(takes))


def history_html(past: History) -> tuple[str, list[str]]:
    newest, rows = past[::-1], []
    for take in newest:
        what = take["settings"].get("edit", "generate")
        rows.append([what, take["prompt"], take["seed"], take["sound"]["seconds"]])
    table = html.table(["what", "prompt", "seed", "seconds"], rows)
    box = f'<div class="history" tabindex="0" role="region" aria-label="History">{table}</div>'
    return box, [take[kind] for take in newest for kind in ("audio", "sidecar")]


def curve_html(points: list[tuple[float, float]]) -> str:
    if not points:
        return ""
    drawing, (first, last) = picture.Picture(figsize=(9, 2.6)), (points[0][1], points[-1][1])
    axes = drawing.subplots()
    axes.plot(*zip(*points, strict=True), linewidth=0.8, color="#1d4ed8")
    axes.set(xlabel="batch", ylabel="loss")
    axes.grid(alpha=0.3)
    return html.figure(drawing, f"Loss of {len(points)} batches, {first:.3g} at first, {last:.3g} now")
