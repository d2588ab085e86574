"""Every key of the published checkpoint has a place in our nets, and one that is not published has none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from originals import published_keys
from transformers import ClapConfig, ClapModel

from audioldm.convert import conditioners, first_stage, unet
from audioldm.convert.checkpoint import sort
from audioldm.convert.names import below, rename
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import COMPUTED
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import UNetSizes, build_unet
from audioldm.nets.vae import build_vae


@pytest.fixture(scope="module")
def published() -> dict:
    return {key: torch.empty(shape, device="meta") for key, shape in published_keys()}


def shapes(state) -> dict:
    return {key: tuple(value.shape) for key, value in state.items()}


def of(build) -> dict:
    with torch.device("meta"):
        return shapes(build().state_dict())


def test_the_list_is_whole(published):
    assert len(published) == 1520
    unet_values = sum(v.numel() for k, v in published.items() if k.startswith(unet.PREFIX))
    assert unet_values == pytest.approx(185.04e6, abs=5e3)


def test_s_full_is_our_default_unet(published):
    state = sort(published)["unet"]
    ours, shape = unet.convert(state)
    assert shape == UNetSizes(attention=(False, True, True, True), contexts=(None,))
    assert shapes(ours) == of(build_unet)
    with torch.device("meta"):
        built = unet.build(shape, unet.heads(shape.channels))
    assert tuple(built.config.attention_head_dim) == (4, 8, 12, 20)
    assert built.config.class_embeddings_concat


def test_s_full_is_our_default_vae_and_vocoder(published):
    state = sort(published)
    vae = first_stage.vae_net(state["vae"])
    assert vae.config == {"channels": (128, 256, 512), "latent_channels": 8, "layers": 2, "groups": 32}
    assert shapes(vae.state) == of(build_vae)
    vocoder = first_stage.vocoder_net(state["vocoder"], Path("none"))
    assert [vocoder.config[k] for k in ("upsample", "kernels", "rate")] == [
        (5, 4, 2, 2, 2),
        (3, 7, 11),
        16000,
    ]
    assert vocoder.config["dilations"] == ((1, 3, 5),) * 3
    assert shapes(vocoder.state) == of(build_hifigan)


def test_s_full_has_transformers_default_clap(published):
    state = below(published, "cond_stage_model.model.")
    config = ClapConfig(**conditioners.clap_config(state))
    for key in ("hidden_size", "depths", "num_attention_heads", "window_size", "patch_embeds_hidden_size"):
        ours, theirs = getattr(config.audio_config, key), getattr(ClapConfig().audio_config, key)
        assert np.array_equal(ours, theirs), key
    for key in ("num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"):
        assert getattr(config.text_config, key) == getattr(ClapConfig().text_config, key)
    assert config.text_config.layer_norm_eps == 1e-5, "RoBERTa's"
    ours = shapes(conditioners.convert_clap(state))
    scales = {"logit_scale_a", "logit_scale_t"}
    theirs = {
        k: v for k, v in of(lambda: ClapModel(config)).items() if k not in scales and not k.endswith(COMPUTED)
    }
    assert ours == theirs


def translate(state: dict) -> None:
    parts = sort(state)
    unet.convert(parts["unet"])
    first_stage.vae_net(parts["vae"])
    first_stage.vocoder_net(parts["vocoder"], Path("none"))
    conditioners.convert_clap(below(state, "cond_stage_model.model."), "cond_stage_model.model.")


@pytest.mark.parametrize(
    "key",
    [
        "model.diffusion_model.input_blocks.4.0.extra.weight",
        "first_stage_model.encoder.strange.weight",
        "first_stage_model.vocoder.conv_mid.bias",
        "cond_stage_model.model.audio_branch.layers.0.blocks.0.attn.new.weight",
        "model_emma.diffusion_model",
    ],
)
def test_a_key_that_no_rule_explains_is_named(published, key):
    with pytest.raises(AudioLDMError) as error:
        translate({**published, key: torch.empty(3, device="meta")})
    assert repr(key) in str(error.value)


def test_a_table_goes_both_ways_leaves_out_by_name_and_refuses_twins():
    one = torch.zeros(1)
    names = {"a.*.b.*": "x.*.y.*", "c.**": "z.**"}
    state = {"a.3.b.14.weight": one, "c.d.e.bias": one}
    renamed = rename({**state, "f.buffer": one}, names, part="net", drop=r"f\..+")
    assert renamed == {"x.3.y.14.weight": one, "z.d.e.bias": one}
    assert rename(renamed, names, part="net", back=True) == state
    with pytest.raises(AudioLDMError, match=r"no rule explains: 'a\.b\.weight'"):
        rename({"a.b.weight": one}, names, part="net")
    with pytest.raises(AudioLDMError, match="under two names"):
        rename({"a.w": one, "b.w": one}, {"a": "c", "b": "c"}, part="net")
