"""``audioldm evaluate edits``: how good edits are, beside what one gets without a model."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from audioldm.cli.checks import check_names, check_numbers, check_parts
from audioldm.cli.options import grouped
from audioldm.cli.options.model import ModelOptions
from audioldm.cli.options.sampling import Steps
from audioldm.errors import AudioLDMError

PARTS = ("upscale", "inpaint", "transfer", "invert", "denoise", "seams")
CUTOFFS = (2000, 4000)


@grouped
def edits(
    manifest: Annotated[Path, typer.Option(metavar="JSONL", help="ESC-10's manifest, with folds 1 to 4.")],
    clips: Annotated[int, typer.Option(help="Real clips of fold 4, class by class in turn.")] = 20,
    part: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help=f"One of {', '.join(PARTS)}.  Repeatable.  [default: all]",
            show_default=False,
        ),
    ] = [],  # noqa: B006  (typer reads it, nobody writes it)
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Keep edits.json and edits.md here.")
    ] = None,
    *,
    steps: Steps,
    machine: ModelOptions,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.  [default: the model's]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite results that exist.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Edit real clips that no training saw and measure the results, beside baselines without a model.

    Super-resolution: log-spectral distance to the truth. Inpainting: Frechet distance and KL of YAMNet. Transfer:
    target heard and course kept, over strength. Denoising: SI-SDR. Seams: spectral flux there against elsewhere.

    \b
    Examples:
      audioldm evaluate edits --manifest data/raw/esc10.jsonl
      audioldm evaluate edits --manifest data/raw/esc10.jsonl --part upscale --clips 80 -o out/edits
    """
    check_numbers(n=clips, seconds=None, steps=steps.steps, guidance=guidance, seed=0, batch_size=None)
    check_names(device=machine.device, dtype=machine.dtype)
    if unknown := [name for name in part if name not in PARTS]:
        raise AudioLDMError(f"part={unknown[0]!r} is unknown.", f"Known: {', '.join(PARTS)}.")
    kept = [] if out is None else [out / "edits.json", out / "edits.md"]
    if not force and (there := [path for path in kept if path.exists()]):
        raise AudioLDMError(f"{there[0]} exists.", "Use another --out, or --force.")
    from audioldm.datasets import manifest as manifests
    from audioldm.evaluation import edits as measures
    from audioldm.evaluation import recognition
    from audioldm.evaluation import seams as joints
    from audioldm.evaluation.yamnet import YamNet
    from audioldm.pipeline.outputs import publish

    rows = manifests.read(manifest)
    recognition.check(rows)
    check_parts(sampler=steps.sampler, grid=steps.grid, device=machine.device)
    pipe, yamnet = machine.load(), YamNet()
    settings = {**steps.settings(), "guidance": guidance}
    held = measures.held_out(rows, pipe, clips)
    asked = part or list(PARTS)
    found: dict[str, Any] = {"model": {"name": pipe.name, "sha256": pipe.hashes}, "settings": settings}
    more = len(held) * ("upscale" in asked) + len(joints.STEADY) * ("seams" in asked)
    with bar(len(held) * len(asked) + more) as done:
        if "upscale" in asked:
            found["upscale"] = [
                row
                for hertz in CUTOFFS
                for row in measures.super_resolution(pipe, held, hertz, done, **settings)
            ]
        if "inpaint" in asked:
            found["inpaint"] = measures.inpainting(pipe, held, yamnet, done, **settings)
        if {"transfer", "invert"} & set(asked):
            listener = recognition.Listener.train(rows, yamnet)
            for name in ("transfer", "invert"):
                if name in asked:
                    found[name] = measures.transfers(
                        pipe, held, listener, done, invert=name == "invert", **settings
                    )
        if "denoise" in asked:
            found["denoise"] = measures.denoising(pipe, held, done, **settings)
        if "seams" in asked:
            found["seams"] = joints.seams(pipe, held, done, **settings)
    text = (
        f"{pipe.name}\n\n"
        + "\n\n".join(f"{name}\n\n{measures.markdown(found[name])}" for name in asked)
        + "\n"
    )
    if out is not None:
        publish({kept[0]: (json.dumps(found, indent=1) + "\n").encode(), kept[1]: text.encode()})
    print(text, end="")


@contextmanager
def bar(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr over ``total`` clips."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("clips", total=total)
        yield lambda: shown.advance(task)
