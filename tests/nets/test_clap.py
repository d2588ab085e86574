"""Both CLAPs behind one interface."""

import copy

import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from audioldm.convert.folder import Folder, clap_of
from audioldm.nets.clap import MAX_TOKENS, TwoTowers, build_small_clap, train_tokenizer

TEXTS = ["a dog barking", "rain falling on a roof", "a low tone"]


@pytest.fixture(scope="module")
def small() -> TwoTowers:
    torch.manual_seed(0)
    return build_small_clap(
        train_tokenizer(TEXTS, size=120), dim=32, width=16, layers=1, widths=(8, 16)
    ).eval()


@pytest.fixture(scope="module")
def pretrained() -> TwoTowers:
    """transformers' real ClapModel at small size, with a real feature extractor and tokenizer."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, size=120)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "pad_token_id": tokenizer.pad_token_id, "projection_dim": 32,
        "max_position_embeddings": MAX_TOKENS + 2,
    }  # fmt: skip
    audio = {
        "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 32,
        "spec_size": 64, "num_mel_bins": 16, "window_size": 4, "projection_dim": 32, "enable_fusion": False,
    }  # fmt: skip
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=32)
    extractor = ClapFeatureExtractor(
        feature_size=16, max_length_s=1, truncation="rand_trunc", padding="repeatpad", frequency_max=14000
    )
    return TwoTowers.from_clap(ClapModel(config).eval(), tokenizer, extractor)


@pytest.mark.parametrize("which", ["small", "pretrained"])
def test_both_give_unit_vectors_of_one_width(which: str, request: pytest.FixtureRequest):
    clap = request.getfixturevalue(which)
    wave = torch.randn(2, 1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        text, audio = clap.embed_text(TEXTS), clap.embed_audio(wave, 16000)
    assert text.shape == (3, clap.dim) and audio.shape == (2, clap.dim)
    for rows in (text, audio):
        assert torch.allclose(rows.norm(dim=-1), torch.ones(len(rows)), atol=1e-6)


@pytest.mark.parametrize("which", ["small", "pretrained"])
def test_padding_does_not_move_a_prompt(which: str, request: pytest.FixtureRequest):
    clap = request.getfixturevalue(which)
    with torch.no_grad():
        alone, together = clap.embed_text(TEXTS[:1]), clap.embed_text(TEXTS)[:1]
    assert torch.allclose(alone, together, atol=1e-6)  # other matrix sizes round differently in float32


@pytest.mark.parametrize("which", ["small", "pretrained"])
def test_a_clap_saves_and_loads_exactly(which: str, request: pytest.FixtureRequest, tmp_path):
    clap = request.getfixturevalue(which)
    clap.save(tmp_path)
    again = clap_of(Folder(tmp_path))
    assert type(again) is type(clap)
    assert (again.dim, again.rate, again.device, again.dtype) == (
        clap.dim,
        clap.rate,
        clap.device,
        clap.dtype,
    )
    wave = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.embed_text(TEXTS), clap.embed_text(TEXTS))
        assert torch.equal(again.embed_audio(wave), clap.embed_audio(wave))


@pytest.mark.parametrize("which", ["small", "pretrained"])
def test_half_precision_stays_near_and_gives_float32(which: str, request: pytest.FixtureRequest):
    clap = request.getfixturevalue(which)
    half = copy.deepcopy(clap).to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    wave = 0.1 * torch.randn(2, 1, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, exact in (
            (half.embed_text(TEXTS), clap.embed_text(TEXTS)),
            (half.embed_audio(wave), clap.embed_audio(wave)),
        ):
            assert ours.dtype == torch.float32
            assert (ours * exact).sum(-1).min() > 0.99  # 8 bits of mantissa through a few layers


def test_a_very_long_prompt_is_cut_and_the_empty_one_is_allowed(small: TwoTowers):
    with torch.no_grad():
        assert small.embed_text(["dog " * 500, ""]).isfinite().all()
