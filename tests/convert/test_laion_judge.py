"""LAION's own CLAP file as an embedder."""

import shutil

import pytest
import torch
from originals import clap_state, prefixed

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.clap import Clap


def test_a_laion_file_hears_and_reads_as_its_towers_do(pipe, vocabulary, tmp_path):
    state = prefixed(clap_state(pipe.clap), "module.")
    state["module.text_branch.embeddings.position_ids"] = torch.arange(514)[
        None
    ]  # files before transformers 4.31
    path = tmp_path / "630k.pt"
    torch.save({"epoch": 3, "name": "x", "state_dict": state}, path)
    shutil.copytree(vocabulary, tmp_path / "tokenizer")
    embedder = Clap(path)
    wave = 0.3 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(embedder.embed(wave).rows, pipe.clap.embed_audio(wave[None, None], 48000))
        torch.testing.assert_close(embedder.embed_text(["a dog"]), pipe.clap.embed_text(["a dog"]))
    assert embedder.name == "clap-laion"


def test_another_file_is_no_clap(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)
    with pytest.raises(AudioLDMError, match="no known checkpoint"):
        Clap(path)
