"""``audioldm doctor``: what is installed, what is missing, and the command that adds it."""

import os
import platform
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import audioldm
from audioldm.cli.options import AsJson, Command
from audioldm.paths import cache_folder

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
        self.show(report, table(report))
        if None in report["needed"].values():
            sys.exit(1)


def examine() -> dict[str, Any]:
    """Names and versions of what the package and each extra needs, and what else a command may use."""
    try:
        requirements = metadata.requires("audioldm") or []
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        requirements = ["audioldm"]
    needed: dict[str, str | None] = {}
    optional: dict[str, dict[str, str | None]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement)
        for name in re.findall(r"^[\w.-]+", requirement):
            (optional.setdefault(extra[1], {}) if extra else needed)[name] = version_of(name)
    report: dict[str, Any] = {
        "audioldm": audioldm.__version__, "python": platform.python_version(), "platform": platform.platform(),
        "needed": needed, "optional": optional,
        "add": {extra: command(f"[{extra}]") for extra, parts in optional.items() if None in parts.values()},
        "programs": {name: shutil.which(name) for name in PROGRAMS}, "devices": [], "codecs": [],
    }  # fmt: skip
    if version_of("torch"):
        report["devices"] = devices()
    if version_of("soundfile"):
        import soundfile

        kinds = soundfile.available_formats()
        report["codecs"] = [kind for kind in ("WAV", "FLAC", "OGG", "MP3") if kind in kinds]
    return {**report, "caches": caches(), "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")}


def command(extra: str = "") -> str:
    """The command that adds ``[extra]``, or the package itself: from the checkout where there is one."""
    root = Path(audioldm.__file__).parents[1]
    is_checkout = (root / "pyproject.toml").is_file()
    return f'pip install -e "{root}{extra}"' if is_checkout else f'pip install "audioldm{extra}"'


def version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    import torch

    rows = [f"cpu ({torch.get_num_threads()} threads)"]
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        rows.append(f"cuda:{i} {about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    return [*rows, *(["mps"] if torch.backends.mps.is_available() else [])]


def caches() -> dict[str, dict[str, Any]]:
    """Where downloads are (published models, networks that evaluate), and their bytes; None without a folder."""
    folders = {"embedders": cache_folder()}
    if version_of("huggingface_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        folders["hub"] = Path(HF_HUB_CACHE)
    sizes: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        # links are not followed
        files = (Path(place, file) for place, _, files in os.walk(folder) for file in files)
        count = sum(path.lstat().st_size for path in files if path.exists()) if folder.is_dir() else None
        sizes[name] = {"path": str(folder), "bytes": count}
    return sizes


def table(report: dict[str, Any]) -> str:
    sections = {"needed": {name: text or f"MISSING: {command()}" for name, text in report["needed"].items()}}
    for extra, parts in report["optional"].items():
        add = f"   incomplete: {report['add'][extra]}" if extra in report["add"] else ""
        sections[f"extra {extra}{add}"] = {name: version or "-" for name, version in parts.items()}
    sections["programs"] = {
        name: place or f"- for {PROGRAMS[name]}: apt-get install {name}"
        for name, place in report["programs"].items()
    }
    offline = "   (HF_HUB_OFFLINE is set: nothing is downloaded)" if report["offline"] else ""
    sections[f"caches{offline}"] = {
        name: f"{one['path']}   " + ("empty" if one["bytes"] is None else f"{one['bytes'] / 1e6:,.0f} MB")
        for name, one in report["caches"].items()
    }
    lines = [f"audioldm {report['audioldm']}   Python {report['python']}   {report['platform']}"]
    for title, rows in sections.items():
        lines += ["", title, *(f"  {name:<22}{text}" for name, text in rows.items())]
    lines += ["", *(f"{name:<10}{', '.join(report[name])}" for name in ("devices", "codecs"))]
    return "\n".join(lines)
