"""Files of AudioLDM-training-finetuning in their exact layouts: the whole Lightning checkpoint, VAE alone, HiFi-GAN."""

import pytest
import torch
from originals import clap_state, prefixed, unet_state, vae_state, vocoder_state, weight_normed, whole

from audioldm.nets.folder import load_component
from audioldm.pipeline.audioldm import AudioLDM

LPIPS = {
    "loss.logvar": torch.zeros(()),
    "loss.perceptual_loss.scaling_layer.shift": torch.zeros(1, 3, 1, 1),
    "loss.perceptual_loss.net.slice1.0.weight": torch.zeros(64, 3, 3, 3),
    "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1, 64, 1, 1),
    "loss.discriminator.main.0.weight": torch.zeros(64, 1, 4, 4),
    "loss.discriminator.main.3.running_mean": torch.zeros(128),
}


@pytest.fixture(scope="module")
def trained(pipe, vocabulary, tmp_path_factory):
    """Weights, average, losses, both CLAPs and their mel filters, the schedule, optimiser, loops, callbacks."""
    folder = tmp_path_factory.mktemp("trained")
    average = {k: v + 0.01 for k, v in unet_state(pipe.unet).items()}
    state = whole(pipe, average=average, condition="cond_stage_models.0.")
    state |= prefixed(clap_state(pipe.clap), "clap.model.")
    for prefix in ("cond_stage_models.0.", "clap."):
        state[f"{prefix}mel_transform.spectrogram.window"] = torch.zeros(1024)
        state[f"{prefix}mel_transform.mel_scale.fb"] = torch.zeros(513, 64)
    state |= prefixed(LPIPS, "first_stage_model.")
    state |= dict.fromkeys(
        ("alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
         "log_one_minus_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
         "posterior_mean_coef2", "lvlb_weights"),
        torch.zeros(1000),
    )  # fmt: skip
    content = {
        "epoch": 99, "global_step": 800000, "pytorch-lightning_version": "2.1.1", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 99, "completed": 99}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'global_step', 'mode': 'max'}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [{"state": {0: {"step": torch.ones(()), "exp_avg": torch.zeros(3)}}, "param_groups": []}],
        "lr_schedulers": [],
    }  # fmt: skip
    path = folder / "checkpoint-fad-133.00-global_step=799999.ckpt"
    torch.save(content, path)
    (folder / "tokenizer").symlink_to(vocabulary)
    return path


def test_its_latent_diffusion_generates(pipe, trained, command, tmp_path):
    again = AudioLDM.from_pretrained(trained)
    for key, value in pipe.unet.state_dict().items():
        assert torch.equal(again.unet.state_dict()[key], value + 0.01), key
    words = ("--seconds", "0.32", "--steps", "2", "--set", "figure=false", "-o", tmp_path)
    assert (
        command("generate", "rain", "-m", trained, "--set", "rerank=2", "--set", "weights=raw", *words) == 0
    )
    assert len(list(tmp_path.glob("rain*.wav"))) == 1


def test_its_vae_and_its_vocoders_become_folders(pipe, command, tmp_path, capsys):
    vae = vae_state(pipe.vae) | prefixed(vocoder_state(pipe.vocoder), "vocoder.") | LPIPS
    torch.save({"state_dict": vae, "global_step": 1500000, "epoch": 1}, tmp_path / "vae_mel_16k_64bins.ckpt")
    generator = prefixed(weight_normed(vocoder_state(pipe.vocoder)), "_orig_mod.")
    torch.save({"generator": generator}, tmp_path / "hifigan_16k_64bins.ckpt")
    for file, parts in (("vae_mel_16k_64bins", {"vae", "vocoder"}), ("hifigan_16k_64bins", {"vocoder"})):
        assert command("export", tmp_path / f"{file}.ckpt", "-o", tmp_path / file) == 0
        assert {line.rsplit("/", 1)[-1] for line in capsys.readouterr().out.split()} == parts
        assert command("generate", "rain", "-m", tmp_path / f"{file}.ckpt", "-o", tmp_path) == 2
        assert "it cannot generate alone" in capsys.readouterr().err
    for key, value in pipe.vae.state_dict().items():
        assert torch.equal(load_component(tmp_path / "vae_mel_16k_64bins/vae").state_dict()[key], value), key
    for file in ("vae_mel_16k_64bins", "hifigan_16k_64bins"):
        for key, value in load_component(tmp_path / file / "vocoder").state_dict().items():
            # direction times length, in float32: a last digit of a weight near 1
            torch.testing.assert_close(value, pipe.vocoder.state_dict()[key], rtol=0, atol=3e-7)
