"""``audioldm doctor``: what is installed, what is missing, and the command that adds it."""

import json
import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

import audioldm

PROGRAMS = {
    "ffmpeg": "sound out of videos (data prepare youtube)",
    "fluidsynth": "rendered notes (data prepare rendered)",
    "espeak-ng": "spoken sentences (data prepare rendered)",
}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, codecs, caches and optional parts; exit code 1 if a needed part is missing.

    \b
    Examples:
      audioldm doctor
      audioldm doctor --json
    """
    report = examine()
    print(json.dumps(report, indent=2) if as_json else table(report))
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
        "devices": devices() if version_of("torch") else [],
        "codecs": codecs() if version_of("soundfile") else [],
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
        names.append(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
    return needed, extras


def command(extra: str = "") -> str:
    """The command that adds an extra, or the package itself: from the checkout where there is one."""
    root = Path(audioldm.__file__).parents[1]
    part = f"[{extra}]" if extra else ""
    return (
        f'pip install -e "{root}{part}"'
        if (root / "pyproject.toml").is_file()
        else f'pip install "audioldm{part}"'
    )


def version_of(name: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    """What torch can compute on."""
    import torch

    gpus = []
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        gpus.append(f"cuda:{i} {about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    return [
        f"cpu ({torch.get_num_threads()} threads)",
        *gpus,
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]


def codecs() -> list[str]:
    """Sound file kinds that libsndfile reads here, among those that matter."""
    import soundfile

    return [kind for kind in ("WAV", "FLAC", "OGG", "MP3") if kind in soundfile.available_formats()]


def caches() -> dict[str, Path]:
    """Where downloads are kept: published models, and networks that judge."""
    found = {"judges": Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "audioldm"}
    if version_of("huggingface_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        found = {"hub": Path(HF_HUB_CACHE), **found}
    return found


def size(folder: Path) -> int | None:
    """Bytes of all files below ``folder``, links not followed; None where there is no folder."""
    if not folder.is_dir():
        return None
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in files if path.exists())


def table(report: dict[str, Any]) -> str:
    """The report as lines, with the command that adds each missing part."""
    head = f"audioldm {report['audioldm']}   Python {report['python']}   {report['platform']}"
    lines = [head, "", "needed"]
    lines += [
        f"  {name:<22}{version or f'MISSING: {command()}'}" for name, version in report["needed"].items()
    ]
    for extra, parts in report["optional"].items():
        add = f"   incomplete: {report['add'][extra]}" if extra in report["add"] else ""
        lines += [
            "",
            f"extra {extra}{add}",
            *(f"  {name:<22}{version or '-'}" for name, version in parts.items()),
        ]
    lines += ["", "programs"]
    lines += [
        f"  {name:<22}{path or f'- for {PROGRAMS[name]}: apt-get install {name}'}"
        for name, path in report["programs"].items()
    ]
    lines += [
        "",
        "caches" + ("   (HF_HUB_OFFLINE is set: nothing is downloaded)" if report["offline"] else ""),
    ]
    for name, cache in report["caches"].items():
        held = "empty" if cache["bytes"] is None else f"{cache['bytes'] / 1e6:,.0f} MB"
        lines.append(f"  {name:<22}{cache['path']}   {held}")
    lines += ["", f"devices   {', '.join(report['devices'])}", f"codecs    {', '.join(report['codecs'])}"]
    return "\n".join(lines)
