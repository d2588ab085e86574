"""``audioldm train``: run a recipe; the same command again resumes."""

from typing import Annotated

import typer

EXAMPLES = """
Examples:

  audioldm recipes                                     the recipes there are

  audioldm train tiny/vae                              train; type it again to resume

  audioldm train tiny/vae batches=50 task.lr=3e-4      change numbers

  audioldm train embedded/vocoder vocoder@task.vocoder=tiny run_dir=runs/mine      change a part

  audioldm train embedded/ldm trainer=gpu --dry-run    only show what would be run

Curves and previews: tensorboard --logdir runs
"""


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, such as tiny/vae.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Hydra overrides: part=choice or key=value.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the composed configuration and stop.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Drop the run's checkpoint and start again.")
    ] = False,
) -> None:
    """Train a part of the system by a recipe."""
    from audioldm.errors import AudioLDMError

    try:
        from omegaconf import OmegaConf

        from audioldm import recipes
    except ModuleNotFoundError as error:
        raise AudioLDMError(f"Training needs {error.name}.", 'Run: pip install "audioldm[train]"') from None
    cfg = recipes.load(recipe, overrides or ())
    if dry_run:
        typer.echo(OmegaConf.to_yaml(cfg))
        return
    experiment = recipes.build(cfg)
    checkpoint, complaints = recipes.open_run(cfg, overrides or (), fresh=fresh)
    for complaint in complaints:
        typer.echo(f"audioldm: {complaint}; the state before it is used.", err=True)
    if checkpoint is not None:
        typer.echo(f"resuming {checkpoint}", err=True)
    experiment.trainer.fit(experiment.module, experiment.data, ckpt_path=checkpoint, weights_only=True)
    if experiment.trainer.interrupted:
        raise AudioLDMError(f"{recipe} was interrupted.", "Type the same command to resume.", code=130)
    typer.echo(str(experiment.run_dir / "model"))


train.__doc__ = f"{train.__doc__}\n\n\b\n{EXAMPLES}"
