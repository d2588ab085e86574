"""CLAP: text and sound in one space, from any of its published files.   N samples, D width."""

from pathlib import Path

import torch
from torch import Tensor

from audioldm.convert.hub import fetch
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import Embeddings, checked
from audioldm.evaluation.embedders.weights import digest
from audioldm.nets.clap import SmallClap
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.pipeline.model_folder import load_clap

WINDOW = 10.0
"""seconds; a longer clip is embedded in consecutive windows, never in a random one"""
HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "model.safetensors",
)


class Clap:
    """``path`` is a folder or a hub id of transformers' ClapModel (laion/clap-htsat-unfused and kin), a LAION ``.pt``
    without fusion (630k-audioset-best.pt) with RoBERTa's vocab.json and merges.txt in ``tokenizer`` beside it, or our
    model.

    A CLAP that conditioned or ranked the clips must not score them; ours is for tests and curves.
    """

    by_patch = False

    def __init__(self, path: str | Path | None) -> None:
        if path is None:
            raise AudioLDMError(
                "The embedder clap needs a folder of weights: config.json and model.safetensors of a ClapModel.",
                "Give --embedder clap=laion/clap-htsat-unfused (fetched from the hub once), or clap=FOLDER.",
            )
        folder = Path(path) if Path(path).exists() else of_hub(str(path))
        if folder.is_file():
            self.clap: PretrainedClap | SmallClap = laion(folder)
            self.name, file = "clap-laion", folder
        elif (folder / "audio_encoder").is_dir():
            self.clap = load_clap(folder)
            self.name = "clap-small" if isinstance(self.clap, SmallClap) else "clap"
            file = next((folder / "audio_encoder").glob("*.safetensors"))
        else:
            self.clap, self.name, file = *pretrained(folder), folder / "model.safetensors"
        self.rate, self.dim = self.clap.rate, self.clap.dim
        self.sha256 = digest(file)
        self.front = f"clap/1: consecutive windows of {WINDOW:g} s"

    @torch.no_grad()
    def embed(self, wave: Tensor) -> Embeddings:
        """Unit vectors of the wave's windows; a rest below 0.1 s is left out."""
        parts = checked(wave).split(round(WINDOW * self.rate))
        parts = [part for i, part in enumerate(parts) if i == 0 or len(part) >= self.rate // 10]
        return Embeddings(torch.cat([self.clap.embed_audio(part[None, None], self.rate) for part in parts]))

    @torch.no_grad()
    def embed_text(self, captions: list[str]) -> Tensor:
        """Unit vectors (q, D), each caption by itself, so that its neighbours' lengths change nothing."""
        return torch.cat([self.clap.embed_text([caption]) for caption in captions])


def of_hub(name: str) -> Path:
    """The folder of the ClapModel ``owner/name`` in the hub's cache, fetched if it is not there."""
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise AudioLDMError(f"There is no {name}.", "Name a folder, a LAION .pt, or a hub id owner/name.")
    return fetch(name, HUB_FILES, instead=Path(name)).folder


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


def laion(path: Path) -> PretrainedClap:
    """LAION's own file in transformers' classes, by the same strict rules as the CLAP inside AudioLDM's checkpoints."""
    from transformers import ClapAudioModelWithProjection, ClapConfig, ClapTextModelWithProjection

    from audioldm.convert.build import fill
    from audioldm.convert.clap import clap_config, convert, is_clap, towers
    from audioldm.convert.files import read_weights
    from audioldm.convert.folder import load_any_tokenizer

    content = read_weights(path)
    tensors = {
        key.removeprefix("module."): value
        for key, value in content.get("state_dict", content).items()
        if isinstance(value, Tensor) and not key.endswith("embeddings.position_ids")
    }
    if not is_clap(tensors):
        raise AudioLDMError(f"{path} is no CLAP of LAION.", "Name its .pt file.")
    config, (text, audio) = ClapConfig(**clap_config(tensors)), towers(convert(tensors))
    return PretrainedClap(
        fill(lambda: ClapTextModelWithProjection(config.text_config), text, path),
        load_any_tokenizer(path.parent / "tokenizer"),
        fill(lambda: ClapAudioModelWithProjection(config.audio_config), audio, path),
    ).eval()
