"""Ours against stock diffusers on one folder, at the published sizes, with random weights: make parity."""

import gc
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.pretrained_clap import PretrainedClap
from audioldm.nets.published.folder import load_any_tokenizer
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.spec import AudioSpec

pytestmark = pytest.mark.slow
SIZES = {
    "s": (128, 256, 384, 640),
    "m": (192, 384, 576, 960),
    "l": (256, 512, 768, 1280),
}
PROMPT = "a dog barking in the rain"
SETTINGS = {"seconds": 1.28, "steps": 5, "guidance": 2.5}


def published(name: str):
    """A module of tests/published, by its path."""
    path = Path(__file__).parents[1] / "published" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, request):
    """A model folder of a published size, as the converter leaves it: 8 heads in the U-Net's configuration."""
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    tables, size = published("originals"), request.param
    words = load_any_tokenizer(published("conftest").roberta(tmp_path / "words"))
    torch.manual_seed(0)
    text = ClapTextModelWithProjection(ClapTextConfig())
    vae, vocoder, unet = build_vae(), build_hifigan(), build_unet(channels=SIZES[size], heads=8)
    for seed, net in enumerate((unet, vae, vocoder)):
        tables.enliven(net, seed=seed)
    vae.register_to_config(scaling_factor=0.9392935633659363)
    defaults = {**SETTINGS, "sampler": "ddim", "grid": "published"}
    pipe = AudioLDM(
        unet, vae, vocoder, PretrainedClap(text, words), AudioSpec(), name=size, defaults=defaults
    )
    pipe.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "audioldm.json").unlink()
    assert json.loads((tmp_path / "m/unet/config.json").read_text())["attention_head_dim"] == 8
    yield tmp_path / "m"
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()  # up to 3.6 GB


@pytest.mark.parametrize("folder", SIZES, indirect=True)
def test_stock_diffusers_gives_the_same_sound(folder, request, capsys):
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
    with capsys.disabled():
        print(
            f"\nparity | prompt to sound {size}, as published | stock diffusers | {errors['as-published']:.1e}"
        )
        print(
            f"\nheads | {size} | sound with the original heads against stock's 8 | {errors['original']:.1e}"
        )
    assert theirs.std() > 1e-3
    assert errors["as-published"] < 1e-4  # float32 in other orders of summation
    assert errors["original"] > 1e-3
