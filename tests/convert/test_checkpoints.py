"""Original checkpoints at toy size: what they become, which weights are taken, and what is refused."""

import json
import pickle
import re

import pytest
import torch
from originals import prefixed, unet_state, vae_state, vocoder_state, weight_normed, whole

from audioldm.convert.checkpoint import read_checkpoint
from audioldm.convert.folder import Choices
from audioldm.convert.model import LICENCE
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import load_component, read_weights
from audioldm.pipeline.audioldm import AudioLDM

QUICK = {"seconds": 0.64, "steps": 2}


@pytest.fixture(scope="module")
def states(pipe) -> dict:
    return whole(pipe)


@pytest.fixture(scope="module")
def checkpoint(pipe, states, tmp_path_factory, vocabulary):
    """A lightning checkpoint as training leaves it: weights, an average, and what is no weight at all."""
    path = tmp_path_factory.mktemp("ckpt") / "audioldm-toy.ckpt"
    average = {k: v + 0.01 for k, v in unet_state(pipe.unet).items()}
    content = {
        "state_dict": whole(pipe, average=average),
        "epoch": 3,
        "global_step": 7,
        "callbacks": {"x": {"best": 0.5}},
    }
    torch.save(content, path)
    (path.parent / "tokenizer").symlink_to(vocabulary)
    return path


def saved(state: dict, path, vocabulary=None):
    torch.save({"state_dict": state}, path)
    if vocabulary is not None:
        (path.parent / "tokenizer").symlink_to(vocabulary)
    return path


def refused(match: str):
    return pytest.raises(AudioLDMError, match=match)


def equal(a, b):
    for key, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[key]), key


def test_a_checkpoint_sounds_as_its_nets(pipe, states, tmp_path, vocabulary):
    again = AudioLDM.from_pretrained(saved(states, tmp_path / "m.ckpt", vocabulary))
    for part in ("unet", "vae", "vocoder"):
        equal(getattr(pipe, part), getattr(again, part))
    assert again.vae.config.scaling_factor == 0.9375
    assert tuple(again.unet.config.attention_head_dim) == (1, 2)
    assert again.spec == pipe.spec
    assert again.about["licence"] == LICENCE and "CC-BY-NC-SA" in again.notice
    wave = torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again.clap.embed_text(["a dog"]), pipe.clap.embed_text(["a dog"]))
        assert torch.equal(again.clap.embed_audio(wave), pipe.clap.embed_audio(wave))
    sounds = [p(["a dog barking"], seeds=[1], **QUICK) for p in (pipe, again)]
    assert torch.equal(*sounds)


def test_the_average_is_taken_unless_raw_is_asked_for(pipe, checkpoint):
    average, raw = (AudioLDM.from_pretrained(checkpoint, weights=kind) for kind in ("ema", "raw"))
    equal(pipe.unet, raw.unet)
    for key, value in raw.unet.state_dict().items():
        assert torch.equal(average.unet.state_dict()[key], value + 0.01), key
    assert (average.about["weights"], raw.about["weights"]) == ("ema", "raw")


def test_as_published_runs_eight_heads(pipe, checkpoint):
    ours, theirs = (AudioLDM.from_pretrained(checkpoint, heads=h) for h in ("original", "as-published"))
    assert theirs.unet.config.attention_head_dim == 8
    equal(ours.unet, theirs.unet)
    assert not torch.equal(ours(["rain"], seeds=[0], **QUICK), theirs(["rain"], seeds=[0], **QUICK))
    with refused("heads='mine' is unknown. Known: original, as-published"):
        AudioLDM.from_pretrained(checkpoint, heads="mine")


@pytest.mark.parametrize("prefix", ["cond_stage_models.0.", "cond_stage_models.1."])
def test_the_training_repositorys_conditioner_list(pipe, tmp_path, prefix):
    state = whole(pipe, condition=prefix)
    state |= {f"{prefix}mel_transform.spectrogram.window": torch.zeros(4)}
    state |= prefixed({"discriminator.main.0.weight": torch.zeros(1)}, "first_stage_model.loss.")
    checkpoint = read_checkpoint(saved(state, tmp_path / "trained.ckpt"))
    assert (
        set(checkpoint.nets) == {"unet", "vae", "vocoder", "text_encoder", "audio_encoder"}
        and not checkpoint.unread
    )


def test_the_clap_kept_for_scoring_is_found_and_other_conditioners_named(pipe, tmp_path, vocabulary):
    state = whole(pipe, condition="clap.") | {"clap.mel_transform.mel_scale.fb": torch.zeros(4)}
    state["cond_stage_models.0.start_of_sequence_tokens.weight"] = torch.zeros(2)
    checkpoint = read_checkpoint(saved(state, tmp_path / "scored.pth"))
    assert "text_encoder" in checkpoint.nets and checkpoint.unread == [
        "cond_stage_models.0.start_of_sequence_tokens.weight"
    ]
    with refused(
        "neither CLAP nor T5 nor AudioLDM 2's GPT-2: 'cond_stage_models.0.start_of_sequence_tokens.weight'"
    ):
        AudioLDM.from_pretrained(tmp_path / "scored.pth", tokenizer=vocabulary)
    with refused("no rule explains: 'clap.temperature'"):
        read_checkpoint(saved({**state, "clap.temperature": torch.zeros(1)}, tmp_path / "m.pth"))


def test_position_ids_are_neither_missed_nor_kept(pipe, states, tmp_path):
    key = "cond_stage_model.model.text_branch.embeddings.position_ids"
    assert key in states
    without = {k: v for k, v in states.items() if k != key}
    a, b = (
        read_checkpoint(saved(s, tmp_path / "x.ckpt")).nets["text_encoder"].state for s in (states, without)
    )
    assert a.keys() == b.keys()


def test_vae_and_hifigan_files_alone(pipe, tmp_path, vocabulary):
    vae = {
        **vae_state(pipe.vae),
        "loss.logvar": torch.zeros(()),
        "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1),
    }
    vae |= prefixed(vocoder_state(pipe.vocoder), "vocoder.")
    checkpoint = read_checkpoint(saved(vae, tmp_path / "vae.ckpt"))
    assert (
        set(checkpoint.nets) == {"vae", "vocoder"}
        and checkpoint.nets["vae"].state.keys() == pipe.vae.state_dict().keys()
    )
    generator = prefixed(weight_normed(vocoder_state(pipe.vocoder)), "_orig_mod.")
    torch.save({"generator": generator}, tmp_path / "g_0001.ckpt")
    checkpoint = read_checkpoint(tmp_path / "g_0001.ckpt")
    for key, value in pipe.vocoder.state_dict().items():
        assert torch.allclose(checkpoint.nets["vocoder"].state[key], value, atol=1e-7), (
            key
        )  # the norm is a float32 sum
    with refused("holds VAE, vocoder but no U-Net, no CLAP: it cannot generate alone"):
        AudioLDM.from_pretrained(tmp_path / "vae.ckpt", tokenizer=vocabulary)


def test_unknown_kernels_need_the_configuration_beside(pipe, tmp_path):
    state = vocoder_state(pipe.vocoder)
    state["ups.0.weight"] = torch.zeros(32, 16, 10)
    torch.save({"generator": state}, tmp_path / "g.ckpt")
    with refused(r"kernels \(10, 16, 8, 4, 4\) are none of the published ones.*with the same name and .json"):
        read_checkpoint(tmp_path / "g.ckpt")
    (tmp_path / "g.json").write_text(
        '{"upsample_rates": [5, 4, 2, 2, 2], "sampling_rate": 16000,'
        ' "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]]}'
    )
    assert read_checkpoint(tmp_path / "g.ckpt").nets["vocoder"].config["upsample"] == (5, 4, 2, 2, 2)
    (tmp_path / "g.json").write_text("{")
    with refused("g.json is not valid JSON"):
        read_checkpoint(tmp_path / "g.ckpt")


def test_keys_are_explained_missed_or_named(states, tmp_path):
    path = tmp_path / "m.ckpt"
    with refused("no rule explains: 'control_model.zero_convs.0.weight'"):
        read_checkpoint(saved({**states, "control_model.zero_convs.0.weight": torch.zeros(1)}, path))
    with refused("no rule explains: 'model.diffusion_model.input_blocks.1.0.lora.weight'"):
        read_checkpoint(
            saved({**states, "model.diffusion_model.input_blocks.1.0.lora.weight": torch.zeros(1)}, path)
        )
    with refused("no rule explains: 'cond_stage_model.temperature'"):
        read_checkpoint(saved({**states, "cond_stage_model.temperature": torch.zeros(1)}, path))
    short = {k: v for k, v in states.items() if k != "first_stage_model.post_quant_conv.weight"}
    with refused("lacks 'post_quant_conv.weight'"):
        read_checkpoint(saved(short, path))


def test_half_an_average_is_no_model(pipe, tmp_path):
    average = dict(list(unet_state(pipe.unet).items())[:-3])
    path = saved(whole(pipe, average=average), tmp_path / "m.ckpt")
    with refused(r"moving average lacks .*Use the raw weights"):
        read_checkpoint(path)
    assert read_checkpoint(path, Choices(weights="raw")).weights == "raw"
    strange = {**whole(pipe), "model_ema.other": torch.zeros(1)}
    with refused("no rule explains: 'model_ema.other'"):
        read_checkpoint(saved(strange, tmp_path / "n.ckpt"))


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/should_never_exist",)


def test_a_pickle_that_would_run_code_is_refused(states, tmp_path):
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"model.diffusion_model.x": torch.zeros(1)}, "extra": Evil()}, path)
    with refused(r"evil.ckpt is refused: it is a pickle that would run '\w+\.system' when opened"):
        read_weights(path)
    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with refused("evil.ckpt is refused"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("kind", ["half", "empty", "text"])
def test_damage_is_told(checkpoint, tmp_path, kind, suffix):
    path = tmp_path / f"broken{suffix}"
    whole_file = checkpoint.read_bytes()
    path.write_bytes(
        {"half": whole_file[: len(whole_file) // 2], "empty": b"", "text": b"<html>404</html>"}[kind]
    )
    with pytest.raises(AudioLDMError) as error:
        AudioLDM.from_pretrained(path, tokenizer=checkpoint.parent / "tokenizer")
    assert re.search("cannot be read|is refused", str(error.value)), error.value
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_checkpoint_is_told(tmp_path, vocabulary):
    torch.save([1, 2], tmp_path / "list.pt")
    with refused("holds a list, not a table of weights"):
        AudioLDM.from_pretrained(tmp_path / "list.pt", tokenizer=vocabulary)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with refused("is no known checkpoint: its first key is 'weight'"):
        AudioLDM.from_pretrained(tmp_path / "other.pt", tokenizer=vocabulary)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    with refused("song.wav is no weight file"):
        AudioLDM.from_pretrained(tmp_path / "song.wav")
    with refused("nowhere.ckpt is not a model folder, a checkpoint, or a hub id"):
        AudioLDM.from_pretrained(tmp_path / "nowhere.ckpt")


def test_a_tokenizer_of_another_vocabulary_is_refused(checkpoint, tmp_path):
    with refused(r"tokenizer=.*/none is no folder"):
        AudioLDM.from_pretrained(checkpoint, tokenizer=tmp_path / "none")
    from audioldm.nets.clap import train_tokenizer

    words = [a + b + c for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    train_tokenizer([" ".join(words)], size=2000).save_pretrained(tmp_path / "big")
    with refused("The tokenizer .*/big has 5.. entries, its text encoder"):
        AudioLDM.from_pretrained(checkpoint, tokenizer=tmp_path / "big")


def test_generate_opens_a_checkpoint_and_tells_its_licence_once(command, checkpoint, tmp_path, capsys):
    words = (
        "-m",
        checkpoint,
        "--seconds",
        "0.64",
        "--steps",
        "2",
        "--set",
        "figure=false",
        "-n",
        "2",
        "-o",
        tmp_path,
    )
    assert command("generate", "rain", *words, "--set", "heads=as-published", "--set", "weights=raw") == 0
    assert capsys.readouterr().err.count("CC-BY-NC-SA-4.0: not for commercial use") == 1
    sidecar = json.loads((tmp_path / "rain_seed1.json").read_text())
    given = {"source": "audioldm-toy.ckpt", "licence": LICENCE, "heads": "as-published", "weights": "raw"}
    assert given.items() <= sidecar["model"].items()
    assert len(sidecar["model"]["sha256"]["checkpoint"]) == 64
    assert command("generate", "rain", *words, "--set", "heads=12", "--force") == 2
    assert "heads='12' cannot be. Write heads=original|as-published." in capsys.readouterr().err


def test_export_brings_a_checkpoint_and_its_parts_home(command, pipe, checkpoint, tmp_path, capsys):
    assert command("export", checkpoint, "-o", tmp_path / "home", "--set", "weights=raw") == 0
    assert "CC-BY-NC-SA" in capsys.readouterr().err
    home = AudioLDM.from_pretrained(tmp_path / "home")
    assert torch.equal(
        home(["rain"], seeds=[0], **QUICK), pipe(["rain"], seeds=[0], **QUICK, sampler="ddim:eta=1")
    )
    assert home.origin()["licence"] == LICENCE and not home.notice
    torch.save({"generator": vocoder_state(pipe.vocoder)}, tmp_path / "g.ckpt")
    assert command("export", tmp_path / "g.ckpt", "-o", tmp_path / "parts") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "parts/vocoder")
    equal(pipe.vocoder, load_component(tmp_path / "parts/vocoder"))
