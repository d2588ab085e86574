"""Where results go, and in which form."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.options import Between, Setting
from audioldm.errors import AudioLDMError

option = partial(typer.Option, rich_help_panel="Output", show_default=False)
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wavfloat": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "flac24": ("FLAC", "PCM_24"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "m4a": ("", ""),
}
"""Name to libsndfile's format and width; m4a is ffmpeg's."""
DryRun = Annotated[bool, option("--dry-run", help="Check all, say what would be made, and make nothing.")]
Force = Annotated[bool, option("--force", help="Overwrite results that exist.")]


@dataclass(frozen=True)
class Output:
    """What to do with every clip."""

    out: Annotated[
        Path, option("-o", "--out", help="Folder, or for one clip a file such as rain.mp3.  [default: out]")
    ] = Path("out")
    audio_format: Annotated[
        str | None,
        option("--format", metavar="|".join(FORMATS), help="Sound file format.  [default: wav]"),
    ] = None
    normalize: Annotated[
        bool,
        option("--normalize", help="Scale each clip to a true peak of -1 dB, not only down from above 0."),
    ] = False
    lufs: Annotated[
        float | None,
        option(metavar="LUFS", help="Scale each clip to this loudness (BS.1770), such as -23."),
        Between(-70, 0),
    ] = None
    force: Force = False
    dry_run: DryRun = False
    as_json: Annotated[bool, option("--json", hidden=True)] = False
    figure: Annotated[bool, Setting("Draw waveform and log-mel of each clip as PNG.")] = True

    def check(self) -> None:
        """Refuse what no clip could be written as."""
        if self.audio_format is not None and self.audio_format not in FORMATS:
            raise AudioLDMError(f"format={self.audio_format!r} is unknown.", f"Known: {', '.join(FORMATS)}.")
        if self.normalize and self.lufs is not None:
            raise AudioLDMError("--normalize and --lufs both say how loud.", "Give one of them.")

    @property
    def is_file(self) -> bool:
        """Whether ``out`` names a sound file and not a folder."""
        return self.out.suffix.lstrip(".").lower() in FORMATS and not self.out.is_dir()

    @property
    def folder(self) -> Path:
        """The folder that results go to."""
        return self.out.parent if self.is_file else self.out


@dataclass(frozen=True)
class ManyOutputs(Output):
    """Also what may be there from an earlier run."""

    resume: Annotated[
        bool, option("--resume", help="Make only clips that are not there, whole and with these settings.")
    ] = False
    replay: Annotated[
        Path | None,
        option(metavar="FILE.json", help="Make the sound of a .json again, and say whether it is the same."),
    ] = None
