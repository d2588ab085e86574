"""``audioldm export``: trained runs, or a model of any form, to one model folder that others open too."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.cli.options.model import adapt
from audioldm.cli.parts import NETS, part_folder, run_settings, t5_of, write_published
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.diffusion.schedule import NoiseSchedule
    from audioldm.pipeline.audioldm import AudioLDM

DTYPES = ("float32", "float16", "bfloat16")
TRAINED = {
    "steps": 25,
    "sampler": "dpmpp_2m",
    "grid": "trailing",
    "guidance": 3.0,
    "refine_phase": 0,
    "retry_silent": 0,
}
"""Defaults of a model that is joined from runs."""


def export(
    out: Annotated[Path, typer.Option("-o", "--out", help="Model folder to write.")],
    ref: Annotated[
        str | None,
        typer.Argument(
            help="Model to write anew: folder, diffusers folder, hub id, original .ckpt.", show_default=False
        ),
    ] = None,
    ldm: Annotated[Path | None, typer.Option(help="Run folder of the U-Net, or its checkpoint.")] = None,
    vae: Annotated[Path | None, typer.Option(help="Run folder of the VAE, or a checkpoint.")] = None,
    vocoder: Annotated[Path | None, typer.Option(help="Run folder of the vocoder, or a checkpoint.")] = None,
    clap: Annotated[
        Path | None, typer.Option(help="Run folder of the small CLAP, or its checkpoint.")
    ] = None,
    t5: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|NAME",
            help="T5 of a U-Net that attends to tokens.  [default: the one its latents were made with]",
        ),
    ] = "",
    name: Annotated[str | None, typer.Option(help="The model's name.  [default: REF's, or mine]")] = None,
    dtype: Annotated[str, typer.Option(help="Weights on disk: float32, float16 or bfloat16.")] = "float32",
    heads: Annotated[
        str, typer.Option(metavar="original|as-published", help="Attention heads of a published REF.")
    ] = "original",
    weights: Annotated[str, typer.Option(metavar="ema|raw", help="Which weights of a .ckpt.")] = "ema",
    tokenizer: Annotated[Path | None, typer.Option(help="RoBERTa's tokenizer for a .ckpt.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Default length.  [default: REF's, or the window of the training]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Default number of steps.  [default: REF's, or 25]")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Default sampler.  [default: REF's, or dpmpp_2m]")
    ] = None,
    grid: Annotated[str | None, typer.Option(help="Default grid.  [default: REF's, or trailing]")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Default guidance scale.  [default: REF's, or 3]")
    ] = None,
    refine_phase: Annotated[
        int | None,
        typer.Option(help="Default rounds of phase refinement after the vocoder.  [default: REF's, or 0]"),
    ] = None,
    retry_silent: Annotated[
        int | None,
        typer.Option(help="How often a silent clip is drawn again by default.  [default: REF's, or 0]"),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[:WEIGHT]", help="Write this adapter into the weights, for good.  Repeatable."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing model folder.")] = False,
) -> None:
    """Write a model folder: from four trained parts, or from any model that `audioldm generate -m` opens.

    The folder is diffusers' layout with audioldm.json beside: stock AudioLDMPipeline opens it, with the right
    attention heads.  A published file that cannot generate alone (VAE, HiFi-GAN, AudioLDM 2) gives a folder a net.

    \b
    Examples:
      audioldm export --ldm runs/tiny/ldm --vae runs/tiny/vae --vocoder runs/tiny/vocoder --clap runs/tiny/clap -o out/m
      audioldm export audioldm-s-full.ckpt -o out/s-full
      audioldm export cvssp/audioldm-m-full --dtype float16 -o out/m-full-half
      audioldm export embedded --merge mine.safetensors:0.8 -o out/mine
    """
    import torch

    defaults = {
        "seconds": seconds, "steps": steps, "sampler": sampler, "grid": grid, "guidance": guidance,
        "refine_phase": refine_phase, "retry_silent": retry_silent,
    }  # fmt: skip
    given = {key: value for key, value in defaults.items() if value is not None}
    check_choices(dtype=dtype, **given)
    if (out / "model_index.json").exists() and not force:
        raise AudioLDMError(f"{out} holds a model already.", "Pass --force to replace it.")
    places = {"ldm": ldm, "vae": vae, "vocoder": vocoder, "clap": clap}
    parts = {part: place for part, place in places.items() if place is not None}
    if ref is not None and not parts:
        if not merge and (written := write_parts(ref, out)) is not None:
            typer.echo("\n".join(map(str, written)))
            return
        pipe = reopen(ref, name, given, heads=heads, weights=weights, tokenizer=tokenizer)
    elif ref is None and len(parts) == len(NETS):
        pipe = join(parts, name or "mine", given, t5=t5)
    else:
        raise AudioLDMError(
            f"{'Both a REF and parts' if ref else 'Not all parts'} were given.",
            "Give one REF, or all of --ldm, --vae, --vocoder and --clap.",
        )
    if merge:
        adapt(pipe, merge)
        pipe.about["merged"] = pipe.adapted.settings() if pipe.adapted else []
    pipe.save_pretrained(out, dtype=getattr(torch, dtype))
    typer.echo(str(out))


def check_choices(*, dtype: str, **given: Any) -> None:
    """Refuse unknown names before anything is loaded."""
    from audioldm.diffusion.grids import GRIDS
    from audioldm.diffusion.samplers import SAMPLERS
    from audioldm.diffusion.table import choose

    if dtype not in DTYPES:
        raise AudioLDMError(f"dtype={dtype!r} is unknown.", f"Known: {', '.join(DTYPES)}.")
    for what, table in (("sampler", SAMPLERS), ("grid", GRIDS)):
        if what in given:
            choose(table, given[what], what)


def write_parts(ref: str, out: Path) -> list[Path] | None:
    """Component folders of a published file that cannot generate alone; None for everything else."""
    from audioldm.convert.checkpoint import read_checkpoint
    from audioldm.convert.files import SUFFIXES
    from audioldm.convert.published import obstacle
    from audioldm.convert.tango import MAIN

    file = Path(ref)
    if not file.is_file() or file.suffix not in SUFFIXES or file.name == MAIN:
        return None
    found = read_checkpoint(file)
    if obstacle(found, file) is None:
        return None
    for key in found.unread:
        typer.echo(f"audioldm: left out: the conditioner that begins with {key!r}.", err=True)
    return write_published(found, file, out, {*NETS.values(), "text_encoder_2", "language_model"})


def reopen(ref: str, name: str | None, given: dict[str, Any], **choices: Any) -> "AudioLDM":
    """The model of ``ref`` with the name and the defaults that were given."""
    from audioldm.cli.options.model import load

    pipe = load(ref, device="cpu", dtype="float32", **choices)
    return replace(pipe, name=name or pipe.name, defaults=pipe.defaults.merged(**given))


def join(parts: dict[str, Path], name: str, given: dict[str, Any], *, t5: str = "") -> "AudioLDM":
    """The model of four trained parts, once it is sure that the U-Net learned from this VAE, this CLAP and this T5."""
    from audioldm.components import Sampling
    from audioldm.datasets.latents import read_index
    from audioldm.nets.clap import SmallClap
    from audioldm.nets.folder import load_component, sha256, weight_file
    from audioldm.nets.unet import kind_of
    from audioldm.nets.vae import encoder_digest
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.spec import SPECS

    ldm = parts["ldm"].parent.parent if parts["ldm"].is_file() else parts["ldm"]
    settings = run_settings(ldm)
    index = read_index(settings["data"]["folder"])
    spec = SPECS[index.get("spec", "16k_64")]
    with ExitStack() as stack:
        folders = {part: part_folder(place, part, stack) for part, place in parts.items()}
        autoencoder = load_component(folders["vae"] / "vae")
        for what, part, found in (
            ("encoder", "vae", encoder_digest(autoencoder)),  # type: ignore[arg-type]
            ("clap", "clap", sha256(weight_file(folders["clap"] / "audio_encoder"))),
        ):
            if found != index[what]:
                raise AudioLDMError(
                    f"The U-Net's latents were not made with the {what} of {parts[part]}.",
                    "Encode and train again, or name the right run.",
                )
        autoencoder.register_to_config(scaling_factor=index["scaling_factor"])  # type: ignore[operator]
        unet = load_component(folders["ldm"] / "unet")
        return AudioLDM(
            unet,  # type: ignore[arg-type]
            autoencoder,  # type: ignore[arg-type]
            load_component(folders["vocoder"] / "vocoder"),  # type: ignore[arg-type]
            SmallClap.load(folders["clap"]),
            replace(spec, stride=index["stride"], latent_channels=index["latent_channels"]),
            token_encoder=None if kind_of(unet) == "film" else t5_of(index, t5),  # type: ignore[arg-type]
            schedule=schedule_of(settings),
            prediction=settings["task"]["prediction"],
            name=name,
            defaults=Sampling(**{**TRAINED, "seconds": index["seconds"], **given}),
            about={"latents": {k: index[k] for k in ("windows", "seconds", "split", "scaling_factor")}},
        )


def schedule_of(settings: dict[str, Any]) -> "NoiseSchedule":
    """The schedule that the configuration names."""
    from audioldm.diffusion import schedule

    call = {k: v for k, v in settings["task"]["schedule"].items() if k != "_target_"}
    return getattr(schedule, settings["task"]["schedule"]["_target_"].rsplit(".", 1)[1])(**call)
