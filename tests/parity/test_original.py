"""Ours against the original ``audioldm`` package at its published sizes, with random weights: make parity.

The original runs in a process of its own (``original_worker.py``), from the folder that AUDIOLDM_ORIGINAL names; it
writes its weights as the checkpoint that our importer reads.   Every error is the largest absolute difference over
the largest absolute value of the original's answer; both compute in float32, in other orders of summation.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from audioldm.batch import Condition
from audioldm.convert.checkpoint import Checkpoint, read_checkpoint
from audioldm.convert.conditioners import all_conditioners
from audioldm.convert.folder import load_tokenizer
from audioldm.nets.clap import TwoTowers
from audioldm.nets.hifigan import vocode
from audioldm.nets.text_encoder import AudioLDM2TextEncoder
from audioldm.nets.unet import net_call
from audioldm.nets.vae import encode
from audioldm.pipeline.audioldm import AudioLDM

ORIGINAL = os.environ.get("AUDIOLDM_ORIGINAL", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.original,
    pytest.mark.skipif(
        not Path(ORIGINAL, "audioldm/ldm.py").is_file(), reason="AUDIOLDM_ORIGINAL names no original package"
    ),
]
LIMIT = 1e-4
PROMPT = "a dog barking in the rain"


@pytest.fixture
def answers(tmp_path):
    """Run the original on one job; returns its answers, and the checkpoint it wrote."""

    def execute(part: str, size: str, inputs: dict, **job) -> tuple[dict, Path]:
        torch.save(inputs, tmp_path / "inputs.pt")
        (tmp_path / "job.json").write_text(
            json.dumps({"part": part, "size": size, "folder": str(tmp_path), **job})
        )
        worker = Path(__file__).with_name("original_worker.py")
        environment = {**os.environ, "PYTHONPATH": ORIGINAL, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, worker, tmp_path / "job.json"],
            env=environment,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(tmp_path / "answers.pt", weights_only=True), tmp_path / "original.ckpt"

    yield execute
    (tmp_path / "original.ckpt").unlink(missing_ok=True)  # up to 3 GB


@pytest.fixture
def report(record_property):
    """Compare, add one line to the parity table (``conftest.py``), and hold it to the limit."""

    def compare(
        what: str,
        ours: torch.Tensor,
        theirs: torch.Tensor,
        package: str = "audioldm 0.1.1",
        limit: float = LIMIT,
    ) -> None:
        assert ours.shape == theirs.shape
        error = float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())
        record_property("parity", [what, package, error, limit])
        assert theirs.std() > 1e-3, "an answer that says nothing"
        assert error <= limit

    return compare


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", ["s", "m", "l"])
@torch.no_grad()
def test_unet(answers, report, record_property, size):
    inputs = {"x": draw(2, 8, 32, 16), "t": torch.tensor([1, 801]), "film": draw(2, 512, seed=1)}
    theirs, path = answers("unet", size, inputs)
    unet = read_checkpoint(path).build("unet")
    ours = net_call(unet)(inputs["x"], inputs["t"], Condition(film=inputs["film"]))
    report(f"U-Net {size}, heads {tuple(unet.config.attention_head_dim)}", ours, theirs["out"])
    eight = read_checkpoint(path).build("unet", heads=8)
    wrong = net_call(eight)(inputs["x"], inputs["t"], Condition(film=inputs["film"]))
    rms = float((wrong - theirs["out"]).norm() / theirs["out"].norm())
    record_property("heads", [f"U-Net {size}", "its output, root mean square", rms])
    assert rms > 10 * LIMIT


RELATIVES = {
    "audioldm2-full": ([768, 1024], 1, None),
    "audioldm2-full-large": ([768, 1024, None], 2, None),
    "16k-crossattn-t5": ([1024], 1, None),
    "48k": ([None], 1, 512),
}


@pytest.mark.parametrize("name", RELATIVES)
@torch.no_grad()
def test_unets_of_contexts(answers, report, name):
    contexts, depth, film = RELATIVES[name]
    inputs = {"x": draw(2, 8, 32, 16), "t": torch.tensor([1, 801]), "film": draw(2, 512, seed=1)}
    for i, width in enumerate(contexts):
        if width is not None:
            inputs[f"tokens{i}"] = draw(2, 5 + i, width, seed=2 + i)
            inputs[f"mask{i}"] = torch.ones(2, 5 + i)
            inputs[f"mask{i}"][1, 3:] = 0
    theirs, path = answers("unet2", "s", inputs, contexts=contexts, depth=depth, film=film)
    unet = read_checkpoint(path).build("unet")
    parts = [inputs.get(key) for key in ("tokens0", "mask0", "tokens1", "mask1")]
    ours = net_call(unet)(inputs["x"], inputs["t"], Condition(inputs["film"] if film else None, *parts))
    report(f"U-Net {name}", ours, theirs["out"], package="audioldm2 0.1.0")


@torch.no_grad()
def test_vae_and_vocoder(answers, report):
    inputs = {"mel": -4 + 2 * draw(1, 1, 64, 64), "z": draw(1, 8, 16, 16, seed=1)}
    theirs, path = answers("vae", "s", inputs)
    checkpoint = read_checkpoint(path)
    vae, vocoder = checkpoint.build("vae"), checkpoint.build("vocoder")
    mean, std = encode(vae, inputs["mel"])
    report("VAE encoder, mean", mean, theirs["mean"])
    report("VAE encoder, std", std, theirs["std"])
    report("VAE decoder", vae.decode(inputs["z"]).sample, theirs["mel"])
    report("HiFi-GAN", vocode(vocoder, inputs["mel"]), theirs["wave"][..., 16:-16])


@torch.no_grad()
def test_vocoder_at_48_khz(answers, report):
    """The two classes give one sound, 16 samples apart; ours lies in the middle.   0.17 ms to either."""
    inputs = {"mel": -4 + 2 * draw(1, 1, 32, 256)}
    theirs, path = answers("vocoder48", "s", inputs)
    wave = vocode(read_checkpoint(path).build("vocoder"), inputs["mel"])
    report("HiFi-GAN 48 kHz, 8 samples earlier", wave, theirs["generating"][..., 8:-8], "audioldm2 0.1.0")
    inner = slice(2000, -2000)  # beyond, the padding of the layers after it is heard
    report(
        "HiFi-GAN 48 kHz, training's padding, 8 samples later",
        wave[..., 8:][..., inner],
        theirs["training"][..., :-8][..., inner],
        "audioldm2 0.1.0",
    )


@torch.no_grad()
def test_generator_of_audio_tokens(answers, report):
    inputs = {
        "film": torch.nn.functional.normalize(draw(1, 1, 512), dim=-1),
        "tokens": draw(1, 11, 1024, seed=1),
        "mask": torch.ones(1, 11, dtype=torch.long),
    }
    theirs, path = answers("generator", "s", inputs)
    nets, _ = all_conditioners(torch.load(path, weights_only=True)["state_dict"], {})
    parts = [Checkpoint(path, nets).build(name) for name in ("projection_model", "language_model")]
    encoder = AudioLDM2TextEncoder(torch.nn.Identity(), torch.nn.Identity(), *parts)
    ours = encoder.generate(inputs["film"][:, 0], inputs["tokens"], inputs["mask"])
    report("GPT-2 generator of audio tokens", ours, theirs["out"], "audioldm2 0.1.0")


@pytest.mark.parametrize("size", ["HTSAT-tiny", "HTSAT-base"])
@torch.no_grad()
def test_clap(answers, report, size, tmp_path):
    ids = torch.tensor([[0, 102, 2335, 27, 2, 1, 1], [0, 5, 6, 7, 8, 9, 2]])
    lengths = torch.tensor([480000, 100000, 250000])  # whole, repeated four times, repeated once and padded
    waves = 0.3 * draw(3, 480000) * torch.linspace(0, 40, 480000).sin()
    inputs = {"ids": ids, "mask": (ids != 1).long(), "waves": waves, "lengths": lengths}
    theirs, path = answers("clap", size, inputs)
    roberta = published("conftest").roberta(tmp_path / "words")
    clap = clap_of_file(path, load_tokenizer(roberta, 50265))
    text = clap.text_encoder(ids, attention_mask=inputs["mask"]).text_embeds
    report(f"CLAP text, {size}", torch.nn.functional.normalize(text, dim=-1), theirs["text"])
    rows = [clap.embed_audio(w[None, None, :n], 48000) for w, n in zip(waves, lengths.tolist(), strict=True)]
    report(f"CLAP audio, mel front end included, {size}", torch.cat(rows), theirs["audio"])


@pytest.mark.parametrize("size", ["HTSAT-tiny", "HTSAT-base"])
@torch.no_grad()
def test_laion_clap(answers, report, size, tmp_path):
    """LAION rounds waves to 16 bits before it hears them; we do not.   Its bar is 1e-3."""
    if not Path(ORIGINAL, "laion_clap").is_dir():
        pytest.skip("AUDIOLDM_ORIGINAL holds no laion_clap")
    words = published("conftest").roberta(tmp_path / "words")
    texts = ["a dog barking", "rain on a tin roof", ""]
    lengths = torch.tensor([480000, 100000, 250000])
    waves = (0.2 * draw(3, 480000) * torch.linspace(0, 40, 480000).sin()).clamp(-1, 1)
    inputs = {"waves": waves, "lengths": lengths}
    theirs, path = answers("laion", size, inputs, tokenizer=str(words), texts=texts)
    clap = clap_of_file(path, load_tokenizer(words, 50265))
    rows = [clap.embed_audio(w[None, None, :n], 48000) for w, n in zip(waves, lengths.tolist(), strict=True)]
    report(f"LAION text, {size}", clap.embed_text(texts), theirs["text"], "laion-clap 1.1.7", 1e-3)
    report(
        f"LAION audio, mel front end included, {size}",
        torch.cat(rows),
        theirs["audio"],
        "laion-clap 1.1.7",
        1e-3,
    )


def clap_of_file(path, tokenizer):
    checkpoint = read_checkpoint(path)
    return TwoTowers(checkpoint.build("text_encoder"), tokenizer, checkpoint.build("audio_encoder"))


def published(name: str):
    """A module of tests/convert, by its path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "convert" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def test_the_whole_of_generating(answers, report, tmp_path):
    """Prompt to sound, through the moving average: the same noise, 10 steps of DDIM, guidance 2.5."""
    words = published("conftest").roberta(tmp_path / "words")
    seconds, steps, guidance = 1.28, 10, 2.5
    t = 1000 - 1000 // steps + 1
    alpha_bar = (1 - torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)
    noise = draw(8, 32, 16, seed=5)[None]
    # we start from the level's own noise, sqrt(1 - alpha_bar) of the original's
    inputs = {"x": noise * (1 - alpha_bar[t]).sqrt().float()}
    theirs, path = answers(
        "whole", "s", inputs, tokenizer=str(words), prompt=PROMPT, steps=steps, guidance=guidance
    )
    pipe = AudioLDM.from_pretrained(path, tokenizer=words)
    assert pipe.about["weights"] == "ema"
    wave = pipe(
        [PROMPT], seeds=[5], seconds=seconds, steps=steps, guidance=guidance, sampler="ddim", grid="published"
    )
    report("prompt to sound, s, 10 DDIM steps", wave, theirs["wave"][:, 0, 16 : 16 + wave.shape[-1]])
