"""ESC-10: 400 clips of 5 s in 10 classes and 5 folds.   K. J. Piczak, "ESC: Dataset for Environmental Sound
Classification", ACM Multimedia 2015; CC BY 3.0; sounds from Freesound.
"""

import re
from pathlib import Path

from audioldm.datasets.manifest import Row, split_of
from audioldm.errors import AudioLDMError

LICENCE = "CC-BY-3.0"
ATTRIBUTION = "LICENSE-and-attribution.md"

CAPTIONS: dict[str, tuple[str, ...]] = {
    "Dog bark": (
        "a dog barking", "a dog barks", "the sound of a dog barking", "dog barking", "barking of a dog",
        "a recording of a barking dog", "a dog is barking",
    ),
    "Rain": (
        "rain", "rain falling", "the sound of rain", "rain is falling", "falling rain", "a recording of rain",
        "the noise of falling rain",
    ),
    "Sea waves": (
        "sea waves", "waves of the sea", "the sound of ocean waves", "waves on the shore", "the sea with waves",
        "a recording of sea waves", "ocean waves rolling in",
    ),
    "Baby cry": (
        "a baby crying", "a baby cries", "the sound of a crying baby", "a baby is crying", "an infant crying",
        "a recording of a baby crying", "crying of a baby",
    ),
    "Clock tick": (
        "a clock ticking", "a ticking clock", "the ticking of a clock", "a clock ticks", "the sound of a clock ticking",
        "a recording of a ticking clock", "clock ticking",
    ),
    "Person sneeze": (
        "a person sneezing", "a person sneezes", "someone sneezes", "a sneeze", "the sound of a sneeze",
        "a recording of a person sneezing", "somebody sneezing",
    ),
    "Helicopter": (
        "a helicopter", "the sound of a helicopter", "helicopter noise", "a helicopter's rotor",
        "the chopping of helicopter blades", "a recording of a helicopter", "the engine and blades of a helicopter",
    ),
    "Chainsaw": (
        "a chainsaw", "a chainsaw running", "the sound of a chainsaw", "chainsaw noise", "the motor of a chainsaw",
        "a recording of a chainsaw", "a chainsaw is running",
    ),
    "Rooster": (
        "a rooster crowing", "a rooster crows", "the crow of a rooster", "a cock crowing", "the sound of a rooster",
        "a recording of a rooster crowing", "a rooster is crowing",
    ),
    "Fire crackling": (
        "fire crackling", "a crackling fire", "the crackling of a fire", "a fire crackles", 
        "the sound of a burning fire", "a recording of a crackling fire", "a fire burning and crackling",
    ),
}  # fmt: skip
"""Class -> phrasings that hold for every clip of it: no place, number, distance or loudness."""

CLIP = re.compile(r"(?P<fold>\d)-(?P<freesound>\d+)-(?P<take>[A-Z])\.(ogg|wav|flac)")
CREDIT = re.compile(
    r"^- \*\*\[(?P<file>[^\]]+)\].*clip derived from \[(?P<title>.*)\]\(.*\) by \*(?P<author>[^*]+)\*"
)


def authors(folder: Path) -> dict[str, str]:
    """File name -> who recorded it, from the data set's own attribution list (empty if the list is not there)."""
    path = folder / ATTRIBUTION
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = (CREDIT.match(line) for line in lines)
    return {hit["file"]: f"{hit['author']} (Freesound), ESC-10 by K. J. Piczak" for hit in found if hit}


def rows(
    folder: str | Path, *, test_fold: int = 4, val_fold: int | None = None, val: float = 0.1
) -> list[Row]:
    """Every clip below ``folder``; one fold is the test set, and either one fold or a share ``val`` of the other folds'
    recordings is for validation.   All clips of one Freesound recording share a split.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise AudioLDMError(f"There is no folder {folder}.", "Pass --from with ESC-10's folder.")
    credit = authors(folder)
    out = []
    for path in sorted(folder.glob("[0-9][0-9][0-9] - */*")):
        name = path.parent.name.split(" - ", 1)[1]
        hit = CLIP.fullmatch(path.name)
        if hit is None or name not in CAPTIONS:
            continue
        fold = int(hit["fold"])
        group = f"freesound/{hit['freesound']}"
        split = "test" if fold == test_fold else "val" if fold == val_fold else "train"
        if split == "train" and val_fold is None:
            split = split_of(group, val=val, test=0.0)
        out.append(
            Row(
                path=str(path), captions=CAPTIONS[name], labels=(name.lower(),), split=split, licence=LICENCE,
                source="esc10", author=credit.get(path.name, "ESC-10 by K. J. Piczak"), fold=fold, group=group,
            )
        )  # fmt: skip
    if not out:
        raise AudioLDMError(
            f"{folder} holds no ESC-10 clips.",
            "Pass the folder that holds '001 - Dog bark' and its neighbours.",
        )
    return out
