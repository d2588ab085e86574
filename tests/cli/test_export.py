"""``audioldm export`` of a model that is one already; joining runs is in tests/recipes/test_chain.py."""

import json

import pytest
import torch
from safetensors.torch import load_file

from audioldm.nets.folder import weight_file
from audioldm.pipeline.audioldm import AudioLDM


def test_half_precision_by_name_and_back_to_the_same_sound(command, tiny_model, tmp_path, capsys):
    for dtype in ("float32", "bfloat16"):
        assert command("export", tiny_model, "-o", tmp_path / dtype, "--dtype", dtype) == 0, dtype
    same, half = AudioLDM.from_pretrained(tmp_path / "float32"), tmp_path / "bfloat16"
    ours = AudioLDM.from_pretrained(tiny_model)
    assert torch.equal(same(["rain"], seeds=[0]), ours(["rain"], seeds=[0]))
    assert same.hashes == ours.hashes and same.defaults == ours.defaults and same.name == ours.name
    assert load_file(weight_file(half / "unet"))["conv_in.weight"].dtype == torch.bfloat16
    assert sum(p.stat().st_size for p in half.rglob("*.safetensors")) < 0.6 * sum(
        p.stat().st_size for p in tiny_model.rglob("*.safetensors")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Not all parts were named. Name a REF, or all of --ldm, --vae, --vocoder and --clap."),
        (("nowhere",), "nowhere is not a model folder, a checkpoint, or a hub id."),
        (("{model}", "--dtype", "int8"), "'int8' is not one of 'float32', 'float16', 'bfloat16'"),
        (("{model}", "--sampler", "magic"), "sampler='magic' is unknown."),
        (("{model}", "--set", "grid=magic"), "grid='magic' is unknown."),
    ],
)
def test_mistakes_are_told_before_anything_is_written(command, tiny_model, tmp_path, capsys, words, message):
    words = [word.format(model=tiny_model) for word in words]
    assert command("export", *words, "-o", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_model_is_kept(command, tiny_model, tmp_path, capsys):
    assert command("export", tiny_model, "-o", tmp_path / "m") == 0
    assert command("export", tiny_model, "-o", tmp_path / "m", "--name", "new") == 2
    assert "model_index.json is already there. Pass --force" in capsys.readouterr().err
    assert command("export", tiny_model, "-o", tmp_path / "m", "--name", "new", "--force") == 0
    assert json.loads((tmp_path / "m/audioldm.json").read_text())["name"] == "new"
