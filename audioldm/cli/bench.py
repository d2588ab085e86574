"""``audioldm bench``: how fast a model generates here, where the time goes, and how near the machine's best that is."""

import io
import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.checks import check_parts
from audioldm.cli.console import say, waiting
from audioldm.cli.options import Between, changed, grouped
from audioldm.cli.options.model import ModelOptions
from audioldm.cli.options.output import DryRun
from audioldm.cli.options.sampling import Sampling
from audioldm.cli.startup import loading
from audioldm.paths import write_bytes

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.timing import Span

COLOURS = {"text": "#4c72b0", "unet": "#dd8452", "vae": "#55a868", "vocoder": "#c44e52"}


@grouped
def bench(
    prompt: Annotated[str, typer.Argument(help="What to generate meanwhile.")] = "a dog barking",
    *,
    sampling: Sampling,
    model: ModelOptions,
    batch_size: Annotated[int, typer.Option(help="Clips made at once."), Between(1, 4096)] = 1,
    repeat: Annotated[int, typer.Option(help="Timed runs, after one that warms up."), Between(1, 10_000)] = 3,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the last run's parts over time.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of a table.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Time a model on this machine, part by part.

    Median of the runs; gflop counts a multiply-add as two; "of peak" compares with a large matrix product in the same
    number type here, so 100 % is a floor that nothing with these layers goes below.

    \b
    Examples:
      audioldm bench
      audioldm bench --mode fast --trace out/trace.png
      audioldm bench --dry-run --set dtype=bfloat16
      audioldm bench -m out/model --seconds 10 --steps 25 --device cuda --mode compiled --json
    """
    model.check()
    with waiting("loading torch and the model"), loading():
        check_parts(sampler=sampling.sampler, grid=sampling.grid, device=model.device)
        if dry_run:
            settings = changed(sampling, model) or "the model's own settings"
            say(f"dry run: {batch_size} clips of {prompt!r}, {repeat} times after a warm-up; {settings}.")
            return
        pipe = model.load()
    settings = sampling.settings()
    with waiting("generating"):
        result, spans = measure(pipe, prompt, settings, batch_size=batch_size, repeat=repeat)
    if trace is not None:
        write_bytes(trace, draw_spans(spans, title=title_of(result)))
        result["trace"] = str(trace)
    print(json.dumps(result, indent=2) if as_json else table(result))


def measure(
    pipe: "AudioLDM", prompt: str, settings: dict[str, Any], *, batch_size: int, repeat: int
) -> tuple[dict[str, Any], list["Span"]]:
    """Medians by part over ``repeat`` runs, with operations, peak share and memory; and the last run's spans."""
    import torch

    from audioldm.pipeline import timing

    def run() -> None:
        pipe([prompt] * batch_size, seeds=range(batch_size), batch_size=batch_size, **settings)

    counted = timing.trace(
        pipe, run, count=pipe.mode == "exact"
    )  # warms up; recorded graphs hide their operations
    runs = [timing.trace(pipe, run) for _ in range(repeat)]
    seconds = {part: [timing.shares(spans)[part] for spans in runs] for part in (*timing.PARTS, "all")}
    length, whole = settings.get("seconds") or pipe.defaults.seconds, median(seconds["all"])
    peak = timing.matmul_rate(pipe.device, pipe.dtype)
    parts = {}
    for part in timing.PARTS:
        flops = sum(span.flops for span in counted if span.part == part)
        parts[part] = {
            "s": median(seconds[part]),
            "least_s": min(seconds[part]),
            "most_s": max(seconds[part]),
            "calls": sum(span.part == part for span in runs[-1]),
            "gflop": flops / 1e9,
            "of_peak": flops / median(seconds[part]) / peak if flops else None,
        }
    result = {
        "model": pipe.name,
        "mode": pipe.mode,
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(pipe.device) if pipe.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "clips": batch_size,
        "seconds": length,
        "steps": settings.get("steps") or pipe.defaults.steps,
        "s": whole,
        "real_time_factor": whole / (length * batch_size),
        "clips_per_minute": 60 * batch_size / whole,
        "peak_mib": timing.peak_mib(pipe.device),
        "peak_gflop_per_s": peak / 1e9,
        "parts": parts,
    }
    return result, runs[-1]


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['model']}, {result['mode']} ({result['dtype']}) on {result['device']}, {result['threads']} threads: "
        f"{result['clips']} x {result['seconds']:g} s, {result['steps']} steps",
        f"{result['s']:.3f} s, {result['real_time_factor']:.3f} of real time, "
        f"{result['clips_per_minute']:.1f} clips/min, peak memory {result['peak_mib']:.0f} MiB, "
        f"matrix peak {result['peak_gflop_per_s']:.0f} GFLOP/s",
        f"{'part':<9}{'calls':>6}{'s':>9}{'share':>8}{'least..most':>18}{'gflop':>10}{'of peak':>9}",
    ]
    for part, row in result["parts"].items():
        of_peak = "-" if row["of_peak"] is None else f"{row['of_peak']:.0%}"
        spread = f"{row['least_s']:.3f}..{row['most_s']:.3f}"
        gflop = f"{row['gflop']:.2f}" if row["gflop"] else "-"
        lines.append(
            f"{part:<9}{row['calls'] or '-':>6}{row['s']:>9.3f}{row['s'] / result['s']:>8.0%}{spread:>18}"
            f"{gflop:>10}{of_peak:>9}"
        )
    return "\n".join(lines)


def title_of(result: dict[str, Any]) -> str:
    """What was run, on what."""
    return (
        f"{result['model']}, {result['mode']} ({result['dtype']}), {result['device']}: {result['clips']} x "
        f"{result['seconds']:g} s of sound, {result['steps']} steps"
    )


def draw_spans(spans: list["Span"], *, title: str) -> bytes:
    """PNG of one generation over time, a row a part and a bar a call; "rest" is the gaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from audioldm.pipeline.timing import PARTS, shares

    seconds = shares(spans)
    parts = [part for part in PARTS if part != "rest"]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, part in enumerate(parts):
        bars = [(s.start, s.end - s.start) for s in spans if s.part == part]
        axes.broken_barh(bars, (row - 0.38, 0.76), color=COLOURS[part], edgecolor="white", linewidth=0.4)
    labels = [f"{part}  {seconds[part]:.3f} s  {seconds[part] / seconds['all']:.0%}" for part in parts]
    axes.set_yticks(range(len(parts)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, seconds["all"])
    rest = f"between the parts {seconds['rest']:.3f} s ({seconds['rest'] / seconds['all']:.0%})"
    axes.set_xlabel(f"time in s;  all {seconds['all']:.3f} s;  {rest}")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130)
    return out.getvalue()
