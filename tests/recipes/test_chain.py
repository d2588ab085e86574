"""Every command of the chain, in order, at a few batches each: recipes to runs to a model to a sound."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile as sf
from safetensors.torch import load_file, save_file

FEW = ["batches=2", "val_every=2", "seconds=0.64", "batch_size=4", "+trainer.limit_val_batches=1"]


@pytest.fixture
def runs(tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all four parts trained for two batches on synthetic sounds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("audioldm.training.encoding.ROUNDS", 4)
    for part in ("vae", "vocoder", "clap"):
        assert command("train", f"tiny/{part}", *FEW) == 0
    parts = ("--vae", "runs/tiny/vae/model/vae", "--clap", "runs/tiny/clap/model")
    assert command("data", "encode", "synthetic", "-o", "runs/tiny/latents", "--seconds", "0.64", *parts) == 0
    assert (
        command(
            "train", "tiny/ldm", "batches=2", "val_every=2", "batch_size=4", "+trainer.limit_val_batches=1"
        )
        == 0
    )
    return tmp_path / "runs" / "tiny"


def export(command: Callable[..., int], *more: str) -> int:
    folders = [
        word for part in ("ldm", "vae", "vocoder", "clap") for word in (f"--{part}", f"runs/tiny/{part}")
    ]
    return command("export", *folders, "-o", "model", *more)


def test_the_chain_ends_in_a_sound(
    runs: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    index = json.loads((runs / "latents" / "index.json").read_text())
    assert index["windows"] == 28 and index["scaling_factor"] == pytest.approx(1 / index["std"])

    assert export(command, "--dtype", "float16", "--steps", "3", "--name", "chain") == 0
    about = json.loads(Path("model/audioldm.json").read_text())
    assert about["name"] == "chain" and about["defaults"]["steps"] == 3
    config = json.loads(Path("model/vae/config.json").read_text())
    assert config["scaling_factor"] == index["scaling_factor"]

    assert (
        command(
            "generate", "a low tone", "-m", "model", "-o", "out", "--seconds", "0.5", "--set", "figure=false"
        )
        == 0
    )
    wave, rate = sf.read("out/a_low_tone_seed0.wav")
    assert rate == 16000 and len(wave) == 8000

    # the checkpoints hold the same nets as the runs' exports, the average included
    files = [
        word
        for part in ("ldm", "vae", "vocoder", "clap")
        for word in (f"--{part}", f"runs/tiny/{part}/checkpoints/last.ckpt")
    ]
    assert command("export", *files, "-o", "again", "--dtype", "float16") == 0
    assert json.loads(Path("again/audioldm.json").read_text())["sha256"] == about["sha256"]
    assert command("export", "model", "-o", "copy", "--dtype", "float16", "--steps", "9") == 0
    copy = json.loads(Path("copy/audioldm.json").read_text())
    assert copy["sha256"] == about["sha256"] and copy["name"] == "chain"
    assert copy["defaults"] == {**about["defaults"], "steps": 9}

    capsys.readouterr()
    assert command("export", "model", *files[:2], "-o", "none") == 2
    assert "Both a REF and its U-Net" in capsys.readouterr().err
    assert export(command) == 2
    assert "--force" in capsys.readouterr().err
    weights = runs / "vae" / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    state = {key: value.clone() for key, value in load_file(weights).items()}
    save_file({**state, "decoder.conv_out.bias": state["decoder.conv_out.bias"] + 1}, weights)
    assert export(command, "--force") == 0  # a decoder may be trained on
    save_file({**state, "encoder.conv_in.bias": state["encoder.conv_in.bias"] + 1}, weights)
    assert export(command, "--force") == 2
    assert "not made with this encoder" in capsys.readouterr().err
    assert command("train", "tiny/ldm", "batches=3") == 2
    assert "latents is stale: its VAE" in capsys.readouterr().err
    save_file(state, weights)
    assert command("train", "tiny/ldm", "batches=3") == 2
    assert "other settings" in capsys.readouterr().err
