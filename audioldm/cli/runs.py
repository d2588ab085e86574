"""Commands about trainings: the recipes, a run, the average of its weights, and a page about it."""

import errno
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import audioldm
from audioldm.cli.checks import check_free
from audioldm.cli.console import progress, say, waiting
from audioldm.cli.options import Between, Command, Force, argument, option, out_option
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from audioldm.recipes import Experiment


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
            from audioldm.training.signals import Stopped, handled
        except ModuleNotFoundError as error:
            raise AudioLDMError(
                f"Training needs {error.name}.", 'Run: pip install "audioldm[train]"'
            ) from None
        recipe, overrides, multirun = self.recipe, self.overrides, self.multirun
        runs = recipes.sweep(recipe, overrides) if multirun else [overrides]
        failed: list[str] = []
        try:
            with handled():
                configs = [recipes.load(recipe, words) for words in runs]
                for settings, words in zip(configs, runs, strict=True):
                    if self.dry_run or self.cfg:
                        print_plan(settings, plan=self.dry_run)
                    else:
                        train(settings, words, fresh=self.fresh, failed=failed if multirun else None)
        except Stopped as error:
            state = (
                f"state of batch {error.batch} is saved" if error.batch else "run had no state to save yet"
            )
            message = f"{recipe} was stopped by {error.name}; its {state}."
            raise AudioLDMError(message, "Type the same command to resume.", code=error.code) from None
        if failed:
            raise AudioLDMError(f"{len(failed)} of {len(runs)} runs failed.", "The others are done.", code=1)


def train(cfg: "DictConfig", overrides: list[str], *, fresh: bool, failed: list[str] | None) -> None:
    """One training; with ``failed`` a mistake is printed and noted there, so that the other runs of a sweep go on."""
    from audioldm import recipes
    from audioldm.training.callbacks import speed_of

    try:
        recipes.resolve_batch_size(cfg)
        experiment = recipes.build(cfg, overrides, fresh=fresh or bool(cfg.debug), report=note)
        fit(cfg, experiment)
        if cfg.debug:
            report_debug(Path(cfg.run_dir), cfg.debug)
        if speed := speed_of(Path(cfg.run_dir) / "metrics.jsonl"):
            note(f"{experiment.module.batch_count} batches: {speed}")
        if hint := getattr(experiment.module, "hint", None):
            note(f"hear it: {hint(Path(cfg.run_dir) / 'model')}")
        print(f"{cfg.run_dir}/model")
    except AudioLDMError as error:
        if failed is None:
            raise
        say(f"{cfg.run_dir}: {error}")
        failed.append(cfg.run_dir)


def note(text: str) -> None:
    """A line beside the result."""
    print(text, file=sys.stderr)


def print_plan(cfg: "DictConfig", *, plan: bool) -> None:
    """The configuration; with ``plan`` also sizes, and what is missing, on stderr."""
    from omegaconf import OmegaConf

    from audioldm import recipes

    print(OmegaConf.to_yaml(cfg))
    if not plan:
        return
    for part, count in recipes.parameters(cfg).items():
        note(f"{part}: {count / 1e6:.3f} M parameters")
    for path in recipes.missing(cfg):
        note(f"missing: {path} (audioldm recipes {cfg.recipe} says how to make it)")
    state = Path(cfg.run_dir) / "checkpoints" / "last.ckpt"
    note(f"would {'resume' if state.exists() else 'begin'} {cfg.run_dir}: {cfg.batches} batches")


def fit(cfg: "DictConfig", experiment: "Experiment") -> None:
    """Train; a full memory is answered with the batch size that fits, a full disk with what to do."""
    from audioldm import recipes
    from audioldm.training.memory import out_of_memory, release

    try:
        experiment.fit()
        if not experiment.module.batch_count:
            raise AudioLDMError(
                "Not one batch was trained; nothing was exported.", "Let `batches` alone say where it ends."
            )
        return
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise AudioLDMError(
            f"The disk takes no more ({error}).",
            "Free some space and type the same command to resume.",
            code=1,
        ) from None
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # outside the handler: its traceback would hold the batch in memory
    experiment.module.trainer = None
    del experiment
    release()
    size = recipes.fitting(cfg, limit=max(1, cfg.batch_size - 1))
    raise AudioLDMError(
        f"Out of memory at batch_size={cfg.batch_size}.",
        f"batch_size={size} fits; with accumulate={-(-cfg.batch_size // size)} a step is as large as before. The last "
        "good state is kept, but other settings need another run_dir or --fresh.",
        code=1,
    )


def report_debug(run_dir: Path, rung: str) -> None:
    """What a rung of the debug ladder found."""
    from audioldm.training.callbacks import read_metrics

    if rung == "profile":
        print((run_dir / "fit-profile.txt").read_text(encoding="utf-8"))
    if rung != "overfit":
        return
    rows = [
        row for row in read_metrics(run_dir / "metrics.jsonl") if any(k.startswith("train/") for k in row)
    ]
    name = next(k for k in rows[0] if k.startswith("train/") and "norm" not in k)
    few = max(1, len(rows) // 10)
    first, last = (sum(row[name] for row in part) / few for part in (rows[:few], rows[-few:]))
    note(f"{name} on one batch: {first:.4g} at first, {last:.4g} at last ({len(rows)} batches)")
    if not last < 0.95 * first:  # a twentieth: the noise of the draws moves it by less
        raise AudioLDMError(
            f"{name} did not fall on a single batch.",
            "The part does not learn: try another task.lr first.",
            code=1,
        )


LEADING = "# @package"


class Recipes(Command):
    """List the training recipes, or show one.

    \b
    Examples:
      audioldm recipes
      audioldm recipes tiny/ldm
      audioldm recipes tiny/ldm --full
    """

    name: str | None = argument(None, "Recipe to show, for example tiny/ldm.")
    full: bool = option(False, "Print it composed, with every default in place.")

    def run(self) -> None:
        known, name = find_recipes(recipes_dir()), self.name
        if name is None:
            width = max(map(len, known), default=0)
            for recipe, path in known.items():
                print(f"{recipe:<{width}}  {summary(path)}")
            return
        if name not in known:
            raise AudioLDMError(f"recipe={name!r} is unknown.", f"Known: {', '.join(known)}.")
        print(composed(name) if self.full else known[name].read_text(encoding="utf-8"), end="")


def recipes_dir() -> Path:
    """The checkout's ``recipes/``, else the copy inside the installed package; needs no training extra."""
    package = Path(audioldm.__file__).parent
    checkout = (package.parent / "conf" / "train.yaml").is_file()
    return package.parent / "recipes" if checkout else package / "_recipes"


def find_recipes(folder: Path) -> dict[str, Path]:
    """Name (path without suffix) to file, sorted."""
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))
    }


def summary(path: Path) -> str:
    """The first comment line after the ``@package`` line."""
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return next((line.lstrip("# ").strip() for line in comments if not line.startswith(LEADING)), "")


def composed(name: str) -> str:
    """The whole configuration of ``name`` as YAML."""
    try:
        from omegaconf import OmegaConf

        from audioldm.recipes import load
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"--full needs {error.name}.", 'Run: pip install "audioldm[train]".') from error
    return OmegaConf.to_yaml(load(name))


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
    width: float = option(
        0.1, "Width of the average relative to the training's length.", Between(0, 0.288, above=True)
    )
    at: int | None = option(None, "As if training had ended at this step; else the last.", Between(1))

    def run(self) -> None:
        from audioldm.nets.folder import load_component, save_component, weight_file
        from audioldm.paths import staged
        from audioldm.training.ema import stored_averages, synthesise

        run, out = self.folder, self.out
        here, there = run.resolve(), out.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise AudioLDMError(f"{out} and {run} hold one another.", "Name another folder for the average.")
        check_free(out, force=self.force)
        if out.exists() and not (out / "model").is_dir():
            raise AudioLDMError(f"{out} is no run.", "--force replaces only a run's folder; name another.")
        with progress(len(stored_averages(run / "ema", at=self.at)), "averages") as step:
            state = synthesise(run / "ema", width=self.width, at=self.at, on_average=step)
        unet: Any = load_component(run / "model" / "unet")
        unet.load_state_dict(state, strict=True)
        with staged(out, folder=True, replace=True) as stage:
            shutil.copytree(run, stage, ignore=shutil.ignore_patterns(*LEFT), dirs_exist_ok=True)
            save_component(unet, stage / "model" / "unet")
        print(weight_file(out / "model" / "unet"))


class Report(Command):
    """Write a self-contained HTML page: curves, previews over time, settings.

    \b
    Examples:
      audioldm report runs/tiny/vae
      audioldm report runs/mine --against runs/tiny/vae -o out/report.html
    """

    folder: Path = argument(..., "Folder of a run, such as runs/tiny/vae.", "RUN")
    against: Path | None = option(None, "Another run: its curves dashed, settings that differ.", "RUN")
    out: Path | None = out_option(None, "FILE", "The page.  [default: RUN/report.html]")

    def run(self) -> None:
        for folder in (self.folder, self.against):
            if folder is not None and not folder.is_dir():
                raise AudioLDMError(f"There is no run {folder}.", "Name a folder below runs/.")
        from audioldm.evaluation.run_report import run_page
        from audioldm.paths import write_text

        with waiting("drawing"):
            page = run_page(self.folder, against=self.against)
        print(write_text(self.out or self.folder / "report.html", page))
