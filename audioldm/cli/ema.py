"""``audioldm ema``: an average of the weights of any length, chosen after the training."""

import shutil
from pathlib import Path
from typing import Any

from audioldm.cli.checks import check_free
from audioldm.cli.options import Between, Command, Force, argument, option, out_option
from audioldm.errors import AudioLDMError

LEFT = ("checkpoints", "ema", "tensorboard", "csv", "previews", "latents", "model", ".*")
"""of a run, what the folder of an average does not hold"""


class Ema(Force, Command):
    """Combine stored averages to one of another length (EDM2's post-hoc EMA).

    \b
    Example:
      audioldm ema runs/audiocaps/ldm_s --width 0.08 -o runs/audiocaps/ldm_s_008
    """

    folder: Path = argument(..., "Run folder of a U-Net trained with callbacks.power_ema.every=N.")
    out: Path = out_option(..., "DIR", "Run-like folder to write; `audioldm export --ldm` takes it.")
    width: float = option(0.1, "Width of the average relative to the training's length.")
    at: int | None = option(None, "As if training had ended at this step; else the last.", Between(1))

    def run(self) -> None:
        from audioldm.nets.folder import load_component, save_component, weight_file
        from audioldm.paths import staged
        from audioldm.training.ema import synthesise

        run, out = self.folder, self.out
        here, there = run.resolve(), out.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise AudioLDMError(f"{out} and {run} hold one another.", "Name another folder for the average.")
        check_free(out, force=self.force)
        if out.exists() and not (out / "model").is_dir():
            raise AudioLDMError(f"{out} is no run.", "--force replaces only a run's folder; name another.")
        state = synthesise(run / "ema", width=self.width, at=self.at)
        unet: Any = load_component(run / "model" / "unet")
        unet.load_state_dict(state, strict=True)
        with staged(out, folder=True) as stage:
            shutil.copytree(run, stage, ignore=shutil.ignore_patterns(*LEFT), dirs_exist_ok=True)
            save_component(unet, stage / "model" / "unet")
            shutil.rmtree(out, ignore_errors=True)
        print(weight_file(out / "model" / "unet"))
