"""``audioldm export``: a model of any form, or the parts of runs, as one folder or file that others open too."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from audioldm.cli.checks import check_free
from audioldm.cli.console import say, show_text, waiting, warned, would
from audioldm.cli.options import Command, DryRun, Force, Group, argument, option, setting
from audioldm.cli.options.groups import PublishedOptions, Sampling, load
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.components import Components


class Parts(Group):
    ldm: str | None = option(None, "U-Net: a run or a checkpoint of one.", "REF")
    vae: str | None = option(None, "VAE.", "REF")
    vocoder: str | None = option(None, "Vocoder.", "REF")
    clap: str | None = option(None, "CLAP, such as a run, laion/clap-htsat-unfused or LAION's .pt.", "REF")
    t5: str | None = option(None, "T5 of a U-Net that attends to tokens.  [default: its latents']", "REF")


class Defaults(Sampling):
    """How the written model samples where nothing else is asked; None is what it does now."""

    guidance: float | None = setting(None, "Default guidance scale.")


class Export(Force, DryRun, Command):
    """Write any model, or one that is joined from parts, as a folder or as a checkpoint of the original code.

    The folder is diffusers' layout with audioldm.json beside: stock AudioLDMPipeline opens it, with the right
    attention heads.  A published file that cannot generate alone (VAE, HiFi-GAN, CLAP) gives a folder a net.
    --onnx writes four graphs for onnxruntime, checked against torch, and a page that runs them in a browser.

    \b
    Examples:
      audioldm export --ldm runs/tiny/ldm --vae runs/tiny/vae --vocoder runs/tiny/vocoder --clap runs/tiny/clap -o out/m
      audioldm export audioldm-s-full.ckpt -o out/s-full
      audioldm export cvssp/audioldm-m-full --dtype float16 -o out/m-full-half
      audioldm export embedded --merge mine.safetensors:0.8 -o out/mine
      audioldm export out/s-full -o out/s-full.ckpt
      audioldm export --onnx out/page --web node_modules/onnxruntime-web/dist
    """

    ref: str | None = argument(None, "Model to write anew: folder, hub id or original .ckpt.")
    out: Path | None = option(None, "Folder, or original checkpoint (.ckpt), to write.", "-o", "PATH")
    onnx: Path | None = option(None, "Write ONNX graphs and their page to this folder instead.", "DIR")
    web: Path | None = option(None, "Copy onnxruntime-web from here.  [default: from its CDN]", "DIR")
    name: str | None = option(None, "The model's name.")
    dtype: Literal["float32", "float16", "bfloat16"] = option("float32", "Number type of a folder's weights.")
    merge: list[str] = option([], "Write this adapter into the weights.", "FILE[:WEIGHT]")
    parts: Parts = Parts()
    defaults: Defaults = Defaults()
    published: PublishedOptions = PublishedOptions()

    def check(self) -> None:
        """Refuse a place that is taken, parts that do not make a model, and samplers that are none."""
        named = self.parts.named().keys()
        if self.onnx is not None:
            if any((self.out, named)):
                raise AudioLDMError("--onnx goes with a REF alone.", "Export the parts to a folder first.")
            check_free(self.onnx / "model.json", force=self.force)
            return
        if self.out is None:
            raise AudioLDMError("There is no place to write to.", "Name it by --out, or by --onnx.")
        model = self.out if self.out.is_file() else self.out / "model_index.json"
        check_free(model, force=self.force)
        if self.ref is None:
            if len(named - {"t5"}) < 4:
                hint = "Name a REF, or all of --ldm, --vae, --vocoder and --clap."
                raise AudioLDMError("Not all parts were named.", hint)
        elif named & {"ldm", "t5"}:
            hint = "With a REF: --vae, --vocoder or --clap."
            raise AudioLDMError("Both a REF and its U-Net or T5 were named.", hint)
        self.defaults.check("cpu")

    def run(self) -> None:
        self.check()
        ref, out, named = self.ref, self.onnx or self.out, self.parts.named()
        assert out is not None
        if self.dry_run:
            would(f"{ref or ', '.join(named.values()) or 'embedded'} would be written to {out}")
            return
        alone = not any((named, self.merge, self.onnx))
        if ref is not None and alone and write_nets(ref, out):
            return
        with waiting("loading torch and the model"):
            model = self.model(named)
        with waiting(f"writing {out}"):
            self.write(model, out)
        show_text(out)

    def model(self, named: dict[str, str]) -> "Components":
        model: Components
        if self.ref is None and self.onnx is None:
            model = joined(named, self.published)
        else:
            model = replaced(load(self.ref, device="cpu", dtype="float32", **vars(self.published)), named)
        if self.merge:  # a student of few steps says how it is sampled
            with warned():
                model.adapt(*self.merge)  # type: ignore[attr-defined]
            model.about["merged"] = model.adapted.applied if model.adapted else []
        defaults = model.defaults.merged(**self.defaults.named())
        return replace(model, name=self.name or model.name, defaults=defaults)

    def write(self, model: "Components", out: Path) -> None:
        import torch

        from audioldm.convert.model import save_model
        from audioldm.convert.original import save_checkpoint
        from audioldm.paths import published

        if self.onnx is None and out.suffix == ".ckpt":
            save_checkpoint(model, out)
        elif self.onnx is None:
            save_model(model, out, dtype=getattr(torch, self.dtype))
        else:
            from audioldm.convert.onnx import export_onnx

            with published(out) as stage:
                rows = export_onnx(model, stage, web=self.web)  # type: ignore[arg-type]
            show_text("graph       MB    error  onnxruntime ms  torch ms")
            for row in rows:
                times = f"{row.onnx_ms:15.1f} {row.torch_ms:9.1f}"
                show_text(f"{row.graph:8} {row.megabytes:5.1f} {row.error:8.1e} {times}")


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
        show_text(folder)
    return True


def replaced(model: "Components", named: dict[str, str]) -> "Components":
    from audioldm.convert.model import spec_of
    from audioldm.convert.reference import open_part
    from audioldm.nets.vae import stride_of

    if not named:
        return model
    parts = {name: open_part(ref, name) for name, ref in named.items()}  # type: ignore[arg-type]
    new = replace(model, **parts)
    spec = spec_of(new.vocoder, stride_of(new.vae), new.vae.config.latent_channels)
    if spec != model.spec or new.clap.dim != model.clap.dim:  # type: ignore[union-attr]
        what = f"{', '.join(named.values())} does not fit {model.name}: its mel, latents or CLAP are of another shape."
        raise AudioLDMError(what, "Name parts of a model of the same shape.")
    return new


def joined(named: dict[str, str], published: PublishedOptions) -> "Components":
    from audioldm.convert.reference import join_run, open_part, run_of, t5_of_run
    from audioldm.pipeline.audioldm import AudioLDM

    ldm = Path(named["ldm"])
    run = run_of(ldm) or ldm if ldm.is_file() else ldm
    t5 = t5_of_run(run, named.get("t5"))
    unet = open_part(ldm, "unet")
    vae, vocoder, clap = (
        open_part(named[name], name, **vars(published))
        for name in ("vae", "vocoder", "clap")  # type: ignore[arg-type]
    )
    encoder = None if t5 is None else open_part(t5, "text_encoder")
    return replace(AudioLDM.of(join_run(run, unet, vae, vocoder, clap, encoder)), name="mine")
