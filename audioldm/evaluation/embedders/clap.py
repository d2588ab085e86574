"""CLAP: text and sound in one space, from any of its published files.   N samples, D width."""

from pathlib import Path

import torch
from torch import Tensor

from audioldm.convert.reference import find_part
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embeddings, checked
from audioldm.nets.clap import MelEncoder
from audioldm.paths import sha256

WINDOW = 10.0  # seconds heard at once; a longer clip is heard in consecutive windows, never in a random one


class Clap:
    """``path`` is a folder or a hub id of transformers' ClapModel (laion/clap-htsat-unfused and kin), a LAION ``.pt``
    without fusion (630k-audioset-best.pt) with RoBERTa's vocab.json and merges.txt in ``tokenizer`` beside it, or our
    model.

    A CLAP that conditioned or ranked the clips must not score them; ours is for tests and curves.
    """

    by_patch = False
    front = f"clap/1: consecutive windows of {WINDOW:g} s"

    def __init__(self, path: str | Path | None) -> None:
        if path is None:
            what = "The embedder clap needs a folder of weights: config.json and model.safetensors of a ClapModel."
            hint = "Give --embedder clap=laion/clap-htsat-unfused (fetched once), or clap=FOLDER."
            raise AudioLDMError(what, hint)
        part = find_part(path, "clap")
        self.clap = part.open()
        self.name = "clap-laion" if part.path.is_file() else "clap"
        if isinstance(self.clap.audio_encoder, MelEncoder):
            self.name = "clap-small"
        self.rate, self.dim, self.sha256 = self.clap.rate, self.clap.dim, sha256(part.files[-1])

    @torch.no_grad()
    def embed(self, wave: Tensor) -> Embeddings:
        """Unit vectors of the wave's windows; a rest below 0.1 s is left out."""
        windows = torch.split(checked(wave), round(WINDOW * self.rate))
        parts = [part for i, part in enumerate(windows) if i == 0 or len(part) >= self.rate // 10]
        return Embeddings(torch.cat([self.clap.embed_audio(part[None, None], self.rate) for part in parts]))

    @torch.no_grad()
    def embed_text(self, captions: list[str]) -> Tensor:
        """Unit vectors (q, D), each caption by itself, so that its neighbours' lengths change nothing."""
        return torch.cat([self.clap.embed_text([caption]) for caption in captions])
