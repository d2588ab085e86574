"""``audioldm data prepare rendered`` and ``composed``: sounds made here, whose captions are true by construction."""

from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.manifests import AsJson, Force, Out, bar, finish, refuse_overwrite
from audioldm.errors import AudioLDMError

Seed = Annotated[int, typer.Option(help="Decides every choice; the same seed makes the same sounds.")]


def rendered(
    out: Out = Path("data/raw/rendered.jsonl"),
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the 16 kHz FLAC files go.")] = Path(
        "data/raw/rendered"
    ),
    notes: Annotated[int, typer.Option(help="Notes, phrases and drums (FluidSynth).")] = 1500,
    tones: Annotated[int, typer.Option(help="Tones and noises (no program needed).")] = 300,
    speech: Annotated[int, typer.Option(help="Short sentences (espeak-ng).")] = 300,
    soundfont: Annotated[
        Path | None, typer.Option(metavar="SF2", help="General-MIDI sound font.  [default: FluidR3_GM]")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Notes and phrases of 62 instruments, tones, noises and speech, 2 to 5 s each.

    The same command again goes on where it stopped.   Needs `apt-get install fluidsynth fluid-soundfont-gm espeak-ng`
    for what is asked of them.

    \b
    Examples:
      audioldm data prepare rendered
      audioldm data prepare rendered --notes 0 --speech 0 --tones 500 -o data/raw/tones.jsonl
    """
    refuse_overwrite(out, force)
    from audioldm.datasets.prepare import made
    from audioldm.datasets.prepare import notes as played
    from audioldm.datasets.prepare import speech as spoken
    from audioldm.datasets.prepare import tones as computed

    if min(notes, tones, speech) < 0 or notes + tones + speech == 0:
        raise AudioLDMError(
            f"{notes} notes, {tones} tones, {speech} sentences: nothing to make.", "Ask for some."
        )
    sounds = played.sounds(notes, seed, soundfont) if notes else []
    sounds += computed.sounds(tones, seed) + spoken.sounds(speech, seed)
    with bar("made", len(sounds)) as step:
        rows, findings = made.write(sounds, to, on_sound=step)
    finish(rows, findings, out, as_json)


def composed(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="JSONL...", help="Manifests whose clips are used.")
    ],
    out: Out = Path("data/raw/composed.jsonl"),
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where the 16 kHz FLAC files go.")] = Path(
        "data/raw/composed"
    ),
    scenes: Annotated[int, typer.Option("-n", "--scenes", help="How many.")] = 1500,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Scenes of 2 to 5 s from the clips of manifests: "a dog barking while rain falls", "three knocks, then a door".

    Each manifest is drawn from as often as each other; name one twice to hear more of it.   A scene and its clips share
    a split; its licence and authors are those of all its clips.   The same command again goes on where it stopped.

    \b
    Examples:
      audioldm data prepare composed data/raw/esc10.jsonl data/raw/opensounds.jsonl
      audioldm data prepare composed data/raw/mine.jsonl -n 200 --seed 1 -o data/raw/scenes.jsonl
    """
    refuse_overwrite(out, force)
    from audioldm.datasets import manifest
    from audioldm.datasets.prepare import made
    from audioldm.datasets.prepare import scenes as source

    if scenes < 1:
        raise AudioLDMError(f"scenes={scenes} is not a number of scenes.", "Use 1 or more.")
    rows = [manifest.read(path) for path in manifests]
    with bar("chosen", scenes) as step:
        sounds = source.sounds(rows, scenes, seed, on_scene=step)
    with bar("made", len(sounds)) as step:
        made_rows, findings = made.write(sounds, to, on_sound=step)
    finish(made_rows, findings, out, as_json)
