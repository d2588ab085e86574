"""Commands about trainings: the recipes, a run, and the average of its weights."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audioldm.cli.console import note, say, show_text, waiting
from audioldm.cli.options import Between, Command, Force, argument, option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError, without_memory
from audioldm.paths import staged

with later():
    import omegaconf

    from audioldm import recipes
    from audioldm.nets import folder as folders
    from audioldm.training import callbacks, ema, memory, signals


class Train(Command):
    """Train a part of the system by a recipe; the same command again resumes.

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
        failures, runs = 0, recipes.sweep(self.recipe, self.overrides) if self.multirun else [self.overrides]
        configs = [recipes.load(self.recipe, words) for words in runs]
        if self.dry_run or self.cfg:
            for cfg in configs:
                print_plan(cfg, sizes=self.dry_run)
            return
        try:
            for cfg, words in zip(configs, runs, strict=True):
                try:
                    with signals.handled():  # each, as Lightning's that are left behind hold the whole run
                        train(cfg, words, fresh=self.fresh)
                except AudioLDMError as error:
                    if not self.multirun:
                        raise
                    say(f"{cfg.run_dir}: {error}")
                    failures += 1
        except signals.Stopped as error:
            batch = error.batch
            state = f"state of batch {batch} is saved" if batch else "run had no state to save yet"
            what = f"{self.recipe} was stopped by {error.name}; its {state}."
            raise AudioLDMError(what, "Type the same command to resume.", code=error.code) from None
        if failures:
            raise AudioLDMError(f"{failures} of {len(runs)} runs failed.", "The others are done.", code=1)


def train(cfg: omegaconf.DictConfig, overrides: Sequence[str], *, fresh: bool) -> None:
    """One training; a full memory is answered with the batch size that fits, a full disk with what to do."""
    memory.release()  # of a run before this one, recordings too
    if cfg.batch_size == "auto":
        with waiting("trying batch sizes"):
            recipes.resolve_batch_size(cfg)
    with waiting("reading the data and the nets"):
        experiment = recipes.build(cfg, overrides, fresh=fresh or bool(cfg.debug), report=note)
    try:
        experiment.fit()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        hint = "Free some space and type the same command to resume."
        raise AudioLDMError(f"The disk takes no more ({error}).", hint, code=1) from None
    except (RuntimeError, MemoryError) as error:
        if not without_memory(error):
            raise
    else:
        show_results(cfg, experiment.module)
        return
    # outside the handler: its traceback would hold the batch in memory
    experiment.module.trainer = None
    del experiment
    memory.release()
    say(f"batch_size={cfg.batch_size} ran out of memory; looking for one that fits.")
    with waiting("trying batch sizes"):
        size = recipes.fitting(cfg, limit=max(1, cfg.batch_size - 1))
    rest = " speed.graph=false" * cfg.speed.graph + " in another run_dir"  # a recorded step is one batch
    large = f"As large steps: accumulate={-(-cfg.accumulate * cfg.batch_size // size)}{rest}."
    use = f"batch_size={size} fits: the same command with it goes on from the last state, if there is one. {large}"
    raise AudioLDMError(f"Out of memory at batch_size={cfg.batch_size}.", use, code=1)


def show_results(cfg: omegaconf.DictConfig, module: Any) -> None:
    """On stderr how fast it went and how to hear it, the components' folder on stdout."""
    if not module.batch_count:
        what = "Not one batch was trained; nothing was exported."
        raise AudioLDMError(what, "Let `batches` alone say where it ends.")
    folder = Path(cfg.run_dir)
    if cfg.debug == "profile":
        print((folder / "fit-profile.txt").read_text(encoding="utf-8"))
    rows = callbacks.read_metrics(folder / "metrics.jsonl")
    if cfg.debug == "overfit":
        compare_ends(rows)
    if speeds := [row for row in rows if "speed/samples_per_s" in row]:
        rate, wait, peak = (speeds[-1][f"speed/{name}"] for name in ("samples_per_s", "data_wait", "peak_gb"))
        speed = f"{rate:.3g} samples/s, {wait:.0%} of the time waiting for data, peak memory {peak:.3g} GB"
        note(f"{module.batch_count} batches: {speed}")
    if hasattr(module, "hint"):
        note(f"hear it: {module.hint(folder / 'model')}")
    print(f"{cfg.run_dir}/model")


def print_plan(cfg: omegaconf.DictConfig, *, sizes: bool) -> None:
    """The configuration; with ``sizes`` those of its nets, and what is missing, on stderr."""
    print(omegaconf.OmegaConf.to_yaml(cfg))
    if not sizes:
        return
    note(*(f"{part}: {count / 1e6:.3f} M parameters" for part, count in recipes.parameters(cfg).items()))
    if size := recipes.memory(cfg):
        note(f"memory: {size}")
    use = f"(audioldm recipes {cfg.recipe} says how to make it)"
    note(*(f"missing: {path} {use}" for path in recipes.missing(cfg)))
    state = Path(cfg.run_dir) / "checkpoints" / "last.ckpt"
    note(f"would {'resume' if state.exists() else 'begin'} {cfg.run_dir}: {cfg.batches} batches")


def compare_ends(metrics: Sequence[dict[str, float]]) -> None:
    """Of a run over one batch: the loss at first and at last.   Raises AudioLDMError where it did not fall."""
    rows = [row for row in metrics if any(name.startswith("train/") for name in row)]
    loss = next(name for name in rows[0] if name.startswith("train/") and "norm" not in name)
    few = max(1, len(rows) // 10)
    first, last = (sum(row[loss] for row in part) / few for part in (rows[:few], rows[-few:]))
    note(f"{loss} on one batch: {first:.4g} at first, {last:.4g} at last ({len(rows)} batches)")
    if not last < 0.95 * first:  # a twentieth: the noise of the draws moves it by less
        raise AudioLDMError(f"{loss} did not fall on a single batch.", "Try another task.lr first.", code=1)


class Recipes(Command):
    """List the training recipes, or show one.

    Examples:
      audioldm recipes
      audioldm recipes tiny/ldm
      audioldm train tiny/ldm --cfg job      the same with every default in place
    """

    name: str | None = argument(None, "Recipe to show, for example tiny/ldm.")

    def run(self) -> None:
        name, known = self.name, {one: recipes.RECIPES / f"{one}.yaml" for one in recipes.names()}
        if name is None:
            width = max(map(len, known), default=0)
            print(*(f"{recipe:<{width}}  {summary(path)}" for recipe, path in known.items()), sep="\n")
        elif name in known:
            print(known[name].read_text(encoding="utf-8"), end="")
        else:
            raise AudioLDMError(f"recipe={name!r} is unknown.", f"Known: {', '.join(known)}.")


def summary(path: Path) -> str:
    return "".join(re.findall(r"(?m)^#+ *(?!@package| )(.*)", path.read_text(encoding="utf-8"))[:1]).strip()


LEFT = ("checkpoints", "ema", "tensorboard", "csv", "previews", "latents", "model", ".*")
"""of a run, what the folder of an average does not hold"""


class Ema(Force, Command):
    """Combine stored averages to one of another length (EDM2's post-hoc EMA).

    Example:
      audioldm ema runs/audiocaps/ldm_s --width 0.08 -o runs/audiocaps/ldm_s_008
    """

    folder: Path = argument(..., "Run folder of a U-Net trained with callbacks.power_ema.every=N.")
    out: Path = option(..., "Run-like folder to write; `audioldm export --ldm` takes it.", "-o", "DIR")
    width: float = option(0.1, "Of the average, relative to the training.", Between(0, 0.288, above=True))
    at: int | None = option(None, "As if training had ended at this step; else the last.", Between(1))

    def run(self) -> None:
        run, out = self.folder, self.out
        here, there = run.resolve(), out.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise AudioLDMError(f"{out} and {run} hold one another.", "Name another folder for the average.")
        self.check_free(out)
        if out.exists() and not (out / "model").is_dir():
            raise AudioLDMError(f"{out} is no run.", "--force replaces only a run's folder; name another.")
        with waiting("combining"):
            state = ema.synthesise(run / "ema", width=self.width, at=self.at)
        unet: Any = folders.load_component(run / "model" / "unet")
        unet.load_state_dict(state, strict=True)
        with staged(out, folder=True, replace=True) as stage:
            shutil.copytree(run, stage, ignore=shutil.ignore_patterns(*LEFT), dirs_exist_ok=True)
            folders.save_component(unet, stage / "model" / "unet")
        show_text(folders.weight_file(out / "model" / "unet"))
