"""``audioldm doctor``: what is installed, what is missing, and the command that adds it."""

import os
import platform
import re
import shutil
import sys
from collections import defaultdict
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
    extras: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement)
        for name in re.findall(r"^[\w.-]+", requirement):
            extras[extra[1] if extra else ""][name] = version_of(name)
    report: dict[str, Any] = {
        "audioldm": audioldm.__version__, "python": platform.python_version(), "platform": platform.platform(),
        "needed": extras.pop("", {}), "optional": dict(extras),
        "add": {extra: command(f"[{extra}]") for extra, parts in extras.items() if None in parts.values()},
        "programs": {name: shutil.which(name) for name in PROGRAMS}, "devices": [], "codecs": [],
        "caches": {}, "offline": os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"),
    }  # fmt: skip
    if version_of("torch"):
        import torch

        report["devices"].append(f"cpu ({torch.get_num_threads()} threads)")
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            size = f"{about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            report["devices"].append(f"cuda:{i} {about.name}, {size}")
        report["devices"] += ["mps"] * torch.backends.mps.is_available()
    if version_of("soundfile"):
        import soundfile

        kinds = soundfile.available_formats()
        report["codecs"] = [kind for kind in ("WAV", "FLAC", "OGG", "MP3") if kind in kinds]
    folders = {"embedders": cache_folder()}
    if version_of("huggingface_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        folders["hub"] = Path(HF_HUB_CACHE)
    for name, folder in folders.items():
        sizes = (
            path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
        )
        report["caches"][name] = {"path": str(folder), "bytes": sum(sizes) if folder.is_dir() else None}
    return report


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


def table(report: dict[str, Any]) -> str:
    sections = {"needed": {name: text or f"MISSING: {command()}" for name, text in report["needed"].items()}}
    for extra, parts in report["optional"].items():
        add = f"   incomplete: {report['add'][extra]}" if extra in report["add"] else ""
        sections[f"extra {extra}{add}"] = {name: version or "-" for name, version in parts.items()}
    programs = report["programs"].items()
    lacking = {name: f"- for {use}: apt-get install {name}" for name, use in PROGRAMS.items()}
    sections["programs"] = {name: place or lacking[name] for name, place in programs}
    offline = "   (HF_HUB_OFFLINE is set: nothing is downloaded)" if report["offline"] else ""
    sections[f"caches{offline}"] = {
        name: f"{one['path']}   " + ("empty" if one["bytes"] is None else f"{one['bytes'] / 1e6:,.0f} MB")
        for name, one in report["caches"].items()
    }
    lines = ["audioldm {audioldm}   Python {python}   {platform}".format(**report)]
    for title, rows in sections.items():
        lines += ["", title, *(f"  {name:<22}{text}" for name, text in rows.items())]
    return "\n".join(
        [*lines, "", *(f"{name:<10}{', '.join(report[name])}" for name in ("devices", "codecs"))]
    )
