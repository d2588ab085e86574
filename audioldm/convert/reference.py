"""What a reference names: a model, component or run folder, an original file, a run's checkpoint, or a hub id."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from audioldm.components import Components
from audioldm.convert.checkpoint import TANGO_MAIN, TANGO_VAE, is_tango, read_checkpoint, read_tango
from audioldm.convert.folder import DEFAULT, Choices, Folder, Source, clap_of, t5_of
from audioldm.convert.model import open_checkpoint, open_diffusers, open_folder, open_tango
from audioldm.convert.run import open_run_checkpoint, run_of
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import MelEncoder, NoClap
from audioldm.nets.folder import SUFFIXES, class_name, find_weights, read_json
from audioldm.nets.text_encoder import LONGEST

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


def open_model(ref: str | Path | None = None, **choices: Any) -> Components:
    """The model that ``ref`` names, float32 on the CPU; None is the embedded one.   ``choices``: see ``Choices``.

    Raises AudioLDMError where there is none, or it is of an unknown kind.
    """
    options, path = Choices(**choices), EMBEDDED if ref in (None, "embedded") else Path(str(ref))
    if is_tango(home := path.parent if path.is_file() else path):
        return open_tango(home, options)
    for folder in (path, path / "model"):
        if (folder / "audioldm.json").is_file():
            return open_folder(folder)
    if path.is_dir():
        if (path / "config.yaml").is_file() and not (path / "model_index.json").is_file():
            hint = "Join its parts: audioldm export --ldm ...."
            raise AudioLDMError(f"{path} is a run, not a whole model.", hint)
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
        if path.suffix not in SUFFIXES:
            raise AudioLDMError(f"{path} is no weight file.", f"Known: {', '.join(SUFFIXES)}.")
    elif Path(ref).suffix in SUFFIXES or not HUB_ID.fullmatch(ref):
        hint = "Name a folder that holds model_index.json, a .ckpt file, or owner/name."
        raise AudioLDMError(f"{ref} is not a model folder, a checkpoint, or a hub id.", hint)


@dataclass(frozen=True)
class Part:
    """One part of a model and where it is: a folder, or a file."""

    kind: Kind
    path: Path
    """a folder with the part's component folders, the part's own folder, or a file"""
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
        return [file for place in places if place.is_dir() for file in find_weights(place)]

    def open(self) -> Any:
        name, source = FOLDERS[self.kind][0], cast(Source, Folder(self.path, self.choices.heads))
        if self.path.is_file() and run_of(self.path) is not None:
            return open_run_checkpoint(self.path, "clap" if self.kind == "clap" else name)
        if self.path.is_file() or is_tango(self.path):
            source = (read_checkpoint if self.path.is_file() else read_tango)(self.path, self.choices)
        if self.kind == "clap":
            return clap_of(source)
        return t5_of(source, longest=LONGEST) if self.kind == "text_encoder" else source.build(name)


def find_part(ref: str | Path, kind: Kind, **choices: Any) -> Part:
    """Where the ``kind`` of ``ref`` is, fetched from the hub as far as it is needed.   Raises AudioLDMError."""
    if kind not in get_args(Kind):
        raise AudioLDMError(f"kind={kind!r} is no part of a model.", f"Known: {', '.join(get_args(Kind))}.")
    options, path = Choices(**choices), EMBEDDED if ref == "embedded" else Path(ref)
    if not path.is_dir():
        check_ref(path, str(ref))
    if not path.exists():
        from audioldm.convert.hub import fetch_part

        return Part(kind, fetch_part(str(ref), FOLDERS[kind]).folder, str(ref), options)
    if path.is_file():
        if not is_tango(path.parent) and not (path.parent / "config.json").is_file():
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
                hint = "Train it to its end, or name its checkpoint (checkpoints/last.ckpt)."
                what += ": the run is not finished"
            raise AudioLDMError(f"{what}.", hint)
        name, known = class_name(read_json(path / "config.json")), ALONE.get(kind)
        if known not in (None, name):
            raise AudioLDMError(f"{path} holds a {name}, no {known}.", "Name another folder.")
    return Part(kind, path, str(ref), options)


def open_part(
    ref: str | Path, kind: Kind, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None, **choices: Any
) -> Any:  # fmt: skip
    """The part of a model that ``ref`` names, in eval mode: a U-Net, VAE or vocoder, a ``Clap``, a ``T5TextEncoder``.

    ``dtype`` None is bfloat16 on a GPU and float32 elsewhere.   ``choices``: see ``Choices``.   Raises AudioLDMError.
    """
    net = find_part(ref, kind, **choices).open()
    if isinstance(net, NoClap):
        raise AudioLDMError(f"{ref} has no CLAP.", "Name a model that has one.")
    dtype = dtype or (torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32)
    return nn.Module.to(net, device=device, dtype=dtype).eval()  # diffusers' own warns of any cast
