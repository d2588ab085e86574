"""``audioldm ema``: an average of the weights of any length, chosen after the training."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from audioldm.errors import AudioLDMError

LEFT = ("checkpoints", "ema", "tensorboard", "csv", "previews", "latents", "model", ".*")
"""of a run, what the folder of an average does not hold"""


def ema(
    run: Annotated[
        Path, typer.Argument(help="Run folder of a U-Net trained with callbacks.power_ema.every=N.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Run-like folder to write; `audioldm export --ldm` takes it.")
    ],
    width: Annotated[
        float, typer.Option(help="Width of the average relative to the training's length.")
    ] = 0.1,
    at: Annotated[
        int | None, typer.Option(help="As if training had ended at this step; else the last.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False,
) -> None:
    """Combine stored averages to one of another length (EDM2's post-hoc EMA).

    \b
    Example:
      audioldm ema runs/audiocaps/ldm_s --width 0.08 -o runs/audiocaps/ldm_s_008
    """
    from audioldm.nets.folder import load_component, save_component, weight_file
    from audioldm.paths import staged
    from audioldm.training.ema import synthesise

    here, there = run.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise AudioLDMError(f"{out} and {run} hold one another.", "Name another folder for the average.")
    if out.exists() and not force:
        raise AudioLDMError(f"{out} exists.", "Pass --force to replace it.")
    if out.exists() and not (out / "model").is_dir():
        raise AudioLDMError(f"{out} is no run.", "--force replaces only a run's folder; name another.")
    state = synthesise(run / "ema", width=width, at=at)
    unet: Any = load_component(run / "model" / "unet")
    unet.load_state_dict(state, strict=True)
    with staged(out, folder=True) as stage:
        shutil.copytree(run, stage, ignore=shutil.ignore_patterns(*LEFT), dirs_exist_ok=True)
        save_component(unet, stage / "model" / "unet")
        shutil.rmtree(out, ignore_errors=True)
    typer.echo(str(weight_file(out / "model" / "unet")))
