"""Components on disk: exact round trips, and one clear line for each kind of damage."""

import json
import os
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import MelEncoder
from audioldm.nets.folder import load_component, save_component, weight_file, weight_hash
from audioldm.nets.hifigan import build_hifigan
from audioldm.nets.unet import build_unet
from audioldm.nets.vae import build_vae
from audioldm.paths import AHEAD, sha256

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


@pytest.mark.parametrize("name", BUILDS)
def test_what_a_file_will_replace_is_not_drawn(name: str, tmp_path):
    """transformers puts initialisers of its own in the place of torch's."""
    save_component(BUILDS[name](), tmp_path)
    before = torch.get_rng_state()
    load_component(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


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
    with refused("is not JSON"):
        load_component(tmp_path)
    config.unlink()
    with refused("is missing"):
        load_component(tmp_path)


def test_a_digest_that_was_computed_ahead_is_taken_once(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(range(256)) * 9)
    assert sha256(file, once=True) == sha256(file)
    AHEAD[file] = "ahead"
    assert [weight_hash(file), weight_hash(file)] == ["ahead", sha256(file)]


def test_a_file_that_is_longer_than_its_weights_is_refused_unread(tmp_path):
    whole = tmp_path / "whole.bin"
    torch.save({"weight": torch.randn(1000)}, whole)
    assert weight_hash(whole) == sha256(whole)
    torch.save(
        {"weight": torch.randn(1000)}, old := tmp_path / "old.bin", _use_new_zipfile_serialization=False
    )
    assert weight_hash(old) == sha256(old)
    (tmp_path / "zeros.bin").touch()
    (tmp_path / "padded.bin").write_bytes(whole.read_bytes())
    (tmp_path / "padded_old.bin").write_bytes(old.read_bytes())
    for name in ("zeros", "padded", "padded_old"):
        os.truncate(tmp_path / f"{name}.bin", 64 * 2**30)
    with open(tmp_path / "before.bin", "wb") as file:  # an archive is found from its end
        file.seek(64 * 2**30)
        file.write(whole.read_bytes())
    began = time.monotonic()
    for name in ("zeros", "padded", "padded_old", "before"):
        with pytest.raises(AudioLDMError, match=f"{name}.bin cannot be read"):
            weight_hash(tmp_path / f"{name}.bin")
    assert time.monotonic() - began < 5, "64 GiB take longer"
