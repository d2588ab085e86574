"""What a reference names: a model, component or run folder, an original file, a run's checkpoint, or a hub id."""

import re
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from audioldm.components import Components, Sampling
from audioldm.convert.checkpoint import TANGO_MAIN, TANGO_VAE, is_tango, read_checkpoint, read_tango
from audioldm.convert.folder import DEFAULT, Choices, Folder, Source, clap_of, t5_of
from audioldm.convert.model import micro_of, open_checkpoint, open_diffusers, open_folder, open_tango
from audioldm.convert.names import below
from audioldm.datasets.latents import read_index
from audioldm.diffusion import schedule as schedules
from audioldm.errors import AudioLDMError
from audioldm.nets import folder as files
from audioldm.nets.clap import MelEncoder, NoClap
from audioldm.nets.text_encoder import LONGEST, T5TextEncoder
from audioldm.nets.unet import kind_of, with_variance
from audioldm.nets.vae import encoder_digest
from audioldm.spec import SPECS
from audioldm.tables import read_content

Kind = Literal["unet", "vae", "vocoder", "clap", "text_encoder"]
EMBEDDED = Path(__file__).parents[1] / "_embedded"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")
FOLDERS: dict[str, tuple[str, ...]] = {
    "unet": ("unet",), "vae": ("vae",), "vocoder": ("vocoder",), "clap": ("text_encoder", "audio_encoder"),
    "text_encoder": ("text_encoder_2",),
}  # fmt: skip
"""the component folders of a part in a model folder; the first must be there"""
ALONE = {"clap": "ClapModel", "text_encoder": "T5EncoderModel"}
"""the class of which a folder by itself is the part, with its tokenizer"""
BUILDERS = (  # what the configuration of a run may call to build a net: nothing that writes
    "audioldm.nets.unet.build_unet", "audioldm.nets.vae.build_vae", "audioldm.nets.hifigan.build_hifigan",
    "audioldm.nets.istft_vocoder.ISTFTVocoder", "audioldm.nets.clap.build_small_clap",
    "audioldm.nets.clap.train_tokenizer", "audioldm.nets.minilm.minilm_word_embeddings",
    "audioldm.nets.minilm.minilm_tokenizer", "audioldm.datasets.synthetic.captions",
    "audioldm.convert.reference.open_part",
)  # fmt: skip
HYDRA = ("_target_", "_partial_")  # how the training builds a net, not with what
TRAINED = Sampling(steps=25, sampler="dpmpp_2m", grid="trailing", guidance=3.0)
"""defaults of a model that is joined from runs"""


def open_model(ref: str | Path | None = None, **choices: Any) -> Components:
    """The model that ``ref`` names (None: the embedded one), float32, on the CPU; see ``Choices``; or AudioLDMError."""
    options, path = Choices(**choices), EMBEDDED if ref in (None, "embedded") else Path(str(ref))
    if is_tango(home := path.parent if path.is_file() else path):
        return open_tango(home, options)
    for folder in (path, path / "model"):
        if (folder / "audioldm.json").is_file():
            return open_folder(folder)
    if path.is_dir():
        if (path / "config.yaml").is_file() and not (path / "model_index.json").is_file():
            raise AudioLDMError(f"{path} is a run, no whole model.", "Join parts: audioldm export --ldm.")
        model = open_diffusers(path, options)
        if isinstance(model.clap.audio_encoder, MelEncoder):  # a folder of this project
            raise AudioLDMError(f"{path / 'audioldm.json'} is missing.", "Copy the model folder again.")
        return model
    check_ref(path, str(ref))
    if path.is_file():
        return open_checkpoint(path, options)
    from audioldm.convert.hub import fetch_model

    snapshot = fetch_model(str(ref))
    model = (open_tango if is_tango(snapshot.folder) else open_diffusers)(snapshot.folder, options)
    about = {**model.about, "source": snapshot.repo, "revision": snapshot.revision}
    return replace(model, name=snapshot.repo, about=about)


def check_ref(path: Path, ref: str) -> None:
    """Refuse a file that is no weight file, and what is neither here nor the name of a repository."""
    if path.is_file():
        if path.suffix not in files.SUFFIXES:
            raise AudioLDMError(f"{path} is no weight file.", f"Known: {', '.join(files.SUFFIXES)}.")
    elif not path.is_dir() and (Path(ref).suffix in files.SUFFIXES or not HUB_ID.fullmatch(ref)):
        hint = "Name a folder that holds model_index.json, a .ckpt file, or owner/name."
        raise AudioLDMError(f"{ref} is not a model folder, a checkpoint, or a hub id.", hint)


@dataclass(frozen=True)
class Part:
    """One part of a model and where it is: a folder, or a file."""

    kind: Kind
    path: Path  # a folder with the part's component folders, the part's own folder, or a file
    ref: str
    choices: Choices = DEFAULT

    @property
    def files(self) -> list[Path]:
        """The weight files that decide the part, in a fixed order."""
        if not self.path.is_dir():
            return [self.path]
        if is_tango(self.path):
            return [self.path / TANGO_MAIN, self.path / TANGO_VAE]
        places = dict.fromkeys(Folder(self.path).place(name) for name in FOLDERS[self.kind])
        return [file for place in places if place.is_dir() for file in files.find_weights(place)]

    def open(self) -> Any:
        name, source = FOLDERS[self.kind][0], cast(Source, Folder(self.path, self.choices.heads))
        if self.path.is_file():
            if run_of(self.path) is not None:
                return open_run_checkpoint(self.path, "clap" if self.kind == "clap" else name)
            source = read_checkpoint(self.path, self.choices)
        elif is_tango(self.path):
            source = read_tango(self.path, self.choices)
        if self.kind == "clap":
            return clap_of(source)
        return t5_of(source, longest=LONGEST) if self.kind == "text_encoder" else source.build(name)


def find_part(ref: str | Path, kind: Kind, **choices: Any) -> Part:
    """Where the ``kind`` of ``ref`` is, fetched from the hub as far as it is needed.   Raises AudioLDMError."""
    if kind not in get_args(Kind):
        raise AudioLDMError(f"kind={kind!r} is no part of a model.", f"Known: {', '.join(get_args(Kind))}.")
    options, path = Choices(**choices), EMBEDDED if ref == "embedded" else Path(ref)
    check_ref(path, str(ref))
    if not path.exists():
        from audioldm.convert.hub import fetch_part

        return Part(kind, fetch_part(str(ref), FOLDERS[kind]).folder, str(ref), options)
    if path.is_file():
        if not any((path.parent / name).is_file() for name in (TANGO_MAIN, "config.json")):
            return Part(kind, path, str(ref), options)
        path = path.parent  # the weights of a component folder
    for folder in (path / "model", path, path.parent):
        inside = (folder / FOLDERS[kind][0] / "config.json").is_file()
        if inside and (folder != path.parent or path.name in FOLDERS[kind]):
            return Part(kind, folder, str(ref), options)
    if not is_tango(path):  # it must be the part itself
        if not (path / "config.json").is_file():
            what, hint = f"{path} holds no {FOLDERS[kind][0]}", "Name another."
            if (path / "config.yaml").is_file():
                what, hint = f"{what}: the run is not finished", "Name its checkpoints/last.ckpt."
            raise AudioLDMError(f"{what}.", hint)
        name = files.class_name(files.read_json(path / "config.json"))
        if ALONE.get(kind, name) != name:
            raise AudioLDMError(f"{path} holds a {name}, no {ALONE[kind]}.", "Name another folder.")
    return Part(kind, path, str(ref), options)


def open_part(
    ref: str | Path, kind: Kind, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, **choices: Any
) -> Any:  # fmt: skip
    """The part of a model that ``ref`` names, in eval mode; ``dtype`` None: bfloat16 on a GPU.   Or AudioLDMError."""
    net = find_part(ref, kind, **choices).open()
    if isinstance(net, NoClap):
        raise AudioLDMError(f"{ref} has no CLAP.", "Name a model that has one.")
    dtype = dtype or (torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32)
    return nn.Module.to(net, device=device, dtype=dtype).eval()  # diffusers' own warns of any cast


def run_of(file: Path) -> Path | None:
    run = file.parent.parent
    return run if (run / "config.yaml").is_file() else None


def run_settings(run: Path) -> dict[str, Any]:
    """The resolved configuration that a run was started with.   Raises AudioLDMError."""
    import yaml  # type: ignore[import-untyped]

    path = run / "config.yaml"
    if not path.is_file():
        raise AudioLDMError(f"{path} is missing.", "Name the folder that `audioldm train` printed.")
    settings = read_content(path, "Name another run.", yaml.safe_load, "YAML")
    if not isinstance(settings, dict) or not isinstance(settings.get("task"), dict):
        raise AudioLDMError(f"{path} is no configuration of a training.", "Name another run.")
    return settings


def index_of(run: Path) -> dict[str, Any]:
    data = run_settings(run).get("data")
    folder = data.get("folder") if isinstance(data, dict) else None
    if not isinstance(folder, str):
        raise AudioLDMError(f"{run}/config.yaml names no folder of latents.", "Name the run of a U-Net.")
    return read_index(folder)


def open_run_checkpoint(file: Path, name: str) -> Any:
    """The net ``name`` of a training checkpoint: its averaged weights where it has an average, else its weights."""
    settings = run_settings(file.parent.parent)
    task = settings["task"]
    if name not in task:
        raise AudioLDMError(f"The run {settings.get('recipe')!r} trained no {name}.", "Name another run.")
    content = files.read_weights(file)
    weights, callbacks = content.get("state_dict"), content.get("callbacks") or {}
    if not isinstance(weights, dict):
        raise AudioLDMError(f"{file} has no state_dict.", "Name a checkpoint of a training.")
    state = below(weights, f"{name}.")
    for item in callbacks.values():
        state = item.get("shadows", {}).get("ema", state) if isinstance(item, dict) else state
    wide = name == "unet" and task.get("learned_variance")
    return files.fill(lambda: with_variance(built(task[name])) if wide else built(task[name]), state, file)


def built(node: Any) -> Any:
    """An object that a run's configuration describes, by builders of this package only.   Raises AudioLDMError."""
    if isinstance(node, list):
        return [built(item) for item in node]
    if not isinstance(node, dict):
        return node
    values = {str(key): built(value) for key, value in node.items() if key not in HYDRA}
    if "_target_" not in node:
        return values
    if (target := str(node["_target_"])) not in BUILDERS:
        raise AudioLDMError(f"The run's configuration names {target!r}.", f"Known: {', '.join(BUILDERS)}.")
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)(**values)


def join_run(run: Path, unet: Any, vae: Any, vocoder: Any, clap: Any, t5: T5TextEncoder | None) -> Components:
    """The model of a run's U-Net and parts.   AudioLDMError where its latents were not made with these."""
    settings, index = run_settings(run), index_of(run)
    hears = "" if clap.audio_encoder is None else files.state_digest(clap.audio_encoder)
    for what, digest in {"encoder": encoder_digest(vae), "clap": hears}.items():
        if digest != index[what]:
            raise AudioLDMError(f"The U-Net's latents were not made with this {what}.", "Name the right one.")
    if (kind_of(unet) == "film") != (t5 is None):
        raise AudioLDMError("The U-Net and the T5 do not belong together.", "Name that of its latents: --t5.")
    vae.register_to_config(scaling_factor=index["scaling_factor"])
    spec = SPECS[index.get("spec", "16k_64")]
    try:
        call = dict(settings["task"]["schedule"])
        schedule = getattr(schedules, str(call.pop("_target_")).rpartition(".")[2])(**call)
        prediction = settings["task"]["prediction"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AudioLDMError(f"{run}/config.yaml has no usable schedule ({error}).", "Restore it.") from None
    latents = {key: index[key] for key in ("windows", "seconds", "split", "scaling_factor")}
    spec = replace(spec, stride=index["stride"], latent_channels=index["latent_channels"])
    return Components(
        unet, vae, vocoder, clap, spec, token_encoder=t5, schedule=schedule, prediction=prediction,
        defaults=replace(TRAINED, seconds=index["seconds"]), controls=micro_of(run / "model"),
        about={"latents": latents},
    )  # fmt: skip


def t5_of_run(run: Path, named: str | None = None) -> str | None:
    """The T5 of a run's latents, or the same one as ``named``; None without tokens.   Raises AudioLDMError."""
    item = next((item for item in index_of(run).get("made_of", []) if item["what"] == "T5"), None)
    if item is None:
        return None
    if named is None and not Path(item["file"]).is_file():
        raise AudioLDMError(f"{item['file']} is missing, with which the tokens were made.", "Name it: --t5.")
    part = find_part(named or Path(item["file"]).parent, "text_encoder")
    if files.weight_hash(part.files[0]) != item["sha256"]:
        raise AudioLDMError(f"The U-Net's tokens were not made with t5={part.ref}.", "Name the right one.")
    return part.ref
