"""Original checkpoints at toy size: what they become, which weights are taken, and what is refused."""

import json
import os
import pickle

import pytest
import torch
from originals import clap_state, prefixed, unet_state, vae_state, vocoder_state, weight_normed, whole

from audioldm.convert.checkpoint import read_checkpoint
from audioldm.convert.folder import Choices
from audioldm.convert.model import LICENCE
from audioldm.errors import AudioLDMError
from audioldm.evaluation.embedders.clap import Clap
from audioldm.nets.clap import train_tokenizer
from audioldm.nets.folder import load_component, read_weights
from audioldm.pipeline.audioldm import AudioLDM

QUICK = {"seconds": 0.64, "steps": 2}
GENERATE = ("--seconds", "0.32", "--steps", "1", "--set", "figure=false")
SCHEDULE = (
    "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef2",
    "lvlb_weights",
)  # fmt: skip
LOSSES = {
    "loss.logvar": torch.zeros(()),
    "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 64, 1, 1),
    "loss.discriminator.main.3.running_mean": torch.zeros(128),
}


@pytest.fixture(scope="module")
def states(pipe) -> dict:
    return whole(pipe)


@pytest.fixture(scope="module")
def checkpoint(pipe, tmp_path_factory, vocabulary):
    """As the training repository leaves it: weights, average, losses, both CLAPs, schedule, optimiser, callbacks."""
    path = tmp_path_factory.mktemp("ckpt") / "audioldm-toy.ckpt"
    average = {k: v + 0.01 for k, v in unet_state(pipe.unet).items()}
    state = whole(pipe, average=average, condition="cond_stage_models.0.")
    state |= prefixed(clap_state(pipe.clap), "clap.model.") | prefixed(LOSSES, "first_stage_model.")
    for prefix in ("cond_stage_models.0.", "clap."):
        state[f"{prefix}mel_transform.spectrogram.window"] = torch.zeros(1024)
    state |= dict.fromkeys(SCHEDULE, torch.zeros(1000))
    content = {
        "epoch": 99, "global_step": 800000, "pytorch-lightning_version": "2.1.1", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 99, "completed": 99}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'global_step', 'mode': 'max'}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [{"state": {0: {"step": torch.ones(()), "exp_avg": torch.zeros(3)}}, "param_groups": []}],
    }  # fmt: skip
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
    assert torch.equal(*(p(["a dog barking"], seeds=[1], **QUICK) for p in (pipe, again)))


def test_the_average_is_taken_unless_raw_is_asked_for_and_as_published_runs_eight_heads(pipe, checkpoint):
    average, raw = (AudioLDM.from_pretrained(checkpoint, weights=kind) for kind in ("ema", "raw"))
    equal(pipe.unet, raw.unet)
    for key, value in raw.unet.state_dict().items():
        assert torch.equal(average.unet.state_dict()[key], value + 0.01), key
    assert (average.about["weights"], raw.about["weights"]) == ("ema", "raw")
    eight = AudioLDM.from_pretrained(checkpoint, heads="as-published")
    assert eight.unet.config.attention_head_dim == 8
    equal(average.unet, eight.unet)
    assert not torch.equal(*(p(["rain"], seeds=[0], **QUICK) for p in (average, eight)))


def test_the_clap_kept_for_scoring_is_found_and_other_conditioners_named(pipe, tmp_path, vocabulary):
    state = whole(pipe, condition="clap.") | {"clap.mel_transform.mel_scale.fb": torch.zeros(4)}
    unknown = "cond_stage_models.0.start_of_sequence_tokens.weight"
    state[unknown] = torch.zeros(2)
    checkpoint = read_checkpoint(saved(state, tmp_path / "scored.pth"))
    assert "text_encoder" in checkpoint.nets and checkpoint.unread == [unknown]
    with refused(f"neither CLAP nor T5 nor AudioLDM 2's GPT-2: '{unknown}'"):
        AudioLDM.from_pretrained(tmp_path / "scored.pth", tokenizer=vocabulary)


def test_position_ids_are_neither_missed_nor_kept(states, tmp_path):
    key = "cond_stage_model.model.text_branch.embeddings.position_ids"
    without = {k: v for k, v in states.items() if k != key}
    nets = [read_checkpoint(saved(s, tmp_path / "x.ckpt")).nets["text_encoder"] for s in (states, without)]
    assert key in states and nets[0].state.keys() == nets[1].state.keys()


def test_vae_and_hifigan_files_alone_become_folders(pipe, command, tmp_path, capsys):
    vae = vae_state(pipe.vae) | prefixed(vocoder_state(pipe.vocoder), "vocoder.") | LOSSES
    torch.save({"state_dict": vae, "global_step": 1500000}, tmp_path / "vae.ckpt")
    generator = prefixed(weight_normed(vocoder_state(pipe.vocoder)), "_orig_mod.")
    torch.save({"generator": generator}, tmp_path / "g.ckpt")
    for file, parts in (("vae", {"vae", "vocoder"}), ("g", {"vocoder"})):
        assert command("export", tmp_path / f"{file}.ckpt", "-o", tmp_path / file) == 0
        assert {line.rsplit("/", 1)[-1] for line in capsys.readouterr().out.split()} == parts
        assert command("generate", "rain", "-m", tmp_path / f"{file}.ckpt", "-o", tmp_path) == 2
        assert "it cannot generate alone" in capsys.readouterr().err
        for key, value in load_component(tmp_path / file / "vocoder").state_dict().items():
            # direction times length, in float32: a last digit of a weight near 1
            torch.testing.assert_close(value, pipe.vocoder.state_dict()[key], rtol=0, atol=3e-7)
    equal(pipe.vae, load_component(tmp_path / "vae/vae"))


def test_unknown_kernels_need_the_configuration_beside(pipe, tmp_path):
    state = vocoder_state(pipe.vocoder)
    state["ups.0.weight"] = torch.zeros(32, 16, 10)
    torch.save({"generator": state}, tmp_path / "g.ckpt")
    with refused(
        r"kernels \(10, 16, 8, 4, 4\) are none of the published ones.*configuration beside the file: g.json"
    ):
        read_checkpoint(tmp_path / "g.ckpt")
    config = {"upsample_rates": [5, 4, 2, 2, 2], "sampling_rate": 16000}
    (tmp_path / "g.json").write_text(json.dumps({**config, "resblock_dilation_sizes": [[1, 3, 5]] * 3}))
    assert read_checkpoint(tmp_path / "g.ckpt").nets["vocoder"].config["upsample"] == (5, 4, 2, 2, 2)
    for text, message in (("{", "g.json is not JSON"), (json.dumps(config), "has no usable upsample")):
        (tmp_path / "g.json").write_text(text)
        with refused(message):
            read_checkpoint(tmp_path / "g.ckpt")


def test_keys_are_explained_missed_or_named(pipe, states, tmp_path):
    path = tmp_path / "m.ckpt"
    for key in (
        "control_model.zero_convs.0.weight",
        "model.diffusion_model.input_blocks.1.0.lora.weight",
        "cond_stage_model.temperature",
        "clap.temperature",
        "model_ema.other",
    ):
        with refused(f"no rule explains: '{key}'"):
            read_checkpoint(saved({**states, key: torch.zeros(1)}, path))
    short = {k: v for k, v in states.items() if k != "first_stage_model.post_quant_conv.weight"}
    with refused("lacks 'post_quant_conv.weight'"):
        read_checkpoint(saved(short, path))
    average = dict(list(unet_state(pipe.unet).items())[:-3])  # half an average is no model
    saved(whole(pipe, average=average), path)
    with refused(r"moving average lacks .*Use the raw weights"):
        read_checkpoint(path)
    assert read_checkpoint(path, Choices(weights="raw")).weights == "raw"


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/should_never_exist",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"model.diffusion_model.x": torch.zeros(1)}, "extra": Evil()}, path)
    with refused(r"evil.ckpt is refused: it is a pickle that would run '\w+\.system' when opened"):
        read_weights(path)
    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with refused("evil.ckpt is refused"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_damage_is_one_line(checkpoint, tmp_path, suffix):
    content = checkpoint.read_bytes()
    for part in (content[: len(content) // 2], b"", b"<html>404</html>"):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(part)
        with refused("cannot be read|is refused") as error:
            AudioLDM.from_pretrained(path, tokenizer=checkpoint.parent / "tokenizer")
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_checkpoint_is_named(checkpoint, tmp_path, vocabulary):
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    for name, message in (
        ("list.pt", "holds a list, not a table of weights"),
        ("other.pt", "is no known checkpoint: its first key is 'weight'"),
        ("song.wav", "song.wav is no weight file"),
        ("nowhere.ckpt", "nowhere.ckpt is not a model folder, a checkpoint, or a hub id"),
    ):
        with refused(message):
            AudioLDM.from_pretrained(tmp_path / name, tokenizer=vocabulary)
    words = [a + b + c for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    train_tokenizer([" ".join(words)], size=2000).save_pretrained(tmp_path / "big")
    for options, message in (
        ({"heads": "mine"}, "heads='mine' is unknown. Known: original, as-published"),
        ({"tokenizer": tmp_path / "none"}, r"tokenizer=.*/none is no folder"),
        ({"tokenizer": tmp_path / "big"}, "The tokenizer .*/big has 5.. entries, its text encoder"),
    ):
        with refused(message):
            AudioLDM.from_pretrained(checkpoint, **options)


def test_generate_opens_a_checkpoint_and_tells_its_licence_once(command, checkpoint, tmp_path, capsys):
    words = ("generate", "rain", "-m", checkpoint, *GENERATE, "-o", tmp_path)
    asked = ("--set", "heads=as-published", "--set", "weights=raw", "--set", "rerank=2")
    assert command(*words, *asked, "-n", "2") == 0
    assert capsys.readouterr().err.count("CC-BY-NC-SA-4.0: not for commercial use") == 1
    sidecar = json.loads((tmp_path / "rain_seed1.json").read_text())
    origin = {"source": "audioldm-toy.ckpt", "licence": LICENCE, "heads": "as-published", "weights": "raw"}
    assert origin.items() <= sidecar["model"].items()
    assert len(sidecar["model"]["sha256"]["checkpoint"]) == 64
    assert command(*words, "--set", "heads=12", "--force") == 2
    assert "heads='12' cannot be. Write heads=original|as-published." in capsys.readouterr().err


def test_export_brings_a_checkpoint_home(command, pipe, checkpoint, tmp_path, capsys):
    assert command("export", checkpoint, "-o", tmp_path / "home", "--set", "weights=raw") == 0
    assert "CC-BY-NC-SA" in capsys.readouterr().err
    home = AudioLDM.from_pretrained(tmp_path / "home")
    sounds = (p(["rain"], seeds=[0], **QUICK, sampler="ddim:eta=1") for p in (home, pipe))
    assert torch.equal(*sounds)
    assert home.origin()["licence"] == LICENCE and not home.notice


def test_laions_file_is_an_embedder_and_another_is_none(pipe, vocabulary, tmp_path):
    state = prefixed(clap_state(pipe.clap), "module.")
    path = saved(state, tmp_path / "630k.pt", vocabulary)
    embedder = Clap(path)
    wave = 0.3 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(embedder.embed(wave).rows, pipe.clap.embed_audio(wave[None, None], 48000))
        torch.testing.assert_close(embedder.embed_text(["a dog"]), pipe.clap.embed_text(["a dog"]))
    assert embedder.name == "clap-laion"
    with refused("no known checkpoint"):
        Clap(saved({"a": torch.zeros(1)}, tmp_path / "other.pt"))
