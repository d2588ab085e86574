"""Ours against stock diffusers on one folder, at the published sizes, with random weights: make parity."""

import gc
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audioldm.components import Sampling
from audioldm.convert.folder import load_tokenizer
from audioldm.nets.clap import TwoTowers
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.spec import AudioSpec

pytestmark = pytest.mark.slow
SIZES = {"s": (128, 256, 384, 640), "m": (192, 384, 576, 960), "l": (256, 512, 768, 1280)}
LIMIT = 1e-4
"""float32 in other orders of summation"""
PROMPT = "a dog barking in the rain"
SETTINGS = {"seconds": 1.28, "steps": 5, "guidance": 2.5}


def published(name: str):
    """A module of tests/convert, by its path."""
    path = Path(__file__).parents[1] / "convert" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, request):
    """A model folder of a published size, as the converter leaves it: 8 heads in the U-Net's configuration."""
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    tables, size = published("originals"), request.param
    words = load_tokenizer(published("conftest").roberta(tmp_path / "words"), 50265)
    torch.manual_seed(0)
    text = ClapTextModelWithProjection(ClapTextConfig())
    vae, vocoder, unet = build_vae(), build_hifigan(), build_unet(channels=SIZES[size], heads=8)
    for seed, net in enumerate((unet, vae, vocoder)):
        tables.enliven(net, seed=seed)
    vae.register_to_config(scaling_factor=0.9392935633659363)
    defaults = Sampling(**SETTINGS, sampler="ddim", grid="published")
    pipe = AudioLDM(unet, vae, vocoder, TwoTowers(text, words), AudioSpec(), name=size, defaults=defaults)
    pipe.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "audioldm.json").unlink()
    assert json.loads((tmp_path / "m/unet/config.json").read_text())["attention_head_dim"] == 8
    yield tmp_path / "m"
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()  # up to 3.6 GB


@pytest.mark.parametrize("folder", SIZES, indirect=True)
def test_stock_diffusers_gives_the_same_sound(folder, request, record_property):
    tables = published("test_folders")
    theirs = tables.stock_wave(folder, 3, **SETTINGS)
    gc.collect()
    sounds = {}
    for heads in ("as-published", "original"):
        pipe = AudioLDM.from_pretrained(folder, heads=heads)
        sounds[heads] = pipe([PROMPT], seeds=[3], sampler="ddim", grid="published", **SETTINGS)
        del pipe
        gc.collect()
    size = request.node.callspec.params["folder"]
    errors = {
        heads: float((wave[:, :-16] - theirs[:, 16:]).abs().max() / theirs.abs().max())
        for heads, wave in sounds.items()
    }
    what = f"prompt to sound {size}, as published"
    record_property("parity", [what, "stock AudioLDMPipeline", errors["as-published"], LIMIT])
    record_property(
        "heads", [f"prompt to sound {size}", "5 DDIM steps, greatest difference", errors["original"]]
    )
    assert theirs.std() > 1e-3
    assert errors["as-published"] < LIMIT
    assert errors["original"] > 1e-3


@torch.no_grad()
def test_stock_audioldm_2_gives_the_same_sound(tmp_path, record_property):
    """U-Net, VAE and vocoder at the published sizes; text encoders of the published widths with two layers."""
    from transformers import (
        ClapAudioConfig,
        ClapAudioModelWithProjection,
        ClapTextConfig,
        ClapTextModelWithProjection,
    )

    tables, relatives = published("originals"), published("relatives")
    tokenizer = load_tokenizer(published("conftest").roberta(tmp_path / "words"), 50265)
    torch.manual_seed(0)
    text = ClapTextModelWithProjection(
        ClapTextConfig(vocab_size=len(tokenizer), num_hidden_layers=2, layer_norm_eps=1e-5)
    )
    clap = TwoTowers(text, tokenizer, ClapAudioModelWithProjection(ClapAudioConfig(depths=[2, 2, 2, 2])))
    words = relatives.generated_text(clap, width=768, t5_width=1024)
    vae, vocoder = build_vae(), build_hifigan()
    unet = build_unet("cross", contexts=(None, 768, 1024))
    for seed, net in enumerate((unet, vae, vocoder)):
        tables.enliven(net, seed=seed)
    vae.register_to_config(scaling_factor=0.9392935633659363)
    settings = Sampling(**SETTINGS, sampler="ddim", grid="published")
    right = AudioLDM(unet, vae, vocoder, clap, AudioSpec(), token_encoder=words, defaults=settings).to("cpu")
    stock = relatives.stock_two(right)
    words.alone = False
    ours = replace(right, unet=stock.unet)
    noise = torch.randn(1, 8, 32, 16, generator=torch.Generator().manual_seed(3))
    first = 1 - stock.scheduler.alphas_cumprod[801]
    theirs = stock(
        PROMPT, audio_length_in_s=1.28, num_inference_steps=5, guidance_scale=2.5,
        latents=noise * first.sqrt(), output_type="pt",
    ).audios  # fmt: skip
    errors = [
        float((pipe([PROMPT], seeds=[3])[:, :-16] - theirs[:, 16:]).abs().max() / theirs.abs().max())
        for pipe in (ours, right)
    ]
    record_property(
        "parity", ["prompt to sound AudioLDM 2, as published", "stock AudioLDM2Pipeline", errors[0], LIMIT]
    )
    record_property("heads", ["prompt to sound AudioLDM 2", "5 DDIM steps, greatest difference", errors[1]])
    assert theirs.std() > 1e-3
    assert errors[0] < LIMIT < 1e-3 < errors[1]
