"""``audioldm evaluate bars``: everything that a model to be shipped has to clear, in one table."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.options.model import load
from audioldm.errors import AudioLDMError

QUESTIONS = ("vocoder", "esc10", "tags", "distance", "diversity", "copies", "pitch")


def bars(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="JSONL...", help="All manifests that the model learned from.")
    ],
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="DIR", help="Model folder.  [default: the embedded one]"),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Clips, bars.md and bars.json go here.")
    ] = Path("out/bars"),
    only: Annotated[
        str, typer.Option(metavar="A,B", help=f"Questions to ask: {', '.join(QUESTIONS)}.  [default: all]")
    ] = "",
    seeds: Annotated[int, typer.Option(help="Clips of each ESC-10 prompt.")] = 20,
    captions: Annotated[int, typer.Option(help="Held-out captions of open sounds.")] = 100,
    pairs: Annotated[int, typer.Option(help="Pairs of low and high notes.")] = 50,
    seconds: Annotated[
        float | None, typer.Option(help="Length of each clip.  [default: the model's]")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.  [default: the model's]")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance.  [default: the model's]")] = None,
    sampler: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sampler.  [default: the model's]")
    ] = None,
    refine_phase: Annotated[
        int | None, typer.Option(help="Rounds of phase refinement after the vocoder.  [default: the model's]")
    ] = None,
    retry_silent: Annotated[
        int | None, typer.Option(help="How often a silent clip is drawn again.  [default: the model's]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Clips made at once.  [default: 1 on a CPU, else 16]")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Numbers in the networks: float32, bfloat16, float16.")
    ] = "float32",
    threads: Annotated[int, typer.Option(help="CPU threads of the tagger.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Judge a model by the bars of this project, real sounds beside every number.

    Needs ESC-10's and the open sounds' manifests; further ones (notes, speech, scenes) widen the search for copies
    and give the notes' own pitch row. Clips are kept by the hash of what made them, so an interrupted run goes on.

    \b
    Examples:
      audioldm evaluate bars data/raw/esc10.jsonl data/raw/opensounds.jsonl
      audioldm evaluate bars data/raw/*.jsonl -m out/mine --device cuda -o out/bars
      audioldm evaluate bars data/raw/*.jsonl --only vocoder,pitch --json
    """
    check_numbers(
        n=1, seconds=seconds, steps=steps, guidance=guidance, seed=0, batch_size=batch_size, refine_phase=refine_phase,
        retry_silent=retry_silent,
    )  # fmt: skip
    check_names(device=device, dtype=dtype)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in QUESTIONS]:
        raise AudioLDMError(f"only={unknown[0]!r} is no question.", f"Known: {', '.join(QUESTIONS)}.")
    if captions < 2 or pairs < 1:
        raise AudioLDMError(f"captions={captions} or pairs={pairs} is too few.", "Use 2 and 1 or more.")
    check_parts(sampler=sampler, grid=None, device=device)
    from audioldm.datasets import manifest
    from audioldm.evaluation import recognition
    from audioldm.evaluation.bars import bar, run, sounds
    from audioldm.evaluation.clips import Clips
    from audioldm.evaluation.yamnet import YamNet
    from audioldm.pipeline.outputs import check_writable, publish

    rows = [row for path in manifests for row in manifest.read(path)]
    recognition.check(sounds.of_source(rows, sounds.ESC10))
    check_writable(out)
    yamnet = YamNet(threads=threads)
    quiet()
    pipe = load(model, device=device, dtype=dtype)
    given = {
        "seconds": seconds, "steps": steps, "guidance": guidance, "sampler": sampler, "refine_phase": refine_phase,
        "retry_silent": retry_silent,
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None}
    clips = Clips(pipe, out / "clips", settings, batch_size=batch_size)
    judge = run.Bars(
        rows, clips, yamnet, stepping, seeds=seeds, captions=captions, pairs=pairs, device=str(pipe.device)
    )
    found: list[bar.Bar] = []
    for _, answers in judge.run(wanted):
        found += answers
        for answer in answers:
            print(bar.table([answer]).splitlines()[-1], file=sys.stderr)
    report: dict[str, Any] = {"about": run.about(judge), "bars": [answer.as_dict() for answer in found]}
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    shown = bar.table(found, [f"{pipe.name}, {judge.framing}", ""])
    publish({out / "bars.json": text.encode(), out / "bars.md": shown.encode()})
    print(text if as_json else shown, end="")


def quiet() -> None:
    """Leave transformers' own bars out; they would show the same small file again and again."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@contextmanager
def stepping(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, gone when it is full."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
