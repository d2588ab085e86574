"""CLAP as a judge: transformers' ClapModel from a folder, with text and sound in one space.   N samples, D width."""

from pathlib import Path

import torch
from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.protocol import Heard
from audioldm.evaluation.embedders.weights import digest
from audioldm.nets.clap import SmallClap
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.pipeline.model_folder import load_clap

WINDOW = 10.0
"""seconds that CLAP hears at once; a longer clip is heard in consecutive windows, never in a random one"""


class ClapJudge:
    """``path`` is a folder of transformers' ClapModel (laion/clap-htsat-unfused and kin), or a model folder of ours.

    A CLAP that conditioned or ranked the clips must not judge them; ours is for tests and curves.
    """

    by_patch = False

    def __init__(self, path: str | Path | None) -> None:
        if path is None:
            raise AudioLDMError(
                "The embedder clap needs a folder of weights: config.json and model.safetensors of a ClapModel.",
                "Download laion/clap-htsat-unfused once and give --embedder clap=FOLDER.",
            )
        folder = Path(path)
        if (folder / "audio_encoder").is_dir():
            self.clap: PretrainedClap | SmallClap = load_clap(folder)
            self.name = "clap-small" if isinstance(self.clap, SmallClap) else "clap"
            file = next((folder / "audio_encoder").glob("*.safetensors"))
        else:
            self.clap, self.name, file = *pretrained(folder), folder / "model.safetensors"
        self.rate, self.dim = self.clap.rate, self.clap.dim
        self.sha256 = digest(file)
        self.front = f"clap/1: consecutive windows of {WINDOW:g} s"

    @torch.no_grad()
    def listen(self, wave: Tensor) -> Heard:
        """Unit vectors of the wave's windows; a rest below 0.1 s is left out."""
        parts = wave.float().split(round(WINDOW * self.rate))
        kept = [part for i, part in enumerate(parts) if i == 0 or len(part) >= self.rate // 10]
        return Heard(torch.cat([self.clap.embed_audio(part[None, None], self.rate) for part in kept]))

    @torch.no_grad()
    def read(self, captions: list[str]) -> Tensor:
        """Unit vectors (q, D), each caption by itself, so that its neighbours' lengths change nothing."""
        return torch.cat([self.clap.embed_text([caption]) for caption in captions])


def pretrained(folder: Path) -> tuple[PretrainedClap, str]:
    """A ClapModel and its processor from a local folder."""
    from transformers import ClapModel, ClapProcessor

    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise AudioLDMError(
            f"{folder} holds no config.json with model.safetensors.", "Give the folder of a ClapModel."
        )
    model = ClapModel.from_pretrained(folder, local_files_only=True).eval()
    processor = ClapProcessor.from_pretrained(folder, local_files_only=True)
    return PretrainedClap.from_clap(model, processor), "clap"
