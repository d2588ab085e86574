"""Both CLAPs behind one interface; conditions and their absence."""

import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

from audioldm.batch import Condition
from audioldm.nets.clap import MAX_TOKENS, SmallClap, build_small_clap, train_tokenizer
from audioldm.nets.condition import drop_condition, mix_modalities
from audioldm.nets.clap import PretrainedClap

TEXTS = ["a dog barking", "rain falling on a roof", "a low tone"]


@pytest.fixture(scope="module")
def small() -> SmallClap:
    torch.manual_seed(0)
    return build_small_clap(
        train_tokenizer(TEXTS, size=120), dim=32, width=16, layers=1, widths=(8, 16)
    ).eval()


@pytest.fixture(scope="module")
def pretrained() -> PretrainedClap:
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
    return PretrainedClap.from_clap(ClapModel(config).eval(), ClapProcessor(extractor, tokenizer))


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


def test_small_clap_saves_and_loads_exactly(small: SmallClap, tmp_path):
    small.save(tmp_path)
    again = SmallClap.load(tmp_path)
    wave = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.embed_text(TEXTS), small.embed_text(TEXTS))
        assert torch.equal(again.embed_audio(wave), small.embed_audio(wave))


def test_a_very_long_prompt_is_cut_and_the_empty_one_is_allowed(small: SmallClap):
    with torch.no_grad():
        assert small.embed_text(["dog " * 500, ""]).isfinite().all()


def test_drop_replaces_whole_rows_at_its_rate_and_only_by_the_null():
    g = torch.Generator().manual_seed(0)
    film = torch.arange(1.0, 4001.0)[:, None].repeat(1, 3)
    null = Condition(film=torch.zeros(1, 3))
    kept = drop_condition(Condition(film=film), null, 0.1, g).film
    gone = (kept == 0).all(1)
    assert torch.equal(kept[~gone], film[~gone])
    assert gone.float().mean() == pytest.approx(0.1, abs=0.015)  # 3 standard errors of 4000 draws
    assert torch.equal(drop_condition(Condition(film=film), null, 0.0, g).film, film)
    tokens = drop_condition(
        Condition(film, torch.ones(4000, 2, 3), torch.ones(4000, 2)),
        Condition(torch.zeros(1, 3), torch.zeros(1, 2, 3), torch.zeros(1, 2)),
        0.5,
        torch.Generator().manual_seed(1),
    )
    assert torch.equal((tokens.film == 0).all(1), (tokens.tokens == 0).flatten(1).all(1))
    assert torch.equal((tokens.film == 0).all(1), (tokens.mask == 0).all(1))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_text_prob_is_the_share_of_text(p: float):
    text, audio = torch.ones(2000, 2), torch.zeros(2000, 2)
    mixed = mix_modalities(text, audio, p, torch.Generator().manual_seed(0))
    assert mixed[:, 0].mean() == pytest.approx(p, abs=0.035)  # 3 standard errors of 2000 draws
