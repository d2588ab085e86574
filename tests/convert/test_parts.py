"""Every form of a reference gives the same part: folders of three libraries, files, runs, and the hub's cache."""

import json
import shutil
from pathlib import Path

import pytest
import relatives
import torch
from hydra.utils import instantiate
from originals import clap_state, prefixed, vae_state, vocoder_state, weight_normed, whole
from transformers import ClapConfig, ClapModel

from audioldm import recipes
from audioldm.convert.reference import find_part, open_model, open_part, t5_of_run
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import MelEncoder
from audioldm.nets.folder import save_component
from audioldm.paths import sha256

WAVE = 0.3 * torch.randn(2, 1, 24000, generator=torch.Generator().manual_seed(0))
TEXTS = ["a dog", "rain"]


def equal(a, b) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(value, theirs[key]) for key, value in ours.items()
    )


@pytest.fixture(scope="module")
def places(pipe, vocabulary, tmp_path_factory) -> dict[str, Path]:
    """The toy AudioLDM in every form that is published."""
    root = tmp_path_factory.mktemp("places")
    (root / "tokenizer").symlink_to(vocabulary)
    pipe.save_pretrained(root / "ours")
    shutil.copytree(root / "ours", root / "diffusers")
    (root / "diffusers/audioldm.json").unlink()
    torch.save({"state_dict": whole(pipe)}, root / "whole.ckpt")
    state = prefixed(clap_state(pipe.clap), "module.") | {
        "module.text_branch.embeddings.position_ids": torch.arange(514)[None]
    }
    torch.save({"epoch": 3, "state_dict": state}, root / "laion.pt")
    torch.save({"state_dict": vae_state(pipe.vae)}, root / "vae.ckpt")
    torch.save({"generator": weight_normed(vocoder_state(pipe.vocoder))}, root / "hifigan.pth")
    clap = pipe.clap
    config = ClapConfig(
        text_config=clap.text_encoder.config.to_dict(), audio_config=clap.audio_encoder.config.to_dict(),
        projection_dim=clap.dim,
    )  # fmt: skip
    model = ClapModel(config).eval()
    model.load_state_dict(
        {**model.state_dict(), **clap.text_encoder.state_dict(), **clap.audio_encoder.state_dict()}
    )
    save_component(model, root / "transformers")
    clap.extractor.save_pretrained(root / "transformers")
    for path in vocabulary.iterdir():
        shutil.copy(path, root / "transformers")
    return {path.name: path for path in root.iterdir()}


CLAPS = ("ours", "diffusers", "whole.ckpt", "laion.pt", "transformers")


@pytest.mark.parametrize("name", CLAPS)
def test_laions_clap_by_every_layout_is_the_same_two_towers(pipe, places, name, tmp_path):
    clap = open_part(places[name], "clap")
    assert clap.extractor and (clap.dim, clap.rate) == (16, 48000)
    with torch.no_grad():
        assert torch.equal(clap.embed_text(TEXTS), pipe.clap.embed_text(TEXTS))
        assert torch.equal(clap.embed_audio(WAVE), pipe.clap.embed_audio(WAVE))
    files = find_part(places[name], "clap").files
    assert (
        files
        and all(path.is_file() for path in files)
        and len({sha256(path) for path in files}) == len(files)
    )
    clap.save(tmp_path)
    again = open_part(tmp_path, "clap")
    assert equal(again.text_encoder, clap.text_encoder) and equal(again.audio_encoder, clap.audio_encoder)


@pytest.mark.parametrize("name", ["laion.pt", "transformers"])
def test_data_encode_takes_any_clap(command, places, name, tmp_path, monkeypatch):
    monkeypatch.setattr("audioldm.training.encoding.ROUNDS", 1)
    words = ("--vae", places["ours"], "--seconds", "0.64", "--spec", "16k_64")
    assert command("data", "encode", "synthetic", "-o", tmp_path / "c", "--clap", places[name], *words) == 0
    index = json.loads((tmp_path / "c/index.json").read_text())
    assert len(index["null"]) == 16 and index["windows"] == 7


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in ("ours", "diffusers", "whole.ckpt") for kind in ("unet", "vae", "vocoder")]
    + [("vae.ckpt", "vae"), ("ours/vae", "vae"), ("ours/unet/diffusion_pytorch_model.safetensors", "unet")],
)  # fmt: skip
def test_nets_by_every_layout(pipe, places, name, kind):
    first, _, rest = name.partition("/")
    assert equal(open_part(places[first] / rest, kind), getattr(pipe, kind))


def test_a_hifigan_of_the_training_repository(pipe, places):
    vocoder = open_part(places["hifigan.pth"], "vocoder")
    for key, value in pipe.vocoder.state_dict().items():
        torch.testing.assert_close(vocoder.state_dict()[key], value, rtol=0, atol=3e-7)


def test_t5_of_a_folder_of_its_own_and_of_a_model(pipe, tmp_path):
    text = relatives.t5_text()
    save_component(text.model, tmp_path / "t5")
    text.tokenizer.save_pretrained(tmp_path / "t5")
    relatives.two(pipe).save_pretrained(tmp_path / "two")
    for place in ("t5", "two"):
        again = open_part(tmp_path / place, "text_encoder")
        assert torch.equal(again.embed("a dog barking"), text.embed("a dog barking")) and again.longest == 128


def test_the_small_clap_and_half_precision(tiny_model):
    clap = open_part(tiny_model, "clap")
    half = open_part(tiny_model, "clap", dtype=torch.bfloat16)
    assert clap.extractor is None and half.dtype == torch.bfloat16
    with torch.no_grad():
        assert (clap.embed_audio(WAVE, 16000) * half.embed_audio(WAVE, 16000)).sum(-1).min() > 0.99
    assert open_part(tiny_model / "vae", "vae", dtype=torch.bfloat16).dtype == torch.bfloat16
    assert (
        isinstance(open_part("embedded", "clap").audio_encoder, MelEncoder)
        and open_model().name == open_model("embedded").name
    )


@pytest.mark.gpu
def test_frozen_parts_are_bfloat16_on_a_gpu(tiny_model):
    assert open_part(tiny_model, "vae", device="cuda").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("laion.pt", "vae", "has no VAE"),
        ("vae.ckpt", "clap", "has no CLAP"),
        ("hifigan.pth", "unet", "has no U-Net"),
        ("transformers", "vae", "holds a ClapModel, no AutoencoderKL"),
        ("ours/vae", "clap", "holds a AutoencoderKL, no ClapModel"),
        ("ours/vae", "unet", "holds a AutoencoderKL, no UNet2DConditionModel or AudioLDM2"),
        ("tokenizer", "vae", "holds no vae"),
        ("ours", "text_encoder", "holds no text_encoder_2"),
        ("ours/model_index.json", "clap", "is no weight file"),
        ("nowhere", "clap", "is not a model folder, a checkpoint, or a hub id"),
        ("ours", "lamp", "kind='lamp' is no part of a model"),
    ],
)
def test_another_part_is_named(places, name, kind, message):
    with pytest.raises(AudioLDMError, match=message) as error:
        open_part(places["ours"].parent / name, kind)
    assert "\n" not in str(error.value)


def test_a_runs_configuration_calls_builders_of_nets_only(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {"vae.a": torch.zeros(1)}}, run / "checkpoints/last.ckpt")
    (tmp_path / "secret").write_bytes((5).to_bytes(8, "little") + b"hello, and what follows it")
    before = (tmp_path / "secret").read_bytes()
    for target in (
        "os.system",
        "audioldm.nets.folder.save_component",
        "audioldm.convert.reference.open_model",
    ):
        node = f"{{_target_: {target}, path: {tmp_path / 'secret'}}}"
        (run / "config.yaml").write_text(f"task: {{vae: {node}}}")
        with pytest.raises(AudioLDMError, match=f"names '{target}'"):
            open_part(run / "checkpoints/last.ckpt", "vae")
    assert (tmp_path / "secret").read_bytes() == before
    for text, message in (
        ("a: [", "is not YAML"),
        ("a: 1", "is no configuration"),
        ("task: {}", "trained no vae"),
    ):
        (run / "config.yaml").write_text(text)
        with pytest.raises(AudioLDMError, match=message):
            open_part(run / "checkpoints/last.ckpt", "vae")
    for data in ("", "data: []", "data: {folder: 3}"):
        (run / "config.yaml").write_text(f"task: {{}}\n{data}\n")
        with pytest.raises(AudioLDMError, match="names no folder of latents"):
            t5_of_run(run)
    with pytest.raises(AudioLDMError, match="the run is not finished"):
        open_part(run, "vae")


def test_export_puts_a_part_into_a_model(command, pipe, places, tmp_path, capsys):
    words = ("--clap", places["laion.pt"], "--vocoder", places["hifigan.pth"])
    assert command("export", places["diffusers"], *words, "-o", tmp_path / "m", "--name", "mine") == 0
    model = open_model(tmp_path / "m")
    assert model.name == "mine" and equal(model.clap.audio_encoder, pipe.clap.audio_encoder)
    assert command("export", places["ours"], "--clap", "embedded", "-o", tmp_path / "n") == 2
    assert "does not fit" in capsys.readouterr().err
    assert command("export", places["ours"], "--ldm", places["ours"], "-o", tmp_path / "n") == 2
    assert "Both a REF and its U-Net or T5 were named." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "choice"), [("clap", "laion"), ("vae", "published"), ("vocoder", "published")]
)
def test_a_recipe_takes_a_published_part(places, part, choice):
    """Its address is the hub's; any reference may stand there."""
    names = {"clap": "tiny/clap", "vae": "tiny/vae", "vocoder": "tiny/vocoder"}
    group = f"model/{part}@task.{part}={choice}"
    ref = recipes.load(names[part], [group]).task[part].ref
    assert ref == {"laion": "laion/clap-htsat-unfused", "published": "cvssp/audioldm-s-full-v2"}[choice]
    place = places["laion.pt" if part == "clap" else "diffusers"]
    net = instantiate(recipes.load(names[part], [group, f"task.{part}.ref={place}"]).task[part])
    ours = open_part(places["ours"], part)
    for inner in ("text_encoder", "audio_encoder") if part == "clap" else ("",):
        assert equal(net.get_submodule(inner), ours.get_submodule(inner))
