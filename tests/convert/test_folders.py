"""Folders of diffusers: as the converter left them years ago, as we write them, and as stock diffusers hears them."""

import json
import shutil

import pytest
import torch
from diffusers import AudioLDMPipeline, DiffusionPipeline
from safetensors.torch import load_file, save_file

from audioldm.components import Sampling
from audioldm.convert.model import read_scheduler
from audioldm.diffusion.grids import GRIDS
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import weight_file
from audioldm.nets.unet import multiple_of
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.spec import AudioSpec

PROMPT = "a dog barking in the rain"
OLD_NAMES = {
    "unet": "diffusion_pytorch_model.bin",
    "vae": "diffusion_pytorch_model.bin",
    "text_encoder": "pytorch_model.bin",
    "vocoder": "pytorch_model.bin",
}


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def ours(pipe, tmp_path_factory):
    """The toy model as our folder."""
    folder = tmp_path_factory.mktemp("ours")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def converted(ours, vocabulary, tmp_path_factory):
    """The same as the converter of diffusers 0.15 left it: 8 heads, old attention names, pickles, no audio tower."""
    folder = tmp_path_factory.mktemp("converted") / "m"
    shutil.copytree(ours, folder)
    (folder / "audioldm.json").unlink()
    shutil.rmtree(folder / "audio_encoder")
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(vocabulary, folder / "tokenizer")
    edit(folder / "model_index.json", tokenizer=["transformers", "RobertaTokenizer"])
    edit(folder / "unet/config.json", attention_head_dim=8)
    scheduler = {
        "beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
        "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon",
    }  # fmt: skip
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps({"_class_name": "DDIMScheduler", **scheduler})
    )
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for part in ("unet", "vae", "text_encoder", "vocoder"):
        path = weight_file(folder / part)
        state = {key: value.clone() for key, value in load_file(path).items()}
        if part == "vae":
            for new, old in names.items():
                state = {
                    key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for key, v in state.items()
                }
        if part == "text_encoder":
            state = {key: v for key, v in state.items() if not key.endswith("token_type_ids")}
        path.unlink()
        torch.save(state, folder / part / OLD_NAMES[part])
    return folder


@pytest.fixture(scope="module")
def openable(converted, ours, tmp_path_factory):
    """As ``converted``, with the files that today's diffusers opens: it cannot read the old attention names."""
    folder = tmp_path_factory.mktemp("openable") / "m"
    shutil.copytree(ours, folder)
    (folder / "audioldm.json").unlink()
    shutil.copy(converted / "scheduler/scheduler_config.json", folder / "scheduler")
    edit(folder / "unet/config.json", attention_head_dim=8)
    return folder


def stock_wave(folder, seed: int, *, seconds: float, steps: int, guidance: float):
    """Stock diffusers from the same noise: ours is the level's own, sqrt(1 - alpha_bar), theirs is given the same."""
    stock = DiffusionPipeline.from_pretrained(str(folder))  # which finds AudioLDMPipeline by its name
    assert isinstance(stock, AudioLDMPipeline)
    stock.set_progress_bar_config(disable=True)
    schedule, _ = read_scheduler(folder / "scheduler")
    sigma = GRIDS["published"](schedule, steps)[0]
    spec = AudioSpec(latent_channels=stock.unet.config.in_channels)
    shape = spec.latent_shape(seconds, multiple_of(stock.unet))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))[None]
    latents = noise * (sigma * schedule.alpha_of(sigma)).float()
    return stock(
        PROMPT, audio_length_in_s=seconds, num_inference_steps=steps, guidance_scale=guidance, latents=latents,
        output_type="pt",
    ).audios  # fmt: skip


def relative(a, b) -> float:
    return float((a - b).norm() / b.norm())


SETTINGS = {"seconds": 1.28, "steps": 10, "guidance": 2.5}


def test_stock_diffusers_gives_the_same_sound_with_its_heads(openable):
    ours = AudioLDM.from_pretrained(openable, heads="as-published")
    right = AudioLDM.from_pretrained(openable)
    settings = {**SETTINGS, "sampler": "ddim", "grid": "published"}
    a = ours([PROMPT], seeds=[3], **settings)
    b = stock_wave(openable, 3, **SETTINGS)
    # stock trims nothing at the start; the vocoder's 32 extra samples come off both ends here
    assert b.shape == a.shape
    assert relative(a[:, :-16], b[:, 16:]) < 1e-4  # both float32: other orders of summation, over 10 steps
    c = right([PROMPT], seeds=[3], **settings)
    assert relative(c[:, :-16], b[:, 16:]) > 1e-3, "the original heads are audibly another net"


def test_the_old_converters_folder_opens(converted, openable):
    old, new = AudioLDM.from_pretrained(converted), AudioLDM.from_pretrained(openable)
    assert tuple(old.unet.config.attention_head_dim) == (1, 2)
    for part in ("unet", "vae", "vocoder"):
        for key, value in getattr(new, part).state_dict().items():
            assert torch.equal(getattr(old, part).state_dict()[key], value), key
    assert old.defaults == Sampling() and "CC-BY-NC-SA" in old.notice
    assert torch.equal(old.clap.embed_text([PROMPT]), new.clap.embed_text([PROMPT]))
    with pytest.raises(AudioLDMError, match=r"no audio tower.*original .ckpt"):
        old.clap.embed_audio(torch.zeros(1, 1, 16000))


def test_our_folder_comes_back_exactly_and_stock_opens_it_with_the_right_heads(pipe, ours):
    again = AudioLDM.from_pretrained(ours)
    assert not again.notice and again.defaults == pipe.defaults and again.spec == pipe.spec
    wave = torch.randn(1, 1, 16000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.clap.embed_audio(wave), pipe.clap.embed_audio(wave))
    assert torch.equal(again([PROMPT], seeds=[5]), pipe([PROMPT], seeds=[5]))
    stock = AudioLDMPipeline.from_pretrained(str(ours))
    assert list(stock.unet.config.attention_head_dim) == [1, 2]
    assert type(stock.tokenizer).__name__.startswith("Roberta")
    a, b = (
        again([PROMPT], seeds=[5], **SETTINGS, sampler="ddim", grid="published"),
        stock_wave(ours, 5, **SETTINGS),
    )
    assert relative(a[:, :-16], b[:, 16:]) < 1e-4  # as above


def test_half_precision_folders_hold_half_precision(pipe, tmp_path):
    for dtype in (torch.float16, torch.bfloat16):
        pipe.save_pretrained(tmp_path, dtype=dtype)
        assert load_file(weight_file(tmp_path / "unet"))["conv_in.weight"].dtype == dtype
        again = AudioLDM.from_pretrained(tmp_path)
        for key, value in pipe.unet.state_dict().items():
            assert torch.equal(again.unet.state_dict()[key], value.to(dtype).float()), key


def refused(match: str):
    return pytest.raises(AudioLDMError, match=match)


def test_damaged_and_foreign_folders_are_told(converted, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(converted, folder)
    edit(folder / "model_index.json", _class_name="StableDiffusionPipeline")
    with refused("is a StableDiffusionPipeline. Known: AudioLDMPipeline, AudioLDM2Pipeline"):
        AudioLDM.from_pretrained(folder)
    edit(folder / "model_index.json", _class_name="AudioLDMPipeline")
    (folder / "tokenizer/merges.txt").unlink()
    with refused(r"merges.txt is missing. Put the tokenizer of FacebookAI/roberta-base into"):
        AudioLDM.from_pretrained(folder)
    shutil.copytree(converted / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
    weights = folder / "vae/diffusion_pytorch_model.bin"
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "encoder.new.weight": torch.zeros(1)}, weights)
    with refused("unknown 'encoder.new.weight'"):
        AudioLDM.from_pretrained(folder)
    weights.write_bytes(weights.read_bytes()[:1000])
    with refused("diffusion_pytorch_model.bin cannot be read"):
        AudioLDM.from_pretrained(folder)
    weights.unlink()
    with refused("vae has no weights"):
        AudioLDM.from_pretrained(folder)


def test_shards_are_joined(converted, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(converted, folder)
    path = folder / "unet/diffusion_pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    path.unlink()
    keys, place = sorted(state), {}
    for i, part in enumerate((keys[::2], keys[1::2])):
        name = f"diffusion_pytorch_model-{i + 1:05d}-of-00002.safetensors"
        save_file({k: state[k].contiguous() for k in part}, folder / "unet" / name)
        place |= dict.fromkeys(part, name)
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": place})
    )
    for key, value in AudioLDM.from_pretrained(folder).unet.state_dict().items():
        assert torch.equal(state[key], value), key
