"""What ``-m REF`` may be, and where it is: a folder, a checkpoint, or a model of the Hugging Face hub."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from audioldm.components import Components
from audioldm.convert.files import SUFFIXES
from audioldm.convert.folder import has_small_clap
from audioldm.errors import AudioLDMError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def open_reference(ref: str, **choices: Any) -> Components:
    """The published model that ``ref`` names.   AudioLDMError where there is none, or it is of an unknown kind."""
    from audioldm.convert import tango
    from audioldm.convert.published import Choices, open_checkpoint, open_diffusers
    from audioldm.convert.relatives import open_tango

    chosen = Choices(**choices)
    path = Path(ref)
    if tango.is_tango(home := path.parent if path.name == tango.MAIN else path):
        return open_tango(home, chosen)
    if path.is_dir() and has_small_clap(path):
        raise AudioLDMError(f"{path / 'audioldm.json'} is missing.", "Copy the model folder again.")
    if path.is_dir():
        return open_diffusers(path, chosen)
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise AudioLDMError(f"{path} is no weight file.", f"Known: {', '.join(SUFFIXES)}.")
        return open_checkpoint(path, chosen)
    if path.suffix in SUFFIXES or not HUB_ID.fullmatch(ref):
        raise AudioLDMError(
            f"{ref} is not a model folder, a checkpoint, or a hub id.",
            "Name a folder that holds model_index.json, a .ckpt file, or owner/name.",
        )
    from audioldm.convert.hub import fetch_model

    snapshot = fetch_model(ref)
    pipe = (open_tango if tango.is_tango(snapshot.folder) else open_diffusers)(snapshot.folder, chosen)
    about = {**pipe.about, "source": snapshot.repo, "revision": snapshot.revision}
    return replace(pipe, name=snapshot.repo, about=about)
