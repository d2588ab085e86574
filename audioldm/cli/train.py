"""``audioldm train``: run a recipe; the same command again resumes."""

import errno
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from audioldm.cli.options import Command, argument, option
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

    try:
        recipes.resolve_batch_size(cfg)
        report = partial(typer.echo, err=True)
        experiment = recipes.build(cfg, overrides, fresh=fresh or bool(cfg.debug), report=report)
        fit(cfg, experiment)
        if cfg.debug:
            report_debug(Path(cfg.run_dir), cfg.debug)
        if hint := getattr(experiment.module, "hint", None):
            typer.echo(f"hear it: {hint(Path(cfg.run_dir) / 'model')}", err=True)
        typer.echo(f"{cfg.run_dir}/model")
    except AudioLDMError as error:
        if failed is None:
            raise
        typer.echo(f"audioldm: {cfg.run_dir}: {error}", err=True)
        failed.append(cfg.run_dir)


def print_plan(cfg: "DictConfig", *, plan: bool) -> None:
    """The configuration; with ``plan`` also sizes, and what is missing, on stderr."""
    from omegaconf import OmegaConf

    from audioldm import recipes

    typer.echo(OmegaConf.to_yaml(cfg))
    if not plan:
        return
    for part, count in recipes.parameters(cfg).items():
        typer.echo(f"{part}: {count / 1e6:.3f} M parameters", err=True)
    for path in recipes.missing(cfg):
        typer.echo(f"missing: {path} (audioldm recipes {cfg.recipe} says how to make it)", err=True)
    state = Path(cfg.run_dir) / "checkpoints" / "last.ckpt"
    typer.echo(
        f"would {'resume' if state.exists() else 'begin'} {cfg.run_dir}: {cfg.batches} batches", err=True
    )


def fit(cfg: "DictConfig", experiment: "Experiment") -> None:
    """Train; a full memory is answered with the batch size that fits, a full disk with what to do."""
    from audioldm import recipes
    from audioldm.training.memory import out_of_memory, release

    try:
        experiment.fit()
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
        typer.echo((run_dir / "fit-profile.txt").read_text())
    if rung != "overfit":
        return
    rows = [
        row for row in read_metrics(run_dir / "metrics.jsonl") if any(k.startswith("train/") for k in row)
    ]
    name = next(k for k in rows[0] if k.startswith("train/") and "norm" not in k)
    few = max(1, len(rows) // 10)
    first, last = (sum(row[name] for row in part) / few for part in (rows[:few], rows[-few:]))
    typer.echo(
        f"{name} on one batch: {first:.4g} at first, {last:.4g} at last ({len(rows)} batches)", err=True
    )
    if not last < 0.95 * first:  # a twentieth: the noise of the draws moves it by less
        raise AudioLDMError(
            f"{name} did not fall on a single batch.",
            "The part does not learn: try another task.lr first.",
            code=1,
        )
