"""Captions of sounds, and of two captions the better one.   B batch, N samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as nnf

from audioldm.datasets.audio_text import AudioText
from audioldm.datasets.decode import decode
from audioldm.datasets.manifest import Row
from audioldm.errors import AudioLDMError
from audioldm.nets.captioner import Captioner, sound_features
from audioldm.nets.clap import TwoTowers, load_in_space
from audioldm.signal.level import normalise_peak
from audioldm.spec import SPECS

SECONDS = 5.12  # length of the windows that CLAP and the captioner learned from
QUIET = 0.03  # a window whose peak is so small a part of its sound's is not captioned
LONGEST = 120.0  # seconds of a file that are listened to
NEAR = 3.0  # nats a token that a caption gains by CLAP's cosine to the sound; chosen on held-out clips


@dataclass(frozen=True)
class Caption:
    """What is said of a sound, how well it fits (0 to 1, by the matching head), and the second that it was said of."""

    text: str
    match: float
    start: float = 0.0


@dataclass(frozen=True)
class Captioning:
    """A captioner with the CLAP that it reads."""

    captioner: Captioner
    clap: TwoTowers
    beams: int = 8

    @staticmethod
    def load(folder: Path, clap: TwoTowers, *, beams: int = 8) -> "Captioning":
        """From the folder that a recipe exported.   Raises AudioLDMError where it was trained on another CLAP."""
        return Captioning(load_in_space(folder, Captioner, clap, "caption/captioner"), clap, beams)

    @torch.no_grad()
    def __call__(self, waves: Tensor) -> list[Caption]:
        """Of waves (B, 1, N) at CLAP's rate, a caption each: of the search's, the likeliest that CLAP finds near."""
        vector, frames = sound_features(self.clap, normalise_peak(waves.to(self.clap.device)))
        sequence = self.captioner.sequence(vector, frames)
        texts = self.choose(vector, *self.captioner.candidates(sequence, beams=self.beams))
        return [Caption(*pair) for pair in zip(texts, self.matches(sequence, texts), strict=True)]

    def choose(self, vector: Tensor, tokens: Tensor, likely: Tensor) -> list[str]:
        """Of candidates (B, beams, L) one for each sound's vector (B, D)."""
        texts = self.captioner.texts(self.clap.tokenizer, tokens.flatten(0, 1))
        near = (self.clap.embed_text(texts).unflatten(0, likely.shape) @ vector[:, :, None])[:, :, 0]
        best = (likely + NEAR * near).argmax(1).tolist()
        return [texts[row * self.beams + place] for row, place in enumerate(best)]

    @torch.no_grad()
    def matches(self, sequence: Tensor, texts: Sequence[str]) -> list[float]:
        tokens = self.captioner.tokens(self.clap.tokenizer, texts)
        return [float(logit.sigmoid()) for logit in self.captioner.matching(sequence, tokens)]

    def of_file(self, path: Path | str) -> Caption:
        """The best of the captions of the file's windows.   Raises AudioLDMError for one without sound."""
        rate = self.clap.rate
        wave = decode(path, rate, seconds=LONGEST)
        peak, size = wave.abs().max() if len(wave) else 0.0, int(SECONDS * rate)
        if peak < 1e-4:
            raise AudioLDMError(f"{path} is silent.", "Leave it out.", code=1)
        windows = nnf.pad(wave, (0, -len(wave) % size)).unflatten(0, (-1, size))
        loud = (windows.abs().amax(1) >= QUIET * peak).nonzero()[:, 0]
        captions = zip(self(windows[loud][:, None]), loud.tolist(), strict=True)
        best, place = max(captions, key=lambda pair: pair[0].match)
        return replace(best, start=place * SECONDS)


def better_captions(
    captioning: Captioning, rows: Sequence[Row], *, advance: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[Row, Caption, float]]:
    """Rows with the better of two captions, the new one, and the old one's match.   CapFilt (arXiv:2201.12086)."""
    spec = next(spec for spec in SPECS.values() if spec.rate == captioning.clap.rate)
    clips = AudioText(rows, spec, SECONDS, seed=0, captions="first")
    for part in torch.arange(len(rows)).split(64):
        waves, some = torch.stack([clips[(place, 0)][0] for place in part.tolist()]), [rows[i] for i in part]
        features = sound_features(captioning.clap, normalise_peak(waves.to(captioning.clap.device)))
        sequence = captioning.captioner.sequence(*features)
        old = captioning.matches(sequence, [row.captions[0] for row in some])
        for row, caption, fits in zip(some, captioning(waves), old, strict=True):
            yield replace(row, captions=(caption.text,)) if caption.match > fits else row, caption, fits
        advance(len(part))
