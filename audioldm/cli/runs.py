"""Commands about trainings: the recipes, a run, the average of its weights, and a page about it."""

import shutil
from pathlib import Path
from typing import Any

from audioldm.cli.checks import check_free
from audioldm.cli.console import show_text, waiting
from audioldm.cli.options import Between, Command, Force, argument, option
from audioldm.errors import AudioLDMError
from audioldm.paths import shipped


class Train(Command):
    """Train a part of the system by a recipe; the same command again resumes.

    \b
    Examples:
      audioldm recipes                                     the recipes there are
      audioldm train tiny/vae                              train; type it again to resume
      audioldm train tiny/vae batches=50 task.lr=3e-4      change numbers
      audioldm train embedded/vocoder model/vocoder@task.vocoder=tiny run_dir=runs/mine      change a part
      audioldm train -m tiny/vae task.lr=1e-3,3e-4         two runs, in two folders below runs/tiny/vae
      audioldm train embedded/ldm trainer=gpu --dry-run    only show what would be run, how large it is, what is missing
      audioldm train personal/lora data.folder=my_sounds/ data.prompt="my sound"      an adapter from a few sounds
      audioldm train tiny/vae debug=one_step               or overfit (one batch), profile (where the time goes)
      audioldm train embedded/vae batch_size=auto          as many clips as the memory holds

    Curves and previews: tensorboard --logdir runs
    """

    recipe: str = argument(..., "Name of a recipe, such as tiny/vae.")
    overrides: list[str] = argument([], "Hydra overrides: group=choice or key=value.")
    multirun: bool = option(False, "Train each of key=A,B in a run folder of its own.", "-m")
    dry_run: bool = option(False, "Print the composed configuration, sizes and gaps, and stop.")
    cfg: str | None = option(None, "Print the composed configuration, and stop.", "job")
    fresh: bool = option(False, "Drop the run's checkpoint and start again.")

    def run(self) -> None:
        try:
            from audioldm import recipes
            from audioldm.cli import training
        except ModuleNotFoundError as error:
            raise AudioLDMError(
                f"Training needs {error.name}.", 'Run: pip install "audioldm[train]"'
            ) from None
        with training.stoppable(self.recipe):
            sweep = recipes.sweep(self.recipe, self.overrides) if self.multirun else [self.overrides]
            configs = [recipes.load(self.recipe, words) for words in sweep]
            if self.dry_run or self.cfg:
                for cfg in configs:
                    training.print_plan(cfg, sizes=self.dry_run)
            elif self.multirun:
                training.train_each(configs, sweep, fresh=self.fresh)
            else:
                training.train(configs[0], self.overrides, fresh=self.fresh)


LEADING = "# @package"


class Recipes(Command):
    """List the training recipes, or show one.

    \b
    Examples:
      audioldm recipes
      audioldm recipes tiny/ldm
      audioldm train tiny/ldm --cfg job      the same with every default in place
    """

    name: str | None = argument(None, "Recipe to show, for example tiny/ldm.")

    def run(self) -> None:
        folder, name = shipped("recipes"), self.name
        paths = sorted(folder.rglob("*.yaml"))
        known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
        if name is None:
            width = max(map(len, known), default=0)
            for recipe, path in known.items():
                print(f"{recipe:<{width}}  {summary(path)}")
            return
        if name not in known:
            raise AudioLDMError(f"recipe={name!r} is unknown.", f"Known: {', '.join(known)}.")
        print(known[name].read_text(encoding="utf-8"), end="")


def summary(path: Path) -> str:
    """The first comment line after the ``@package`` line."""
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return next((line.lstrip("# ").strip() for line in comments if not line.startswith(LEADING)), "")


LEFT = ("checkpoints", "ema", "tensorboard", "csv", "previews", "latents", "model", ".*")
"""of a run, what the folder of an average does not hold"""


class Ema(Force, Command):
    """Combine stored averages to one of another length (EDM2's post-hoc EMA).

    \b
    Example:
      audioldm ema runs/audiocaps/ldm_s --width 0.08 -o runs/audiocaps/ldm_s_008
    """

    folder: Path = argument(..., "Run folder of a U-Net trained with callbacks.power_ema.every=N.")
    out: Path = option(..., "Run-like folder to write; `audioldm export --ldm` takes it.", "-o", "DIR")
    width: float = option(
        0.1, "Width of the average relative to the training's length.", Between(0, 0.288, above=True)
    )
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
        with waiting("combining"):
            state = synthesise(run / "ema", width=self.width, at=self.at)
        unet: Any = load_component(run / "model" / "unet")
        unet.load_state_dict(state, strict=True)
        with staged(out, folder=True, replace=True) as stage:
            shutil.copytree(run, stage, ignore=shutil.ignore_patterns(*LEFT), dirs_exist_ok=True)
            save_component(unet, stage / "model" / "unet")
        show_text(weight_file(out / "model" / "unet"))


class Report(Command):
    """Write a self-contained HTML page: curves, previews over time, settings.

    \b
    Examples:
      audioldm report runs/tiny/vae
      audioldm report runs/mine --against runs/tiny/vae -o out/report.html
    """

    folder: Path = argument(..., "Folder of a run, such as runs/tiny/vae.", "RUN")
    against: Path | None = option(None, "Another run: its curves dashed, settings that differ.", "RUN")
    out: Path | None = option(None, "The page.  [default: RUN/report.html]", "-o", "FILE")

    def run(self) -> None:
        for folder in (self.folder, self.against):
            if folder is not None and not folder.is_dir():
                raise AudioLDMError(f"There is no run {folder}.", "Name a folder below runs/.")
        from audioldm.evaluation.run_report import run_page
        from audioldm.paths import write_text

        with waiting("drawing"):
            page = run_page(self.folder, against=self.against)
        show_text(write_text(self.out or self.folder / "report.html", page))
