"""CLAP at a tiny size in transformers' own classes, and the networks that come in packages."""

import importlib.util
import math
import shutil
from pathlib import Path

import pytest
import torch

from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders import EMBEDDERS, load_embedder
from audioldm.evaluation.embedders.clap import Clap

needs_speechmos = pytest.mark.skipif(
    importlib.util.find_spec("speechmos") is None, reason='DNSMOS is not here: pip install "audioldm[eval]"'
)


def noise(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(round(seconds * rate), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ClapModel with random weights and a real processor, saved as the hub's folders are."""
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        ClapTextConfig,
    )

    from audioldm.nets.clap import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a dog barking", "rain falling"], size=80)
    text = ClapTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, pad_token_id=tokenizer.pad_token_id, max_position_embeddings=100,
    )  # fmt: skip
    audio = ClapAudioConfig(
        hidden_size=64, patch_embeds_hidden_size=8, depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        enable_fusion=False, spec_size=256,
    )  # fmt: skip
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    folder = tmp_path_factory.mktemp("clap")
    ClapModel(config).save_pretrained(folder)
    ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc"), tokenizer).save_pretrained(folder)
    return folder


def test_clap_hears_long_clips_the_same_way_twice(clap_folder: Path) -> None:
    judge = load_embedder("clap", clap_folder)
    wave = noise(25.0, 48000)
    first, second = judge.embed(wave), judge.embed(wave)
    assert first.rows.shape == (3, 12)
    assert torch.equal(first.rows, second.rows), "a random crop would differ"
    torch.testing.assert_close(first.rows.norm(dim=1), torch.ones(3))
    assert (judge.rate, judge.dim, judge.name) == (48000, 12, "clap")


def test_clap_is_found_in_the_hubs_cache_by_its_id(
    clap_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        AudioLDMError, match=r"someone/clap is not in the cache.*copy the files of text_encoder"
    ):
        load_embedder("clap", "someone/clap")
    repo, commit = tmp_path / "models--someone--clap", "a" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    place = repo / "snapshots" / commit
    shutil.copytree(clap_folder, place)
    judge = load_embedder("clap", "someone/clap")
    wave = noise(1.0, 48000)
    assert torch.equal(judge.embed(wave).rows, Clap(clap_folder).embed(wave).rows)
    with pytest.raises(AudioLDMError, match="/x/clap is not a model folder, a checkpoint, or a hub id"):
        load_embedder("clap", "/x/clap")


def test_clap_reads_a_caption_the_same_alone_and_among_others(clap_folder: Path) -> None:
    judge = Clap(clap_folder)
    both = judge.embed_text(["a dog", "rain falling on a dog barking"])
    assert torch.equal(judge.embed_text(["a dog"])[0], both[0])
    assert not torch.equal(both[0], both[1])


def test_the_models_own_clap_goes_by_another_name(tiny_model: Path) -> None:
    judge = Clap(tiny_model)
    assert judge.name == "clap-small"
    assert judge.embed(noise(1.0, 16000)).rows.shape == (1, 16)
    with pytest.raises(AudioLDMError, match="holds a UNet2DConditionModel, no ClapModel"):
        Clap(tiny_model / "unet")


@needs_speechmos
def test_dnsmos_calls_noise_bad_and_refuses_nan() -> None:
    judge = load_embedder("dnsmos")
    heard = judge.embed(noise(3.0, 16000)).rows[0]
    assert heard.shape == (4,)
    assert all(
        0.9 < value < 1.6 for value in heard[:3].tolist()
    )  # white noise: 1.03, 1.01, 1.02 as published
    with pytest.raises(AudioLDMError, match="not finite"):
        judge.embed(torch.full((16000,), math.nan))


def test_the_list_tells_what_is_ready_and_what_lacks(command, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("AUDIOLDM_WEIGHTS", str(tmp_path))
    assert command("evaluate", "embedders") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in EMBEDDERS)
    assert "vggish-10086976.pth" in out
