"""What ``audioldm train`` does with its recipe; apart, because it imports Lightning and Hydra."""

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from audioldm import recipes
from audioldm.cli.console import say, waiting
from audioldm.errors import AudioLDMError
from audioldm.training.callbacks import read_metrics, speed_of
from audioldm.training.memory import out_of_memory, release
from audioldm.training.signals import Stopped, handled


@contextmanager
def stoppable(recipe: str) -> Iterator[None]:
    """Within, a signal that ends the process becomes one line, which says whose state is saved."""
    try:
        with handled():
            yield
    except Stopped as error:
        state = f"state of batch {error.batch} is saved" if error.batch else "run had no state to save yet"
        message = f"{recipe} was stopped by {error.name}; its {state}."
        raise AudioLDMError(message, "Type the same command to resume.", code=error.code) from None


def train(cfg: DictConfig, overrides: Sequence[str], *, fresh: bool) -> None:
    """One training: on stderr how fast it went and how to hear it, its components' folder on stdout."""
    if cfg.batch_size == "auto":
        recipes.resolve_batch_size(cfg)
    with waiting("reading the data and the nets"):
        experiment = recipes.build(cfg, overrides, fresh=fresh or bool(cfg.debug), report=note)
    fit(cfg, experiment)
    folder, module = Path(cfg.run_dir), experiment.module
    if cfg.debug == "profile":
        print((folder / "fit-profile.txt").read_text(encoding="utf-8"))
    if cfg.debug == "overfit":
        compare_ends(read_metrics(folder / "metrics.jsonl"))
    if speed := speed_of(folder / "metrics.jsonl"):
        note(f"{module.batch_count} batches: {speed}")
    if hasattr(module, "hint"):
        note(f"hear it: {module.hint(folder / 'model')}")
    print(f"{cfg.run_dir}/model")


def train_each(configs: Sequence[DictConfig], runs: Sequence[Sequence[str]], *, fresh: bool) -> None:
    """Every run of a sweep; a mistake in one is a line, and the others go on.   Raises AudioLDMError at the end."""
    failures = 0
    for cfg, overrides in zip(configs, runs, strict=True):
        try:
            train(cfg, overrides, fresh=fresh)
        except AudioLDMError as error:
            say(f"{cfg.run_dir}: {error}")
            failures += 1
    if failures:
        raise AudioLDMError(f"{failures} of {len(runs)} runs failed.", "The others are done.", code=1)


def note(text: str) -> None:
    """A line beside the result."""
    print(text, file=sys.stderr)


def print_plan(cfg: DictConfig, *, sizes: bool) -> None:
    """The configuration; with ``sizes`` those of its nets, and what is missing, on stderr."""
    print(OmegaConf.to_yaml(cfg))
    if not sizes:
        return
    for part, count in recipes.parameters(cfg).items():
        note(f"{part}: {count / 1e6:.3f} M parameters")
    for path in recipes.missing(cfg):
        note(f"missing: {path} (audioldm recipes {cfg.recipe} says how to make it)")
    state = Path(cfg.run_dir) / "checkpoints" / "last.ckpt"
    note(f"would {'resume' if state.exists() else 'begin'} {cfg.run_dir}: {cfg.batches} batches")


def fit(cfg: DictConfig, experiment: recipes.Experiment) -> None:
    """Train; a full memory is answered with the batch size that fits, a full disk with what to do."""
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


def compare_ends(metrics: Sequence[dict[str, float]]) -> None:
    """Of a run over one batch: the loss at first and at last.   Raises AudioLDMError where it did not fall."""
    rows = [row for row in metrics if any(name.startswith("train/") for name in row)]
    loss = next(name for name in rows[0] if name.startswith("train/") and "norm" not in name)
    few = max(1, len(rows) // 10)
    first, last = (sum(row[loss] for row in part) / few for part in (rows[:few], rows[-few:]))
    note(f"{loss} on one batch: {first:.4g} at first, {last:.4g} at last ({len(rows)} batches)")
    if not last < 0.95 * first:  # a twentieth: the noise of the draws moves it by less
        raise AudioLDMError(
            f"{loss} did not fall on a single batch.",
            "The part does not learn: try another task.lr first.",
            code=1,
        )
