"""The nets that come with the embedded model, one a map and one for sounds, and whose they are."""

from pathlib import Path

from audioldm.nets.folder import read_json

SHIPPED = Path(__file__).parents[1] / "_embedded" / "control"
LIKE = "like"
"""the audio prompt's folder; every other is named as its map"""


def shipped(name: str, unet: str | None, *, folder: Path = SHIPPED) -> Path | None:
    """The folder of the net for map ``name`` or LIKE, if it was trained on the U-Net whose weights have this sha256.

    None for every other model: a net says nothing of use to a U-Net that it did not learn with.
    """
    place = folder / name
    if not (place / "config.json").is_file():
        return None
    return place if read_json(place / "config.json").get("base") == unet else None
