"""What is mixed into the prompt, and how many candidates compete for each clip."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audioldm.errors import AudioLDMError

if TYPE_CHECKING:
    from torch import Tensor

    from audioldm.batch import Condition
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.pipeline.outputs import Clip


@dataclass(frozen=True)
class Mixing:
    """A sound to be like, a second prompt, and the number of candidates."""

    like: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:SHARE]",
            help="Sound like this file; with a prompt, SHARE (0 to 1) is the file's part.  [default: 0.5, alone 1]",
        ),
    ] = None
    towards: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT[:SHARE,...]",
            help="From the prompt towards this one: a clip of the same seed for each SHARE.  [default: 0.5]",
        ),
    ] = None
    rerank: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="Make K candidates for each clip and keep the one that CLAP finds nearest to the prompt.",
        ),
    ] = 1

    def check(self, *, alone: bool, scheduled: bool = False) -> None:
        """Refuse what no run could use, before anything heavy; ``alone`` says that there is no prompt."""
        if scheduled and (self.like or self.towards or self.rerank > 1):
            raise AudioLDMError(
                "--schedule does not go with --like, --towards or --rerank.", "Leave one out."
            )
        if self.rerank < 1:
            raise AudioLDMError(f"rerank={self.rerank} is not a number of candidates.", "Use 1 or more.")
        if self.towards is not None and alone:
            raise AudioLDMError(f"towards={self.towards!r} has no prompt to come from.", "Give one.")
        if self.like is not None:
            path, share = self.reference(alone=alone)
            if not path.is_file():
                raise AudioLDMError(f"like={path} is not a file.", "Name a sound file, such as ref.wav.")
            if alone and share != 1:
                raise AudioLDMError(
                    f"like={self.like} leaves {1 - share:g} to a prompt.", "Give one, or no share."
                )
        self.shares()

    def reference(self, *, alone: bool) -> tuple[Path, float]:
        """The file to be like and its share."""
        name, shares = split(self.like or "", "like", [1.0 if alone else 0.5])
        if len(shares) > 1:
            raise AudioLDMError(f"like={self.like} has {len(shares)} shares.", "Give one.")
        return Path(name), shares[0]

    def shares(self) -> tuple[str, list[float]]:
        """The second prompt and the places on the way to it."""
        return ("", [0.0]) if self.towards is None else split(self.towards, "towards", [0.5])

    def plan(self, clips: "list[Clip]") -> "list[Clip]":
        """``clips`` for each share, with names that tell them apart."""
        from audioldm.pipeline.outputs import plain

        if self.like is not None:
            path, _ = self.reference(alone=False)
            named, mark = f"like {path.stem}", f"like_{plain(path.stem, 24)}"
            clips = [
                replace(clip, mark=mark) if clip.prompt else replace(clip, named=named) for clip in clips
            ]
        if self.towards is None:
            return clips
        other, shares = self.shares()
        return [
            replace(
                clip,
                mark="_".join(filter(None, (clip.mark, f"to_{plain(other, 24)}_{share:g}"))),
                share=share,
            )
            for share in shares
            for clip in clips
        ]

    def mixer(self, pipe: "AudioLDM") -> "Mixer":
        """What tells each clip's condition; reads the file of ``like``."""
        from audioldm.pipeline.conditions import check_can_hear

        if self.rerank > 1:
            check_can_hear(pipe, "--rerank")
        return Mixer(pipe, self, heard(pipe, self.reference(alone=False)[0]) if self.like else None)

    def settings(self, clip: "Clip") -> dict[str, Any]:
        """What a sidecar tells of it."""
        from audioldm.nets.folder import sha256

        told: dict[str, Any] = {}
        if self.towards is not None:
            told["towards"] = {"prompt": self.shares()[0], "share": clip.share}
        if self.like is not None:
            path, share = self.reference(alone=not clip.prompt)
            told["like"] = {"file": str(path), "sha256": sha256(path), "share": share}
        return told


@dataclass(frozen=True)
class Mixer:
    """From a clip to what the U-Net is told."""

    pipe: "AudioLDM"
    mixing: Mixing
    sound: "Tensor | None"

    def __call__(self, clip: "Clip") -> "str | Condition":
        """The prompt itself where nothing is mixed into it."""
        from audioldm.pipeline.conditions import between

        if self.sound is None and self.mixing.towards is None:
            return clip.prompt
        told = self.pipe.encode_text([clip.prompt])
        if self.mixing.towards is not None:
            other = self.pipe.encode_text([self.mixing.shares()[0]]).film
            told = between(self.pipe, told, other, clip.share) if other is not None else told
        if self.sound is not None:
            told = between(self.pipe, told, self.sound, self.mixing.reference(alone=not clip.prompt)[1])
        return told

    def asked(self, clip: "Clip") -> "Tensor":
        """The vector (1, D) that candidates are compared with."""
        told = self(clip)
        film = None if isinstance(told, str) else told.film
        return self.pipe.clap.embed_text([clip.prompt]) if film is None else film


def heard(pipe: "AudioLDM", path: Path) -> "Tensor":
    """CLAP's embedding (1, D) of a sound file."""
    from audioldm.datasets.decode import decode
    from audioldm.pipeline.conditions import check_can_hear, clap_of

    check_can_hear(pipe, "--like")
    try:
        wave = decode(path, pipe.spec.rate)
    except AudioLDMError as error:
        raise AudioLDMError(f"like: {error.message}", "Name a sound file that can be read.") from error
    if wave.numel() < pipe.spec.n_fft or not bool(wave.abs().max() > 0):
        raise AudioLDMError(
            f"like={path} is silent or shorter than {pipe.spec.n_fft} samples.", "Use another."
        )
    return clap_of(pipe, wave[None])


def split(text: str, option: str, default: list[float]) -> tuple[str, list[float]]:
    """A name and the shares behind its last colon.

    >>> split("wind:0,0.5", "towards", [0.5]), split("C:/a.wav", "like", [1.0])
    (('wind', [0.0, 0.5]), ('C:/a.wav', [1.0]))
    """
    name, colon, tail = text.rpartition(":")
    try:
        shares = [float(part) for part in tail.split(",")]
    except ValueError:
        name, shares = text, default
    if not colon:
        name, shares = text, default
    if not name.strip():
        raise AudioLDMError(f"{option}={text!r} is empty.", "Give a name, then perhaps a colon and a share.")
    if not all(math.isfinite(share) and 0 <= share <= 1 for share in shares):
        raise AudioLDMError(f"{option}={text!r}: a share is a number from 0 to 1.", "Use such as 0.6.")
    return name.strip(), list(dict.fromkeys(shares))
