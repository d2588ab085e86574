"""Where results go, and in which form."""

from pathlib import Path

from audioldm.cli.options import Between, DryRun, Force, option, out_option, setting
from audioldm.errors import AudioLDMError

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


class Output(Force, DryRun):
    """What to do with every clip."""

    panel = "Output"
    out: Path = out_option("out", "PATH", "Folder, or for one clip a file such as rain.mp3.")
    audio_format: str | None = option(
        None, "Sound file format.  [default: wav]", "--format", "|".join(FORMATS)
    )
    normalize: bool = option(False, "Scale each clip to a true peak of -1 dB, not only down from above 0.")
    lufs: float | None = option(
        None, "Scale each clip to this loudness (BS.1770), such as -23.", "LUFS", Between(-70, 0)
    )
    as_json: bool = option(False, "Print JSON.", "--json", hidden=True)
    figure: bool = setting(True, "Draw waveform and log-mel of each clip as PNG.")

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


class ManyOutputs(Output):
    """Also what may be there from an earlier run."""

    resume: bool = option(False, "Make only clips that are not there, whole and with these settings.")
    replay: Path | None = option(
        None, "Make the sound of a .json again, and say whether it is the same.", "FILE.json"
    )
