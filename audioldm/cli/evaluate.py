"""``audioldm evaluate``: how good is a model, in numbers."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.options.model import load
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.datasets.manifest import Row
    from audioldm.evaluation.recognition import Report
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.spec import AudioSpec


class ScoreByDefault(TyperGroup):
    """``audioldm evaluate GENERATED REFERENCE`` is ``audioldm evaluate score GENERATED REFERENCE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``score`` before what is neither a command nor a call for help."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["score", *args]
        return super().parse_args(ctx, args)


evaluate = typer.Typer(cls=ScoreByDefault, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@evaluate.callback()
def group() -> None:
    """Measure a model.

    \b
    Examples:
      audioldm evaluate GENERATED REFERENCE             the same as audioldm evaluate score
      audioldm evaluate --model MODEL --manifest data/raw/esc10.jsonl
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL
      audioldm evaluate esc10 --help
    """


@evaluate.command()
def esc10(
    manifest: Annotated[Path, typer.Option(metavar="JSONL", help="ESC-10's manifest, with folds 1 to 4.")],
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="DIR", help="Model folder.  [default: the embedded one]"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Clips per class, with seeds 0, 1, ...")] = 20,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 25,
    guidance: Annotated[float, typer.Option(help="How strictly to follow the prompt; 1: no guidance.")] = 3.0,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="Sampler.")] = "ddim",
    seconds: Annotated[float, typer.Option(help="Length of each clip.")] = 5.12,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Judge clips that exist, in DIR/dog_bark/*.wav and so on."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Keep clips and reports here.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw a real and a generated log-mel of each class.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Clips made at once.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Numbers in the networks: float32, bfloat16, float16.")
    ] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads of the classifier's network.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite results that exist.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Ask for each of ESC-10's ten classes; count how often a classifier of real sounds hears it.

    The classifier is linear, on YAMNet's embeddings, trained on ESC-10's folds 1 to 3. Its accuracy on real
    sounds of fold 4 is printed beside the share of generated sounds that it recognises.

    \b
    Examples:
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl -m MODEL --seeds 5 -o out/esc10
      audioldm evaluate esc10 --manifest data/raw/esc10.jsonl --folder out/esc10 --sheet out/esc10.png
    """
    check_numbers(n=1, seconds=seconds, steps=steps, guidance=guidance, seed=0, batch_size=batch_size)
    if seeds < 1:
        raise AudioLDMError(f"seeds={seeds} is not a number of clips.", "Use 1 or more.")
    if folder is not None and model is not None:
        raise AudioLDMError("--folder and --model were both given.", "Give the one to judge.")
    if folder is not None and not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Give --folder a folder of clips.")
    check_names(device=device, dtype=dtype)
    check_free(out, sheet, keep_clips=folder is None, force=force)
    from audioldm.datasets import manifest as manifests
    from audioldm.evaluation import recognition
    from audioldm.evaluation.yamnet import YamNet

    rows = manifests.read(manifest)
    recognition.check(rows)
    yamnet = YamNet(threads=threads)
    keep = Keep(out if folder is None else None, yamnet.rate)
    if folder is None:
        check_parts(sampler=sampler, grid=None, device=device)
        pipe = load(model, device=device, dtype=dtype)
        given = {"seconds": seconds, "steps": steps, "sampler": sampler, "guidance": guidance}
        settings: dict[str, Any] = {**vars(pipe.defaults), **given}
        source: dict[str, Any] = {"generate": generator(pipe, settings, batch_size=batch_size)}
        settings |= {"model": pipe.name, "sha256": pipe.hashes, "seeds": seeds, "dtype": dtype}
    else:
        source, settings = {"folder": folder}, {"folder": str(folder)}
    with bars(seeds * len(recognition.PROMPTS) if folder is None else None) as (real, generated):

        def on_clip(label: str, name: str, wave: "Tensor") -> None:
            keep(label, name, wave)
            generated()

        report = recognition.esc10_recognition(
            rows, yamnet, seeds=range(seeds), on_clip=on_clip, progress=real, settings=settings, **source
        )
    text = json.dumps(report.as_dict(), indent=1, ensure_ascii=False) + "\n"
    if out is not None:
        save(report, text, out)
    if sheet is not None:
        from audioldm.spec import SPECS

        draw_sheet(sheet, rows, keep.first, SPECS["16k_64"])
    print(text if as_json else report.markdown(), end="")


class Keep:
    """Writes each generated clip below ``folder`` (if any) and remembers the first one of each class."""

    def __init__(self, folder: Path | None, rate: int) -> None:
        self.folder = folder
        self.rate = rate
        self.first: dict[str, Tensor] = {}

    def __call__(self, label: str, name: str, wave: "Tensor") -> None:
        """Take one clip (N,)."""
        from audioldm.datasets.decode import encode
        from audioldm.evaluation.recognition import folder_of

        self.first.setdefault(label, wave)
        if self.folder is not None:
            encode(folder_of(self.folder, label) / f"{name}.wav", wave, self.rate)


def check_free(out: Path | None, sheet: Path | None, *, keep_clips: bool, force: bool) -> None:
    """Refuse to write over anything; stale clips would be judged with the new ones by ``--folder``."""
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise AudioLDMError(f"sheet={sheet} is not a PNG.", "Let its name end in .png.")
    taken = [sheet] if sheet is not None else []
    if out is not None:
        taken += [out / "report.json", out / "report.md"]
        taken += sorted(out.glob("*/[0-9]*.wav")) if keep_clips else []
    if not force and (there := [path for path in taken if path.exists()]):
        raise AudioLDMError(f"{there[0]} exists ({len(there)} such files).", "Use another place, or --force.")


def generator(
    pipe: "AudioLDM", settings: dict[str, Any], *, batch_size: int
) -> Callable[[Sequence[str], Sequence[int]], "Tensor"]:
    """Prompts and seeds to waves (B, N) at YAMNet's rate."""
    from audioldm.datasets.decode import resample
    from audioldm.evaluation.yamnet import RATE

    settings = dict(settings)

    def generate(prompts: Sequence[str], seeds: Sequence[int]) -> "Tensor":
        waves = pipe(list(prompts), seeds=list(seeds), batch_size=batch_size, **settings)
        return resample(waves.float().cpu(), pipe.spec.rate, RATE)

    return generate


def save(report: "Report", text: str, out: Path) -> None:
    """Write report.json and report.md together."""
    from audioldm.pipeline.outputs import publish

    out.mkdir(parents=True, exist_ok=True)
    publish({out / "report.json": text.encode(), out / "report.md": report.markdown().encode()})


def draw_sheet(path: Path, rows: Sequence["Row"], generated: dict[str, "Tensor"], spec: "AudioSpec") -> None:
    """One row per class: the log-mel of a real clip of fold 4 beside that of the first generated one."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from audioldm.evaluation.recognition import PROMPTS, TEST_FOLD
    from audioldm.evaluation.yamnet import load as load_row
    from audioldm.pipeline.outputs import publish
    from audioldm.signal.decibels import RANGE_DB, mel_decibels

    figure = Figure(figsize=(9, 16), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(PROMPTS), 2, sharex=True)
    for (label, prompt), pair in zip(PROMPTS.items(), panels, strict=True):
        row = next(row for row in rows if row.fold == TEST_FOLD and label in row.labels)
        waves = {f"{label} (real)": load_row(row, spec.rate), f'"{prompt}"': generated[label]}
        for axes, (title, wave) in zip(pair, waves.items(), strict=True):
            decibels = mel_decibels(wave.numpy(), spec)
            axes.imshow(
                decibels.T, origin="lower", aspect="auto", cmap="magma", vmin=decibels.max() - RANGE_DB,
                extent=(0, len(wave) / spec.rate, 0, spec.mels), interpolation="nearest",
            )  # fmt: skip
            axes.set_title(title, fontsize=9)
            axes.set_ylabel("mel band" if axes is pair[0] else "")
    for axes in panels[-1]:
        axes.set_xlabel("time (s)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish({path: buffer.getvalue()})


@contextmanager
def bars(clips: int | None) -> Iterator[tuple[Callable[[int, int], None], Callable[[], None]]]:
    """Two bars on stderr: real clips as (done, total), generated clips one by one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console, steal = Console(stderr=True), sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=steal) as bar:
        real, made = bar.add_task("real clips", total=None), bar.add_task("generated clips", total=clips)
        yield lambda done, total: bar.update(real, completed=done, total=total), lambda: bar.advance(made)
