"""The 48 kHz front end through every command of training, at toy size."""

import json
from pathlib import Path

import numpy as np
import soundfile as sf

from audioldm.pipeline.audioldm import AudioLDM

FEW = [
    "spec=48k_256",
    "batches=2",
    "val_every=2",
    "seconds=0.32",
    "batch_size=2",
    "+data.size=8",
    "+trainer.limit_val_batches=1",
]


def test_the_chain_at_48_khz_ends_in_a_sound(tiny_model, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("audioldm.training.encoding.ROUNDS", 4)
    vae = ["task.vae.channels=[8,8,8,16]", "task.vae.latent_channels=16"]
    assert command("train", "tiny/vae", *FEW, *vae) == 0
    vocoder = ["task.vocoder.channels=32", "task.vocoder.upsample=[6,5,4,2,2]",
               "task.vocoder.upsample_kernels=[12,10,8,4,4]"]  # fmt: skip
    assert command("train", "tiny/vocoder", *FEW, *vocoder) == 0
    made = ("--vae", "runs/tiny/vae/model/vae", "--clap", tiny_model, "--seconds", "0.32", "-o", "lat")
    assert command("data", "encode", "synthetic", "--spec", "48k_256", *made) == 0
    index = json.loads(Path("lat/index.json").read_text())
    assert (index["spec"], index["stride"], index["latent_channels"]) == ("48k_256", 8, 16)
    unet = [
        "task.unet.latent_channels=16",
        "task.unet.film_dim=16",
        "data.folder=lat",
        "data.val_folder=null",
    ]
    few = ["batches=2", "val_every=2", "batch_size=4", "callbacks.listen=null"]
    assert command("train", "tiny/ldm", *few, *unet) == 0
    parts = ("--ldm", "runs/tiny/ldm", "--vae", "runs/tiny/vae", "--vocoder", "runs/tiny/vocoder")
    assert command("export", *parts, "--clap", tiny_model, "-o", "model", "--steps", "2") == 0
    spec = AudioLDM.from_pretrained("model").spec
    assert spec.name == "48k_256" and spec.latent_shape(0.32) == (16, 4, 32)
    assert command("generate", "a low tone", "-m", "model", "-o", "out", "--seconds", "0.3") == 0
    wave, rate = sf.read("out/a_low_tone_seed0.wav")
    assert rate == 48000 and len(wave) == 14400 and np.isfinite(wave).all()

    capsys.readouterr()
    assert command("data", "encode", "synthetic", "--spec", "44k", *made, "--force") == 2
    assert "'44k' is not one of '16k_64', '48k_256'" in capsys.readouterr().err
