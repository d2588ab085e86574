"""Models written as checkpoints of the original code."""

import pytest
import torch
from originals import published_keys

from audioldm.convert.original import original_state, shift_masks
from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM

QUICK = {"seconds": 0.64, "steps": 2}


def test_export_to_a_checkpoint_and_back_is_bit_equal(command, pipe, vocabulary, tmp_path):
    pipe.save_pretrained(tmp_path / "folder")
    (tmp_path / "tokenizer").symlink_to(vocabulary)
    assert command("export", tmp_path / "folder", "-o", tmp_path / "m.ckpt") == 0
    again = AudioLDM.from_pretrained(tmp_path / "m.ckpt")
    for part in ("unet", "vae", "vocoder", "clap"):
        ours, theirs = getattr(pipe, part).state_dict(), getattr(again, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items()), part
    assert again.vae.config.scaling_factor == pipe.vae.config.scaling_factor
    assert again.unet.config.attention_head_dim == pipe.unet.config.attention_head_dim
    assert command("export", tmp_path / "m.ckpt", "-o", tmp_path / "n.ckpt") == 0
    first, second = (
        torch.load(tmp_path / name, weights_only=True)["state_dict"] for name in ("m.ckpt", "n.ckpt")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    sounds = [p(["rain"], seeds=[1], **QUICK) for p in (pipe, again)]
    torch.testing.assert_close(*sounds, rtol=0, atol=1e-5)  # betas are float32 in the file


def test_the_published_size_has_exactly_the_published_keys_and_shapes(pipe):
    from dataclasses import replace

    from transformers import (
        ClapAudioConfig,
        ClapAudioModelWithProjection,
        ClapTextConfig,
        ClapTextModelWithProjection,
    )

    from audioldm.nets.clap import TwoTowers
    from audioldm.nets.hifigan import build_hifigan
    from audioldm.nets.unet import build_unet
    from audioldm.nets.vae import build_vae

    with torch.device("meta"):
        text = ClapTextModelWithProjection(ClapTextConfig())
        audio = ClapAudioModelWithProjection(ClapAudioConfig())
        unet, vae, vocoder = build_unet(), build_vae(), build_hifigan()
    published = replace(
        pipe, unet=unet, vae=vae, vocoder=vocoder, clap=TwoTowers(text, pipe.clap.tokenizer, audio)
    )
    state = original_state(published)
    expected = dict(published_keys())
    assert state.keys() == expected.keys()
    for key, shape in expected.items():
        assert tuple(state[key].shape) == shape, key


def test_masks_are_those_of_shifted_windows():
    from transformers import ClapAudioConfig, ClapAudioModel

    with torch.device("meta"):
        model = ClapAudioModel(ClapAudioConfig())
    masks = shift_masks(model.audio_encoder)
    mask = masks[
        "audio_branch.layers.2.blocks.1.attn_mask"
    ]  # 16 x 16 in windows of 8, shifted by 4: the first window is whole
    assert mask.shape == (4, 64, 64)
    assert not mask[0].any()
    assert set(mask.unique().tolist()) == {-100.0, 0.0}
    column = mask[1].view(8, 8, 8, 8)[:, :4, :, 4:]  # the right windows join the picture's two sides
    assert (column == -100).all()


def test_what_the_original_does_not_know_is_refused(command, tiny_model, tmp_path, capsys):
    assert command("export", tiny_model, "-o", tmp_path / "m.ckpt") == 2
    assert "has not the original's prediction and heads" in capsys.readouterr().err
    assert not (tmp_path / "m.ckpt").exists()


def test_a_prediction_without_a_place_is_refused(pipe):
    from dataclasses import replace

    with pytest.raises(AudioLDMError, match="but v and"):
        original_state(replace(pipe, prediction="v"))
