"""audiocaps/ldm_cross_t5 from the data set's own files to a sound: tokens cached, learned from, and told again."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from audioldm.nets.unet import kind_of
from audioldm.pipeline.audioldm import AudioLDM

SECONDS = 0.64
SMALL = [
    "task.unet.channels=[16,32]", "task.unet.latent_channels=4", "task.unet.layers=1", "task.unet.head_channels=8",
    "task.unet.context_dim=40", "+task.unet.groups=4", "trainer=cpu", "speed.compile=null", "batches=4",
    "batch_size=4", "val_every=2", "task.warmup=1", "callbacks.listen.every=4", f"callbacks.listen.seconds={SECONDS}",
    "callbacks.listen.prompts=[a low tone]", "callbacks.power_ema.every=null", "data.workers=0",
]  # fmt: skip


@pytest.fixture
def t5(tmp_path) -> Path:
    """A T5 of FLAN's kind as a folder of the hub, from the tables of tests/convert."""
    published = Path(__file__).parents[1] / "convert"
    for name in ("originals", "relatives"):
        spec = importlib.util.spec_from_file_location(name, published / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    text = sys.modules["relatives"].t5_text()
    text.model.save_pretrained(tmp_path / "t5")
    text.tokenizer.save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


@pytest.fixture
def audiocaps(tmp_path) -> Path:
    """AudioCaps' three tables with sounds beside: low and high tones."""
    folder, time = tmp_path / "audiocaps", np.arange(int(SECONDS * 16000)) / 16000
    folder.mkdir()
    for split, count in (("train", 8), ("val", 4), ("test", 2)):
        lines = ["audiocap_id,youtube_id,start_time,caption"]
        for i in range(count):
            name, (word, hertz) = f"{split:_<9}{i:02}", (("low", 150.0), ("high", 3000.0))[i % 2]
            lines.append(f"{100 * len(split) + i},{name},30,a {word} tone")
            sf.write(
                folder / f"{name}_30.wav", 0.3 * np.sin(2 * np.pi * (hertz + 20 * i + count) * time), 16000
            )
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_tokens_are_cached_learned_from_and_told_again(
    audiocaps, t5, tiny_model, command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert command("data", "prepare", "audiocaps", "--from", audiocaps, "-o", "caps.jsonl") == 0
    parts = ("--vae", tiny_model / "vae", "--clap", tiny_model, "--t5", t5, "--seconds", SECONDS)
    assert command("data", "encode", "caps.jsonl", "-o", "lat", *parts) == 0
    assert command("data", "encode", "caps.jsonl", "-o", "val", "--split", "val", *parts) == 0
    heard = [f"callbacks.listen.parts.{part}={tiny_model / part}" for part in ("vae", "vocoder")]
    heard += [f"callbacks.listen.parts.clap={tiny_model}", f"callbacks.listen.parts.text_encoder={t5}"]
    folders = ["data.folder=lat", "data.val_folder=val"]
    assert command("train", "audiocaps/ldm_cross_t5", *folders, *SMALL, *heard) == 0
    run = Path("runs/audiocaps/ldm_cross_t5")
    assert list((run / "previews").rglob("*.wav")), "it was heard on the way"

    trained = ("--ldm", run, "--vae", tiny_model, "--vocoder", tiny_model, "--clap", tiny_model)
    assert command("export", *trained, "-o", "model", "--steps", "3") == 0
    pipe = AudioLDM.from_pretrained("model")
    assert kind_of(pipe.unet) == "cross" and pipe.prediction == "v"
    index = json.loads(Path("lat/index.json").read_text())
    torch.testing.assert_close(pipe.token_encoder.embed(""), torch.tensor(index["null_tokens"]))

    out = ("-m", "model", "-o", "out", "--seconds", "0.5", "--set", "figure=false")
    for prompt in ("a low tone", "a high tone"):
        assert command("generate", prompt, *out) == 0
    low, high = (sf.read(f"out/a_{word}_tone_seed0.wav")[0] for word in ("low", "high"))
    assert len(low) == 8000 and np.isfinite(low).all() and not np.array_equal(low, high)

    capsys.readouterr()
    (t5 / "model.safetensors").rename(t5 / "moved")
    assert command("export", *trained, "-o", "again") == 2
    assert "is missing, with which the tokens were made. Name it: --t5." in capsys.readouterr().err
    other = AudioLDM.from_pretrained("model").token_encoder.model
    other.shared.weight.data += 1
    other.save_pretrained(t5)
    assert command("export", *trained, "-o", "again", "--t5", t5) == 2
    assert "tokens were not made with t5=" in capsys.readouterr().err
