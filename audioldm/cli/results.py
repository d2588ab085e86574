"""The files of one finished clip, and what is said about them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioldm.cli.options.output import Output

if TYPE_CHECKING:
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.outputs import Clip, Files, Level, Wave
    from audioldm.pipeline.sounds import Sound


def files_of(clip: "Clip", output: Output) -> "Files":
    """Where ``clip`` goes."""
    from audioldm.pipeline import outputs

    return outputs.files_of(clip, output.out, audio_format=output.audio_format, figure=output.figure)


def save(
    pipe: "AudioLDM",
    clip: "Clip",
    wave: "Wave",
    settings: dict[str, Any],
    output: Output,
    *,
    file: "Sound | None" = None,
) -> dict[str, Any]:
    """Write the files of one clip together, ``file`` as its sound if there is one; returns what ``--json`` prints."""
    from audioldm.pipeline import outputs, sounds

    files = files_of(clip, output)
    level = outputs.level(wave)
    wave = outputs.normalized(wave) if output.normalize else wave
    record = describe(pipe, clip, settings, output, level)
    if file is not None:
        record["sound"] |= {"rate_hz": file.rate, "channels": file.data.shape[1], "samples": len(file.data)}
    contents = {files.sidecar: (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()}
    if files.figure:
        from audioldm.cli import figure

        contents[files.figure] = figure.draw(
            wave, pipe.spec, title=f"{clip.named or clip.prompt}   (seed {clip.seed})"
        )
    if file is None:
        audio = outputs.audio_bytes(wave, pipe.spec.rate, audio_format=output.audio_format)
    else:
        audio = sounds.file_bytes(file, output.audio_format)
    contents[files.audio] = audio
    outputs.publish(contents)
    tell_clipping(files.audio, level, normalize=output.normalize)
    paths = {"audio": files.audio, "figure": files.figure, "sidecar": files.sidecar}
    return {**{name: str(path) if path else None for name, path in paths.items()}, **record}


def describe(
    pipe: "AudioLDM", clip: "Clip", settings: dict[str, Any], output: Output, level: "Level"
) -> dict[str, Any]:
    """The sidecar: all that is needed to make the clip again, and how loud it came out."""
    from audioldm.pipeline import outputs

    return {
        "prompt": clip.prompt,
        "seed": clip.seed,
        "settings": {
            **settings,
            "device": str(pipe.device),
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "mode": pipe.mode,
        },
        "model": {
            "name": pipe.name,
            **pipe.origin(),
            "sha256": pipe.hashes,
            **({"adapters": pipe.adapted.settings()} if pipe.adapted else {}),
        },
        "sound": {
            "rate_hz": pipe.spec.rate,
            "seconds": level.samples / pipe.spec.rate,
            "format": output.audio_format,
            "normalized": output.normalize,
            **asdict(level),
        },
        "versions": outputs.versions(),
    }


def tell_clipping(path: Path, level: "Level", *, normalize: bool) -> None:
    """Say on stderr how much of a clip is at full scale, and what helps."""
    scaled = normalize and level.peak > 1
    if level.clipped == 0 or scaled:
        return
    cure = (
        "Use --normalize to scale instead."
        if level.peak > 1
        else "The vocoder is at its limit: lower --guidance."
    )
    note = f"{level.clipped} of {level.samples} samples clipped (peak {level.peak:.2f} of full scale)."
    print(f"audioldm: {path}: {note} {cure}", file=sys.stderr)


def tell(result: dict[str, Any]) -> None:
    """Print the paths of one clip, the sound first."""
    for name in ("audio", "figure", "sidecar"):
        if result[name]:
            print(result[name], flush=True)
