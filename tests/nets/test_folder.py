"""Components on disk: exact round trips, and one clear line for each kind of damage."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import MelEncoder
from audioldm.nets.folder import load_component, save_component, weight_file
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae

BUILDS = {
    "vae": lambda: build_vae(channels=(8, 8), latent_channels=4, layers=1, groups=4),
    "unet": lambda: build_unet(
        channels=(16, 16), latent_channels=4, layers=1, head_channels=8, film_dim=8, groups=4
    ),
    "vocoder": lambda: build_hifigan(
        channels=32, kernels=(3,), dilations=((1,),), mel_mean=-4.0, mel_std=2.0
    ),
    "audio": lambda: MelEncoder(widths=(8, 8), dim=8, hidden=8),
}


@pytest.mark.parametrize("name", BUILDS)
def test_round_trip_is_exact(name: str, tmp_path):
    module = BUILDS[name]()
    save_component(module, tmp_path)
    again = load_component(tmp_path)
    assert type(again) is type(module)
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_half_precision_on_disk_comes_back_as_float32(tmp_path):
    save_component(BUILDS["vae"](), tmp_path, dtype=torch.float16)
    assert load_file(weight_file(tmp_path))["encoder.conv_in.weight"].dtype == torch.float16
    assert load_component(tmp_path).dtype == torch.float32


def test_damage_is_told_in_one_line(tmp_path):
    save_component(BUILDS["vae"](), tmp_path)
    path = weight_file(tmp_path)
    whole = path.read_bytes()
    state = {
        k: v.clone() for k, v in load_file(path).items()
    }  # the loaded tensors are views of the file itself

    def refused(match: str):
        return pytest.raises(AudioLDMError, match=match)

    path.write_bytes(whole[: len(whole) // 2])
    with refused("truncated or corrupt"):
        load_component(tmp_path)
    save_file({k: v for k, v in state.items() if k != "encoder.conv_in.bias"}, path)
    with refused("lacks 'encoder.conv_in.bias'"):
        load_component(tmp_path)
    save_file({**state, "extra": torch.zeros(1)}, path)
    with refused("unknown 'extra'"):
        load_component(tmp_path)
    save_file({**state, "encoder.conv_in.bias": torch.zeros(3)}, path)
    with refused(r"shape \(3,\) and float32, its config.json says of shape \(8,\) and float32"):
        load_component(tmp_path)
    path.unlink()
    with refused("has no weights"):
        load_component(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"_class_name": "Mystery"}))
    with refused("unknown class 'Mystery'"):
        load_component(tmp_path)
    config.write_text("{")
    with refused("not valid JSON"):
        load_component(tmp_path)
    config.unlink()
    with refused("is missing"):
        load_component(tmp_path)
