"""``audioldm doctor``: what is installed, what is missing, and the command that adds it."""

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

import audioldm
from audioldm.cli.console import show_json
from audioldm.cli.options import AsJson, Command

PROGRAMS = {
    "ffmpeg": "sound out of videos (data prepare youtube), m4a files",
    "fluidsynth": "rendered notes of the embedded model's data",
    "espeak-ng": "spoken sentences of the embedded model's data",
}


class Doctor(AsJson, Command):
    """Show versions, devices, codecs, caches and optional parts; exit code 1 if a needed part is missing.

    \b
    Examples:
      audioldm doctor
      audioldm doctor --json
    """

    def run(self) -> None:
        report = examine()
        if self.as_json:
            show_json(report)
        else:
            print(table(report))
        if None in report["needed"].values():
            raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Everything that the report shows."""
    needed, extras = declared()
    versions = {name: version_of(name) for name in needed}
    optional = {extra: {name: version_of(name) for name in names} for extra, names in extras.items()}
    return {
        "audioldm": audioldm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "needed": versions,
        "optional": optional,
        "add": {extra: command(extra) for extra, parts in optional.items() if None in parts.values()},
        "programs": {name: shutil.which(name) for name in PROGRAMS},
        "devices": devices(),
        "codecs": codecs(),
        "caches": {name: {"path": str(path), "bytes": size(path)} for name, path in caches().items()},
        "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
    }


def declared() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the packages that this installation of audioldm needs, and those of each extra."""
    try:
        requirements = metadata.requires("audioldm") or []
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        return ["audioldm"], {}
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement)
        names = extras.setdefault(extra[1], []) if extra else needed
        names += re.findall(r"^[\w.-]+", requirement)
    return needed, extras


def command(extra: str = "") -> str:
    """The command that adds an extra, or the package itself: from the checkout where there is one."""
    root = Path(audioldm.__file__).parents[1]
    part = f"[{extra}]" if extra else ""
    is_checkout = (root / "pyproject.toml").is_file()
    return f'pip install -e "{root}{part}"' if is_checkout else f'pip install "audioldm{part}"'


def version_of(name: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    """What torch can compute on."""
    if not version_of("torch"):
        return []
    import torch

    rows = [f"cpu ({torch.get_num_threads()} threads)"]
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        rows.append(f"cuda:{i} {about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    return [*rows, *(["mps"] if torch.backends.mps.is_available() else [])]


def codecs() -> list[str]:
    """Sound file kinds that libsndfile reads here, among those that matter."""
    if not version_of("soundfile"):
        return []
    import soundfile

    return [kind for kind in ("WAV", "FLAC", "OGG", "MP3") if kind in soundfile.available_formats()]


def caches() -> dict[str, Path]:
    """Where downloads are: networks that evaluate, and published models."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm"
    if not version_of("huggingface_hub"):
        return {"embedders": cache}
    from huggingface_hub.constants import HF_HUB_CACHE

    return {"hub": Path(HF_HUB_CACHE), "embedders": cache}


def size(folder: Path) -> int | None:
    """Bytes of all files below ``folder``, links not followed; None where there is no folder."""
    if not folder.is_dir():
        return None
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in files if path.exists())


def table(report: dict[str, Any]) -> str:
    """The report as lines, with the command that adds each missing part."""
    lines = [f"audioldm {report['audioldm']}   Python {report['python']}   {report['platform']}"]
    for title, rows in {**packages(report), **places(report)}.items():
        lines += ["", title, *(f"  {name:<22}{text}" for name, text in rows.items())]
    return "\n".join(
        [*lines, "", *(f"{name:<10}{', '.join(report[name])}" for name in ("devices", "codecs"))]
    )


def packages(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What is installed, by section."""
    needed = {name: version or f"MISSING: {command()}" for name, version in report["needed"].items()}
    sections = {"needed": needed}
    for extra, parts in report["optional"].items():
        add = f"   incomplete: {report['add'][extra]}" if extra in report["add"] else ""
        sections[f"extra {extra}{add}"] = {name: version or "-" for name, version in parts.items()}
    return sections


def places(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Programs and caches."""
    offline = "   (HF_HUB_OFFLINE is set: nothing is downloaded)" if report["offline"] else ""
    programs = {
        name: place or f"- for {PROGRAMS[name]}: apt-get install {name}"
        for name, place in report["programs"].items()
    }
    caches = {
        name: f"{one['path']}   " + ("empty" if one["bytes"] is None else f"{one['bytes'] / 1e6:,.0f} MB")
        for name, one in report["caches"].items()
    }
    return {"programs": programs, f"caches{offline}": caches}
