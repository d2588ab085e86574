"""One file an adapter, and the layouts of kohya and peft, read by peft itself."""

import copy
import json
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from audioldm import AudioLDM
from audioldm.adapters.adapter import merge, unmerge
from audioldm.adapters.delta import DELTAS
from audioldm.adapters.files import export, load, read, write
from audioldm.adapters.words import Words
from audioldm.convert.reference import EMBEDDED
from audioldm.errors import AudioLDMError, AudioLDMWarning

EXACT = {"rtol": 0, "atol": 1e-6}


def heard(net, answer, adapter):
    """The answer with an adapter, the net left as it was."""
    with torch.no_grad():
        kept = merge(net, [(adapter, 1.0)])
        out = answer(net)
        unmerge(net, kept)
    return out


@pytest.mark.parametrize("kind", DELTAS)
def test_a_file_comes_back_as_it_went(tmp_path, unet, answer, moved, kind):
    adapter = moved(unet, kind, alpha=1.0, rank=3)
    adapter.base["unet"], adapter.about["prompt"] = "abc", "my sound"
    write(tmp_path / "a.safetensors", adapter)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    again = read(tmp_path / "a.safetensors")
    assert (again.kind, again.rank, again.alpha) == (kind, 3, 1.0)
    assert (again.targets, again.base, again.about) == (
        adapter.targets,
        {"unet": "abc"},
        {"prompt": "my sound"},
    )
    assert torch.equal(heard(unet, answer, again), heard(unet, answer, adapter))
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        about = file.metadata()
    assert about["kind"] == kind and about["rank"] == "3" and json.loads(about["base"]) == {"unet": "abc"}


@pytest.mark.parametrize("kind", DELTAS)
@pytest.mark.parametrize("layout", ["kohya", "peft"])
def test_layouts_of_others_come_back(tmp_path, unet, answer, moved, kind, layout):
    adapter = moved(unet, kind, alpha=1.5, rank=3)
    place = tmp_path / "a.safetensors" if layout == "kohya" else tmp_path / "folder"
    file = export(place, adapter, layout)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = read(file, unet)
    torch.testing.assert_close(heard(unet, answer, again), heard(unet, answer, adapter), **EXACT)


@pytest.mark.parity
@pytest.mark.parametrize("kind", DELTAS)
@torch.no_grad()
def test_peft_reads_what_we_export_and_we_read_what_peft_saves(tmp_path, unet, answer, moved, kind):
    peft = pytest.importorskip("peft")
    adapter = moved(unet, kind, rank=3, alpha=1.5)
    export(tmp_path / "ours", adapter, "peft")
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(unet), tmp_path / "ours").eval()
    want = heard(unet, answer, adapter)
    torch.testing.assert_close(
        answer(theirs.base_model.model), want, rtol=1e-5, atol=1e-5
    )  # two paths of float32
    theirs.save_pretrained(tmp_path / "theirs")
    again = read(tmp_path / "theirs" / "adapter_model.safetensors")
    torch.testing.assert_close(heard(unet, answer, again), want, **EXACT)


def test_kohyas_keys_are_what_its_readers_expect(tmp_path, unet, moved):
    export(tmp_path / "a.safetensors", moved(unet, "lora", rank=3), "kohya")
    tensors = load_file(tmp_path / "a.safetensors")
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    assert tensors[f"{stem}.lora_down.weight"].shape == (3, 32)
    assert tensors[f"{stem}.lora_up.weight"].shape == (32, 3)
    assert float(tensors[f"{stem}.alpha"]) == 3.0
    assert tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].shape == (3, 16, 3, 3)


def test_kohya_scales_by_alpha_over_rank_and_leaves_text_keys_out(tmp_path, unet):
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    stem = "lora_unet_" + name.replace(".", "_")
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    tensors = {
        f"{stem}.lora_down.weight": down,
        f"{stem}.lora_up.weight": up,
        f"{stem}.alpha": torch.tensor(2.0),
    }
    save_file({**tensors, "lora_te_x.lora_down.weight": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.warns(AudioLDMWarning, match="1 keys are not of the U-Net"):
        adapter = read(tmp_path / "a.safetensors", unet)
    torch.testing.assert_close(adapter.layers[name].delta(torch.zeros(32, 32)), 0.5 * up @ down)


def test_pefts_patterns_and_rslora(tmp_path, unet):
    tensors = {}
    for name in ("a.to_q", "a.to_k"):
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.ones(4, 8)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.ones(8, 4)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"r": 4, "lora_alpha": 2, "alpha_pattern": {"to_k": 8}, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    layers = read(tmp_path / "adapter_model.safetensors").layers
    assert (layers["a.to_q"].scale, layers["a.to_k"].scale) == (1.0, 4.0)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.warns(AudioLDMWarning, match="alpha is taken to be the rank"):
        assert read(tmp_path / "adapter_model.safetensors").layers["a.to_q"].scale == 1.0


def test_words_come_back(tmp_path):
    words = Words("<mine>", torch.randn(2, 8), {"text_encoder": "abc"}, {"clips": "5"})
    write(tmp_path / "w.safetensors", words)
    again = read(tmp_path / "w.safetensors")
    assert torch.equal(again.rows, words.rows)
    assert (again.word, again.base, again.about, again.parameters) == ("<mine>", words.base, words.about, 16)
    with pytest.raises(AudioLDMError, match="kohya has no layout for new words"):
        export(tmp_path / "x.safetensors", words, "kohya")


def test_what_is_no_adapter_is_told_in_one_line(tmp_path, unet):
    with pytest.raises(AudioLDMError, match="is not a file"):
        read(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not this")
    with pytest.raises(AudioLDMError, match="not safetensors, truncated or corrupt"):
        read(tmp_path / "bad.safetensors")
    save_file({"conv.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(AudioLDMError, match=r"is no adapter: it holds 'conv\.weight'"):
        read(tmp_path / "other.safetensors")
    save_file({"lora_unet_nowhere.lora_down.weight": torch.ones(1, 1)}, tmp_path / "k.safetensors")
    with pytest.raises(AudioLDMError, match="no layer for lora_unet_nowhere"):
        read(tmp_path / "k.safetensors", unet)
    tucker = {f"x.lokr_{n}": torch.ones(1, 1) for n in ("w1", "t2", "w2_a", "w2_b")}
    save_file(tucker, tmp_path / "t.safetensors")
    with (
        pytest.warns(AudioLDMWarning),
        pytest.raises(AudioLDMError, match="'lokr_t2', which is not supported"),
    ):
        read(tmp_path / "t.safetensors")
    assert load(tmp_path / "other.safetensors")[1] == {}


@pytest.mark.parametrize("name", ["shield", "turbo"])
def test_the_shipped_adapters_fit_the_shipped_model(name):
    pipe = AudioLDM.from_pretrained()
    adapter = read(EMBEDDED / "adapters" / f"{name}.safetensors", pipe.unet)
    assert adapter.kind == "lora" and adapter.base["unet"] == pipe.hashes["unet"]
    assert {layer.scale for layer in adapter.layers.values()} == {1.0}


def test_the_shipped_student_takes_four_calls_and_says_what_makes_it_worse():
    pipe = AudioLDM.from_pretrained().adapt("turbo")
    assert (pipe.defaults.steps, pipe.defaults.guidance, pipe.defaults.sampler) == (4, 1, "ddim")
    calls = []
    pipe(["rain"], seeds=[0], seconds=1.28, on_step=lambda step, *_: calls.append(step))
    assert len(calls) == 4
    with pytest.warns(AudioLDMWarning, match="steps=8 makes it worse; use ddim, 4 steps and guidance 1"):
        pipe(["rain"], seeds=[0], seconds=1.28, steps=8)


def test_the_shipped_adapter_is_known_by_its_name(tmp_path, monkeypatch):
    pipe = AudioLDM.from_pretrained().adapt("shield")
    assert pipe.adapted.applied[0]["file"] == "shield"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shield").write_text("no adapter")
    with pytest.raises(AudioLDMError, match="shield cannot be read"):
        pipe.adapt("shield")
