"""Adapters on a pipeline and on the command line: applied, told, taken off, exported."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from audioldm.adapters.adapter import defaults, start
from audioldm.adapters.files import write
from audioldm.adapters.words import Words
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.pipeline.audioldm import AudioLDM

QUICK = {"seconds": 0.32, "steps": 2, "guidance": 2.0}


@pytest.fixture
def pipe(tiny_model):
    return AudioLDM.from_pretrained(tiny_model)


@pytest.fixture
def files(pipe, tmp_path):
    """A LoRA, a LoKr of another rank and a word, all of which change something; their paths by name."""
    rng = torch.Generator().manual_seed(0)
    for name, kind, rank, convolutions in (("lora", "lora", 2, False), ("lokr", "lokr", 5, True)):
        targets = defaults(pipe.unet, convolutions=convolutions)
        made = start(pipe.unet, kind, rank=rank, targets=targets, generator=rng)
        for layer in made.layers.values():
            for factor in layer.factors.values():
                factor += 0.2 * torch.randn(factor.shape, generator=rng)
        made.base["unet"] = pipe.hashes["unet"]
        write(tmp_path / f"{name}.safetensors", made)
    rows = torch.randn(2, 16, generator=rng)
    write(tmp_path / "word.safetensors", Words("<mine>", rows, {"text_encoder": pipe.hashes["text_encoder"]}))
    return {name: str(tmp_path / f"{name}.safetensors") for name in ("lora", "lokr", "word")}


def sound(pipe, prompt="rain"):
    return pipe([prompt], seeds=[0], **QUICK)


def test_adapters_come_and_go_without_a_trace(pipe, files):
    before, words = sound(pipe), pipe.clap.tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = sound(pipe.adapt(files["lora"]))
        both = sound(pipe.adapt(files["lora"], f"{files['lokr']}:0.5", files["word"]))
    assert len({tuple(wave.flatten().tolist()) for wave in (before, one, both)}) == 3
    assert [round(a["weight"], 3) for a in pipe.adapted.applied] == [1.0, 0.5, 1.0]
    assert torch.equal(sound(pipe.adapt(files["lora"])), one), "no trace of those before"
    assert torch.equal(sound(pipe.adapt((files["lokr"], 0.0))), before), "weight 0 is no adapter"
    assert torch.equal(sound(pipe.adapt()), before)
    assert pipe.adapted is None and pipe.clap.tokenizer is words


def test_a_word_is_heard_where_it_is_spoken(pipe, files):
    plain, without = sound(pipe, "rain"), sound(pipe, "a <mine>")
    pipe.adapt(files["word"])
    assert torch.equal(sound(pipe, "rain"), plain)
    assert not torch.equal(sound(pipe, "a <mine>"), without)
    with pytest.raises(AudioLDMError, match="a word has no weight"):
        pipe.adapt(f"{files['word']}:0.5")


def test_another_base_is_warned_of(pipe, files, tmp_path):
    pipe.hashes["unet"] = "f" * 64
    with pytest.warns(AudioLDMWarning, match=r"was trained on another unet \(.*than that of tiny \(ffff"):
        pipe.adapt(files["lora"])
    pipe = replace(pipe, hashes={"checkpoint": "e" * 64})
    with pytest.warns(AudioLDMWarning, match="does not say whether it was trained on tiny"):
        pipe.adapt(files["lora"])


def test_what_fails_leaves_the_model_itself(pipe, files, tmp_path):
    before = sound(pipe)
    pipe.adapt(files["lora"])
    for wrong in ("none.safetensors", f"{files['lora']}:inf"):
        with pytest.raises(AudioLDMError):
            pipe.adapt(files["lokr"], wrong)
    with pytest.raises(AudioLDMError, match="knows the word <mine> already"):
        pipe.adapt(files["lora"], files["word"], files["word"])
    assert pipe.adapted is None and torch.equal(sound(pipe), before)


def test_generate_and_export_know_adapters(command, tiny_model, pipe, files, tmp_path, capsys):
    words = ("generate", "a <mine>", "--seconds", "0.32", "--steps", "2", "--set", "figure=false")
    stack = ("--adapter", f"{files['lokr']}:0.5", "--adapter", files["word"])
    assert command(*words, "-m", tiny_model, *stack, "-o", tmp_path / "a") == 0
    told = json.loads((tmp_path / "a/a_mine_seed0.json").read_text())["model"]
    assert [(one["kind"], one["rank"], one["weight"]) for one in told["adapters"]] == [
        ("lokr", 5, 0.5),
        ("textual_inversion", 2, 1.0),
    ]
    merged = tmp_path / "merged"
    stack = ("--merge", f"{files['lokr']}:0.5", "--merge", files["word"])
    assert command("export", tiny_model, *stack, "-o", merged) == 0
    assert command(*words, "-m", merged, "-o", tmp_path / "b") == 0
    assert (tmp_path / "a/a_mine_seed0.wav").read_bytes() == (tmp_path / "b/a_mine_seed0.wav").read_bytes()
    assert len(AudioLDM.from_pretrained(merged).about["merged"]) == 2
    assert AudioLDM.from_pretrained(merged).hashes["unet"] != pipe.hashes["unet"]
    capsys.readouterr()
    assert command(*words, "-m", merged, "--adapter", files["lora"], "-o", tmp_path / "c") == 0
    assert "audioldm: warning: " in capsys.readouterr().err
    assert command(*words, "-m", tiny_model, "--adapter", "none.safetensors", "-o", tmp_path / "d") == 2
    assert "adapter=none.safetensors is not a file" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_adapter_shows_and_converts(layout, command, tiny_model, files, tmp_path, capsys):
    assert command("adapter", "show", files["lokr"], "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["rank"]) == ("lokr", 5) and told["base"]["unet"]
    out = tmp_path / ("theirs.safetensors" if layout == "kohya" else "theirs")
    assert command("adapter", "convert", files["lokr"], "--to", layout, "-o", out) == 0
    file = capsys.readouterr().out.splitlines()[0]
    back = tmp_path / "back.safetensors"
    assert command("adapter", "convert", file, "-o", back, "-m", tiny_model) == 0
    want = sound(AudioLDM.from_pretrained(tiny_model).adapt(files["lokr"]))
    for other in (file, back):
        got = sound(AudioLDM.from_pretrained(tiny_model).adapt(other))
        torch.testing.assert_close(
            got, want, rtol=0, atol=1e-4
        )  # 1e-7 of a weight, through two steps and a vocoder
    capsys.readouterr()
    assert command("adapter", "convert", files["lokr"], "--to", layout, "-o", out) == 2
    assert "is already there" in capsys.readouterr().err
    assert command("adapter", "convert", files["word"], "--to", layout, "-o", tmp_path / "w.safetensors") == 2
    assert "no layout for new words" in capsys.readouterr().err
    assert command("adapter", "show", tiny_model / "audioldm.json") == 2
    assert "not safetensors" in capsys.readouterr().err


def test_stock_diffusers_opens_a_merged_model(files, tiny_model, command, tmp_path):
    from diffusers import UNet2DConditionModel

    assert command("export", tiny_model, "--merge", files["lora"], "-o", tmp_path / "m") == 0
    ours = AudioLDM.from_pretrained(tiny_model).adapt(files["lora"]).unet.state_dict()
    stock = UNet2DConditionModel.from_pretrained(tmp_path / "m" / "unet").state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in stock.items())
