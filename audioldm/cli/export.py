"""``audioldm export``: trained runs to one model folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.diffusion.schedule import NoiseSchedule

DTYPES = ("float32", "float16", "bfloat16")


def export(
    ldm: Annotated[Path, typer.Option(help="Run folder of the U-Net.")],
    vae: Annotated[Path, typer.Option(help="Run folder of the autoencoder.")],
    vocoder: Annotated[Path, typer.Option(help="Run folder of the vocoder.")],
    clap: Annotated[Path, typer.Option(help="Run folder of the small CLAP.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Model folder to write.")],
    name: Annotated[str, typer.Option(help="The model's name.")] = "mine",
    dtype: Annotated[str, typer.Option(help="Weights on disk: float32, float16 or bfloat16.")] = "float32",
    seconds: Annotated[
        float | None, typer.Option(help="Default length; else the window it was trained on.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Default number of steps.")] = 25,
    sampler: Annotated[str, typer.Option(help="Default sampler.")] = "dpmpp_2m",
    grid: Annotated[str, typer.Option(help="Default grid.")] = "trailing",
    guidance: Annotated[float, typer.Option(help="Default guidance scale.")] = 3.0,
    polish: Annotated[int, typer.Option(help="Default rounds of Griffin-Lim after the vocoder.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing model folder.")] = False,
) -> None:
    """Join a trained autoencoder, vocoder, CLAP and U-Net to a model that `audioldm generate -m` opens.

    \b
    Example:
      audioldm export --ldm runs/tiny/ldm --vae runs/tiny/vae --vocoder runs/tiny/vocoder --clap runs/tiny/clap -o out/m
    """
    import torch

    from audioldm.datasets.latents import read_index
    from audioldm.diffusion.grids import GRIDS
    from audioldm.diffusion.samplers import SAMPLERS
    from audioldm.nets.clap import SmallClap
    from audioldm.nets.folder import load_component, sha256, weight_file
    from audioldm.nets.vae import encoder_digest
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.spec import AudioSpec

    for choice, value, known in (
        ("dtype", dtype, DTYPES), ("sampler", sampler, SAMPLERS), ("grid", grid, GRIDS)
    ):  # fmt: skip
        if value not in known:
            raise AudioLDMError(f"{choice}={value!r} is unknown.", f"Known: {', '.join(known)}.")
    if (out / "model_index.json").exists() and not force:
        raise AudioLDMError(f"{out} holds a model already.", "Pass --force to replace it.")
    folders = {
        n: finished(run) for n, run in (("ldm", ldm), ("vae", vae), ("vocoder", vocoder), ("clap", clap))
    }
    settings = run_settings(ldm)
    index = read_index(settings["data"]["folder"])
    autoencoder = load_component(folders["vae"] / "vae")
    for what, found in (
        ("encoder", encoder_digest(autoencoder)),  # type: ignore[arg-type]
        ("clap", sha256(weight_file(folders["clap"] / "audio_encoder"))),
    ):
        if found != index[what]:
            raise AudioLDMError(
                f"The U-Net's latents were not made with the {what} of {vae if what == 'encoder' else clap}.",
                "Encode and train again, or name the right run.",
            )
    autoencoder.register_to_config(scaling_factor=index["scaling_factor"])  # type: ignore[operator]
    pipe = AudioLDM(
        load_component(folders["ldm"] / "unet"),  # type: ignore[arg-type]
        autoencoder,  # type: ignore[arg-type]
        load_component(folders["vocoder"] / "vocoder"),  # type: ignore[arg-type]
        SmallClap.load(folders["clap"]),
        AudioSpec(stride=index["stride"], latent_channels=index["latent_channels"]),
        schedule=schedule_of(settings),
        prediction=settings["task"]["prediction"],
        name=name,
        defaults={
            "seconds": seconds or index["seconds"],
            "steps": steps,
            "sampler": sampler,
            "grid": grid,
            "guidance": guidance,
            "polish": polish,
        },
        about={"latents": {k: index[k] for k in ("windows", "seconds", "split", "scaling_factor")}},
    )
    pipe.save_pretrained(out, dtype=getattr(torch, dtype))
    typer.echo(str(out))


def finished(run: Path) -> Path:
    """The exported folder of a run."""
    if not (run / "model").is_dir():
        raise AudioLDMError(
            f"{run} has no model/ folder: the run is missing or not finished.", "Train it to its end."
        )
    return run / "model"


def run_settings(run: Path) -> dict[str, Any]:
    """The resolved configuration that a run was started with."""
    import yaml

    path = run / "config.yaml"
    if not path.is_file():
        raise AudioLDMError(
            f"{path} is missing.", "Name the folder that `audioldm train` printed, without /model."
        )
    return yaml.safe_load(path.read_text())


def schedule_of(settings: dict[str, Any]) -> "NoiseSchedule":
    """The schedule that the configuration names."""
    from audioldm.diffusion import schedule

    call = {k: v for k, v in settings["task"]["schedule"].items() if k != "_target_"}
    return getattr(schedule, settings["task"]["schedule"]["_target_"].rsplit(".", 1)[1])(**call)
