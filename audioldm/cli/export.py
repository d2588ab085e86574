"""``audioldm export``: a model of any form, or the parts of runs, as one folder or file that others open too."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from audioldm.cli.console import say
from audioldm.cli.options import Between, Setting, grouped
from audioldm.cli.options.model import PublishedOptions, adapt, load
from audioldm.cli.options.sampling import Sampling
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.components import Components

PUBLISHED = PublishedOptions()


def part(help: str) -> Any:
    """An option that names a part of a model."""
    return Annotated[str | None, typer.Option(metavar="REF", help=help, show_default=False)]


@dataclass(frozen=True)
class Parts:
    """Parts of a model, each a run, a folder, a file or a hub id."""

    ldm: part("U-Net: a run or a checkpoint of one.") = None  # type: ignore[valid-type]
    vae: part("VAE.") = None  # type: ignore[valid-type]
    vocoder: part("Vocoder.") = None  # type: ignore[valid-type]
    clap: part("CLAP, such as a run, laion/clap-htsat-unfused or LAION's .pt.") = None  # type: ignore[valid-type]
    t5: part("T5 of a U-Net that attends to tokens.  [default: the one of its latents]") = None  # type: ignore[valid-type]


@dataclass(frozen=True)
class Defaults(Sampling):
    """How the written model samples where nothing else is asked; None is what it does now."""

    guidance: Annotated[float | None, Setting("Default guidance scale."), Between(0)] = None


@dataclass(frozen=True)
class Writing:
    """What is written."""

    name: Annotated[str | None, typer.Option(help="The model's name.", show_default=False)] = None
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        typer.Option(help="Number type of the weights in a folder."),
    ] = "float32"
    merge: Annotated[
        list[str],
        typer.Option(
            metavar="FILE[:WEIGHT]",
            help="Write this adapter into the weights.  Repeatable.",
            show_default=False,
        ),
    ] = field(default_factory=list)
    force: Annotated[bool, typer.Option("--force", help="Replace an existing model.")] = False


@grouped
def export(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder, or original checkpoint (.ckpt), to write.")
    ],
    ref: Annotated[
        str | None,
        typer.Argument(help="Model to write anew: folder, hub id or original .ckpt.", show_default=False),
    ] = None,
    parts: Parts = Parts(),
    defaults: Defaults = Defaults(),
    published: PublishedOptions = PUBLISHED,
    writing: Writing = Writing(),
) -> None:
    """Write any model, or one that is joined from parts, as a folder or as a checkpoint of the original code.

    The folder is diffusers' layout with audioldm.json beside: stock AudioLDMPipeline opens it, with the right
    attention heads.  A published file that cannot generate alone (VAE, HiFi-GAN, CLAP) gives a folder a net.

    \b
    Examples:
      audioldm export --ldm runs/tiny/ldm --vae runs/tiny/vae --vocoder runs/tiny/vocoder --clap runs/tiny/clap -o out/m
      audioldm export audioldm-s-full.ckpt -o out/s-full
      audioldm export cvssp/audioldm-m-full --dtype float16 -o out/m-full-half
      audioldm export embedded --merge mine.safetensors:0.8 -o out/mine
      audioldm export out/s-full -o out/s-full.ckpt
    """
    settings = check_settings(defaults)
    if (out.is_file() or (out / "model_index.json").exists()) and not writing.force:
        raise AudioLDMError(f"{out} holds a model already.", "Pass --force to replace it.")
    named = {name: value for name, value in vars(parts).items() if value is not None}
    if ref is not None and not named and not writing.merge and write_nets(ref, out):
        return
    if ref is not None:
        model: Components = replaced(load(ref, device="cpu", dtype="float32", **published.choices()), named)
    elif len(named.keys() - {"t5"}) == 4:
        model = joined(named, published)
    else:
        raise AudioLDMError(
            "Not all parts were named.", "Name a REF, or all of --ldm, --vae, --vocoder and --clap."
        )
    model = replace(model, name=writing.name or model.name, defaults=model.defaults.merged(**settings))
    if writing.merge:
        adapt(model, writing.merge)  # type: ignore[arg-type]
        model.about["merged"] = model.adapted.settings() if model.adapted else []
    save(model, out, writing.dtype)
    print(out)


def check_settings(defaults: Defaults) -> dict[str, Any]:
    """The defaults that were set, once their names are known.   Raises AudioLDMError."""
    from audioldm.diffusion.grids import GRIDS
    from audioldm.diffusion.samplers import SAMPLERS
    from audioldm.diffusion.table import choose

    settings = defaults.settings()
    for what, table in (("sampler", SAMPLERS), ("grid", GRIDS)):
        if what in settings:
            choose(table, settings[what], what)
    return settings


def save(model: "Components", out: Path, dtype: str) -> None:
    """Write a checkpoint where ``out`` ends in .ckpt, else a folder."""
    import torch

    from audioldm.convert.model import save_model
    from audioldm.convert.original import save_checkpoint

    if out.suffix == ".ckpt":
        save_checkpoint(model, out)
    else:
        save_model(model, out, dtype=getattr(torch, dtype))


def write_nets(ref: str, out: Path) -> bool:
    """Write component folders of a file that cannot generate alone, and print them; False for everything else."""
    from audioldm.convert.checkpoint import TANGO_MAIN, read_checkpoint
    from audioldm.convert.model import obstacle
    from audioldm.nets.folder import SUFFIXES

    file = Path(ref)
    if not file.is_file() or file.suffix not in SUFFIXES or file.name == TANGO_MAIN:
        return False
    checkpoint = read_checkpoint(file)
    if obstacle(checkpoint) is None:
        return False
    for key in checkpoint.unread:
        say(f"left out: the conditioner that begins with {key!r}.")
    for folder in checkpoint.save(out):
        print(folder)
    return True


def replaced(model: "Components", named: dict[str, str]) -> "Components":
    """``model`` with other parts instead of its own, if they fit."""
    from audioldm.convert.model import spec_of
    from audioldm.convert.reference import open_part
    from audioldm.nets.vae import stride_of

    if named.keys() & {"ldm", "t5"}:
        raise AudioLDMError(
            "Both a REF and its U-Net or T5 were named.", "With a REF: --vae, --vocoder or --clap."
        )
    if not named:
        return model
    parts = {name: open_part(ref, name) for name, ref in named.items()}  # type: ignore[arg-type]
    new = replace(model, **parts)
    spec = spec_of(new.vocoder, stride_of(new.vae), new.vae.config.latent_channels)
    if spec != model.spec or new.clap.dim != model.clap.dim:  # type: ignore[union-attr]
        raise AudioLDMError(
            f"{', '.join(named.values())} does not fit {model.name}: its mel, latent or CLAP vector has another shape.",
            "Name parts of a model of the same shape.",
        )
    return new


def joined(named: dict[str, str], published: PublishedOptions) -> "Components":
    """The model of a run's U-Net and three other parts."""
    from audioldm.convert.reference import open_part
    from audioldm.convert.run import join_run, run_of, t5_of
    from audioldm.pipeline.audioldm import AudioLDM

    ldm = Path(named["ldm"])
    run = run_of(ldm) or ldm if ldm.is_file() else ldm
    t5 = t5_of(run, named.get("t5"))
    unet = open_part(ldm, "unet")
    vae, vocoder, clap = (
        open_part(named[name], name, **published.choices())
        for name in ("vae", "vocoder", "clap")  # type: ignore[arg-type]
    )
    encoder = None if t5 is None else open_part(t5, "text_encoder")
    return replace(AudioLDM.of(join_run(run, unet, vae, vocoder, clap, encoder)), name="mine")
