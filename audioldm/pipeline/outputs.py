"""Files that appear whole or not at all, and what the packages are that made them."""

import platform
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from audioldm.errors import AudioLDMError
from audioldm.paths import as_bytes, staged

PACKAGES = ("torch", "torchaudio", "diffusers", "transformers", "numpy", "soundfile", "safetensors")


def check_writable(folder: Path) -> None:
    """Raise unless files can be made in ``folder``, or in the nearest folder above it that exists."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        why = f"out={folder} cannot be written: {error.strerror}."
        raise AudioLDMError(why, "Choose another folder with --out.") from error


def versions() -> dict[str, str]:
    """Versions of Python and of every package that has a hand in the sound."""
    import audioldm

    packages = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "audioldm": audioldm.__version__, **packages}


def publish(contents: Mapping[Path, bytes | str]) -> None:
    """Write all files beside their places and onto the disk, then move them there; an error leaves no part of one."""
    try:
        with ExitStack() as stack:
            for path, content in reversed([*contents.items()]):  # the last to enter leaves first
                stage = stack.enter_context(staged(path))
                stage.write_bytes(as_bytes(content) if isinstance(content, str) else content)
    except OSError as error:
        why = f"{path} cannot be written: {error.strerror}."
        raise AudioLDMError(why, "Check the disk and --out.", code=1) from error
