"""What others open: ``audioldm export`` writes models, ``audioldm adapter`` shows and writes adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from audioldm.cli.console import say, show_text, waiting, warned, would
from audioldm.cli.options import AsJson, Command, DryRun, Force, Group, argument, group, option, setting
from audioldm.cli.options.groups import PublishedOptions, Sampling, load, model_option
from audioldm.cli.startup import later
from audioldm.errors import AudioLDMError
from audioldm.paths import published

with later():
    import torch

    from audioldm import components
    from audioldm.adapters import adapter as adapters
    from audioldm.adapters import files, words
    from audioldm.convert import checkpoint, original, reference
    from audioldm.convert import model as models
    from audioldm.convert import onnx as graphs
    from audioldm.nets import folder as folders
    from audioldm.nets import vae as vaes
    from audioldm.pipeline import audioldm


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

    def check(self, named: dict[str, str]) -> Path:
        """Where to write; refuses a place that is taken, parts that do not make a model, and samplers that are none."""
        if self.onnx is not None:
            if any((self.out, named)):
                raise AudioLDMError("--onnx goes with a REF alone.", "Export the parts to a folder first.")
            self.check_free(self.onnx / "model.json")
            return self.onnx
        if self.out is None:
            raise AudioLDMError("There is no place to write to.", "Name it by --out, or by --onnx.")
        self.check_free(*filter(Path.is_file, (self.out, self.out / "model_index.json")))
        if self.ref is None and len(named.keys() - {"t5"}) < 4:
            hint = "Name a REF, or all of --ldm, --vae, --vocoder and --clap."
            raise AudioLDMError("Not all parts were named.", hint)
        if self.ref is not None and named.keys() & {"ldm", "t5"}:
            hint = "With a REF: --vae, --vocoder or --clap."
            raise AudioLDMError("Both a REF and its U-Net or T5 were named.", hint)
        self.defaults.check("cpu")
        return self.out

    def run(self) -> None:
        ref, named = self.ref, self.parts.named()
        out = self.check(named)
        if self.dry_run:
            would(f"{ref or ', '.join(named.values()) or 'embedded'} would be written to {out}")
            return
        if ref is not None and not any((named, self.merge, self.onnx)) and write_nets(ref, out):
            return
        with waiting("loading torch and the model"):
            model = self.model(named)
        with waiting(f"writing {out}"):
            self.write(model, out)
        show_text(out)

    def write(self, model: components.Components, out: Path) -> None:
        if self.onnx is not None:
            with published(out) as stage:
                rows = graphs.export_onnx(model, stage, web=self.web)  # type: ignore[arg-type]
            show_text("graph       MB    error")
            for row in rows:
                show_text(f"{row.graph:8} {row.megabytes:5.1f} {row.error:8.1e}")
        elif out.suffix == ".ckpt":
            original.save_checkpoint(model, out)
        else:
            models.save_model(model, out, dtype=getattr(torch, self.dtype))

    def model(self, named: dict[str, str]) -> components.Components:
        model: components.Components
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


def write_nets(ref: str, out: Path) -> bool:
    """Write component folders of a file that cannot generate alone, and print them; False for everything else."""
    file = Path(ref)
    if not file.is_file() or file.suffix not in folders.SUFFIXES or file.name == checkpoint.TANGO_MAIN:
        return False
    content = checkpoint.read_checkpoint(file)
    if models.obstacle(content) is None:
        return False
    for key in content.unread:
        say(f"left out: the conditioner that begins with {key!r}.")
    for folder in content.save(out):
        show_text(folder)
    return True


def replaced(model: components.Components, named: dict[str, str]) -> components.Components:
    if not named:
        return model
    parts = {name: reference.open_part(ref, name) for name, ref in named.items()}  # type: ignore[arg-type]
    new = replace(model, **parts)
    spec = models.spec_of(new.vocoder, vaes.stride_of(new.vae), new.vae.config.latent_channels)
    if spec != model.spec or new.clap.dim != model.clap.dim:  # type: ignore[union-attr]
        what = f"{', '.join(named.values())} does not fit {model.name}: its mel, latents or CLAP are of another shape."
        raise AudioLDMError(what, "Name parts of a model of the same shape.")
    return new


def joined(named: dict[str, str], options: PublishedOptions) -> components.Components:
    ldm, parts = Path(named["ldm"]), dict[str, Any]()
    run = reference.run_of(ldm) or ldm if ldm.is_file() else ldm
    t5 = reference.t5_of_run(run, named.get("t5"))
    for name in ("vae", "vocoder", "clap"):
        parts[name] = reference.open_part(named[name], name, **vars(options))
    encoder = None if t5 is None else reference.open_part(t5, "text_encoder")
    model = reference.join_run(run, unet=reference.open_part(ldm, "unet"), **parts, t5=encoder)
    return replace(audioldm.AudioLDM(**vars(model)), name="mine")


class OneFile(Group):
    file: Path = argument(..., "An adapter of ours, of kohya (LyCORIS) or of peft.")
    model: str | None = model_option("The model it is for.")

    def open(self) -> adapters.Adapter | words.Words:
        """The adapter, warnings on stderr; the model is loaded only if the file's names need it."""
        kohya = any(key.startswith(files.KOHYA) for key in files.load(self.file)[0])
        net = load(self.model, device="cpu").unet if kohya else None
        with warned():
            return files.read(self.file, net)


class Show(AsJson, OneFile, Command):
    """Kind, rank, targets, base, and what it was trained for.

    Examples:
      audioldm adapter show runs/personal/lora/model/adapter.safetensors
      audioldm adapter show kohya.safetensors -m my_model --json
    """

    def run(self) -> None:
        adapter, lines = self.open(), []
        table: dict[str, Any] = {"kind": adapter.kind, "parameters": adapter.parameters}
        if isinstance(adapter, words.Words):
            table |= {"word": adapter.word, "rank": len(adapter.rows)}
        else:
            table |= {"rank": adapter.rank, "alpha": adapter.alpha, "layers": len(adapter.layers)}
            table["targets"] = list(adapter.targets)
        table |= {"base": adapter.base, **adapter.about, "bytes": self.file.stat().st_size}
        for name, value in table.items():
            if isinstance(value, list):
                value = ", ".join(value[:12] + ["..."] * (len(value) > 12))
            lines.append(f"{name}: {value}")
        self.show(table, "\n".join(lines))


class Convert(Force, OneFile, Command):
    """Write an adapter in another layout; the change that it makes stays the same.

    Examples:
      audioldm adapter convert mine.safetensors --to kohya -o mine_kohya.safetensors
      audioldm adapter convert their/adapter_model.safetensors -o mine.safetensors
    """

    out: Path = option(..., "File to write; for peft a folder.", "-o", "PATH")
    to: Literal["audioldm", "kohya", "peft"] = option("audioldm", "Layout.")

    def run(self) -> None:
        self.check_free(self.out)
        if self.to != "peft" and self.out.suffix != ".safetensors":
            raise AudioLDMError(f"out={self.out} is no .safetensors.", "Name a file that ends so.")
        adapter, paths = self.open(), [self.out]
        if self.to == "audioldm":
            files.write(self.out, adapter)
        else:
            paths = files.export(self.out, adapter, self.to)
        for path in paths:
            show_text(path)


adapter = group("Look into an adapter file, or write it as others read it.", (Show, Convert))
