"""``audioldm data prepare NAME`` for the published data sets, from the files that their authors give out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audioldm.cli.console import progress
from audioldm.cli.manifests import AsJson, Force, Out, Val, finish, refuse_overwrite
from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from audioldm.datasets.manifest import Finding
    from audioldm.datasets.prepare.youtube import Clip

From = Annotated[Path, typer.Option("--from", metavar="DIR", help="The data set's folder.")]
Audio = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder of the sounds, if elsewhere.  [default: --from]"),
]
Youtube = Annotated[
    bool, typer.Option("--youtube", help="Get clips that are missing from YouTube by yt-dlp into --audio.")
]


def audiocaps(
    folder: From,
    out: Out = Path("data/raw/audiocaps.jsonl"),
    audio: Audio = None,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="--from holds parquet files of the hub mirror, sounds included.")
    ] = False,
    hub: Annotated[
        str,
        typer.Option(metavar="REPO", help="First fetch the parquet files of this hub data set into --from."),
    ] = "",
    youtube: Youtube = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """AudioCaps 1.0 or 2.0: ten-second clips from YouTube with one caption to train on and five to test on.

    --from holds train.csv, val.csv and test.csv; sounds are found by video id (`ID_START.wav`, `YID.wav` and others).

    \b
    Examples:
      audioldm data prepare audiocaps --from audiocaps/dataset --audio sounds
      audioldm data prepare audiocaps --from audiocaps/dataset --audio sounds --youtube
      audioldm data prepare audiocaps --from data/raw/audiocaps --hub OpenSound/AudioCaps --parquet
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import captioned, packed

    if hub:
        packed.hub(hub, folder)
    if parquet or hub:
        samples = packed.parquet(sorted(folder.rglob("*.parquet")))
        rows, findings = packed.unpack(
            samples, audio or folder / "sounds", source="audiocaps", licence=captioned.YOUTUBE
        )
        return finish(rows, findings, out, as_json)
    lost: list[Finding] = []
    if youtube:
        lost = get(captioned.clips(captioned.audiocaps(folder, _made(audio or folder))), audio or folder)
    finish(captioned.audiocaps(folder, audio), lost, out, as_json)


def clotho(
    folder: From,
    out: Out = Path("data/raw/clotho.jsonl"),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Clotho v2: 15 to 30 s with five captions each (Zenodo 4783391, unpacked).

    \b
    Example:
      audioldm data prepare clotho --from clotho
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import captioned

    finish(captioned.clotho(folder), [], out, as_json)


def wavcaps(
    folder: From,
    out: Out = Path("data/raw/wavcaps.jsonl"),
    audio: Audio = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="JSON", help="A blacklist of WavCaps: clips of other sets' test data."),
    ] = None,
    val: Val = 0.02,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """WavCaps: 400,000 clips from Freesound, the BBC, SoundBible and AudioSet, captioned by a language model.

    \b
    Example:
      audioldm data prepare wavcaps --from WavCaps --exclude WavCaps/json_files/blacklist/blacklist_exclude_test_ac.json
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import captioned

    finish(captioned.wavcaps(folder, audio, exclude=exclude or (), val=val), [], out, as_json)


def macs(
    folder: From,
    out: Out = Path("data/raw/macs.jsonl"),
    audio: Audio = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """MACS: urban scenes of 10 s with two to five captions (MACS.yaml; sounds of TAU Urban Acoustic Scenes 2019).

    \b
    Example:
      audioldm data prepare macs --from MACS --audio TAU-urban-acoustic-scenes-2019-development/audio
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import captioned

    finish(captioned.macs(folder, audio), [], out, as_json)


def musiccaps(
    folder: From,
    out: Out = Path("data/raw/musiccaps.jsonl"),
    audio: Audio = None,
    youtube: Youtube = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """MusicCaps: ten-second clips of music from YouTube, described by musicians (musiccaps-public.csv).

    \b
    Example:
      audioldm data prepare musiccaps --from MusicCaps --audio sounds --youtube
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import captioned

    lost: list[Finding] = []
    if youtube:
        lost = get(captioned.clips(captioned.musiccaps(folder, _made(audio or folder))), audio or folder)
    finish(captioned.musiccaps(folder, audio), lost, out, as_json)


def esc50(
    folder: From,
    out: Out = Path("data/raw/esc50.jsonl"),
    only_esc10: Annotated[bool, typer.Option("--only-esc10", help="The ten classes of ESC-10 only.")] = False,
    test_fold: Annotated[int, typer.Option(help="The fold to test on.")] = 5,
    val_fold: Annotated[int, typer.Option(help="The fold to validate on.")] = 4,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """ESC-50: 2,000 clips of 5 s in 50 classes (the folder with meta/esc50.csv and audio).

    \b
    Example:
      audioldm data prepare esc50 --from ESC-50-master
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import labelled

    finish(
        labelled.esc50(folder, only_esc10=only_esc10, test_fold=test_fold, val_fold=val_fold),
        [],
        out,
        as_json,
    )


def fsd50k(
    folder: From, out: Out = Path("data/raw/fsd50k.jsonl"), force: Force = False, as_json: AsJson = False
) -> None:
    """FSD50K: 51,000 clips from Freesound in 200 classes (the folder with FSD50K.ground_truth and the audio folders).

    \b
    Example:
      audioldm data prepare fsd50k --from FSD50K
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import labelled

    finish(labelled.fsd50k(folder), [], out, as_json)


def urbansound8k(
    folder: From,
    out: Out = Path("data/raw/urbansound8k.jsonl"),
    test_fold: Annotated[int, typer.Option(help="The fold to test on.")] = 10,
    val_fold: Annotated[int, typer.Option(help="The fold to validate on.")] = 9,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """UrbanSound8K: 8,732 clips of up to 4 s in 10 classes (the folder with metadata and audio).

    \b
    Example:
      audioldm data prepare urbansound8k --from UrbanSound8K
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import labelled

    finish(labelled.urbansound8k(folder, test_fold=test_fold, val_fold=val_fold), [], out, as_json)


def audioset(
    folder: From,
    out: Out = Path("data/raw/audioset.jsonl"),
    audio: Audio = None,
    val: Val = 0.02,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """AudioSet: class names become captions; clips whose sound is not there are passed over.

    \b
    Example:
      audioldm data prepare audioset --from audioset_lists --audio audioset_sounds
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import labelled

    finish(labelled.audioset(folder, audio, val=val), [], out, as_json)


def _made(folder: Path) -> Path:
    """The folder, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def get(clips: Sequence["Clip"], folder: Path) -> list["Finding"]:
    """Fetch from YouTube with a bar."""
    from audioldm.datasets.prepare import youtube

    if not clips:
        raise AudioLDMError("The list names no clips.", "Is this the right file?")
    with progress(len(clips), "fetched") as step:
        return youtube.fetch(clips, folder, on_clip=step)


SOURCES = (audiocaps, clotho, wavcaps, macs, musiccaps, esc50, fsd50k, urbansound8k, audioset)
