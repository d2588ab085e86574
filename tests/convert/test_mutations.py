"""Models whose files are damaged, one value at a time: a line that says what is wrong, or a model that still works."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audioldm.errors import AudioLDMError
from audioldm.nets.folder import weight_file
from audioldm.paths import sha256
from audioldm.pipeline.audioldm import AudioLDM

QUICK = {"seconds": 0.32, "steps": 1, "sampler": "ddim", "guidance": 1.0}
HUGE, NAN = 10**12, float("nan")

CONFIGS = {
    "unet/config.json": {
        "block_out_channels": [None, 0, [], [HUGE, 32], ["a", "b"], {"a": 1}],
        "in_channels": [0, -3, "4"],
        "layers_per_block": [-1, 10**6, 1.5],
        "attention_head_dim": [0, 7, [1]],
        "norm_num_groups": [3, "a"],
        "norm_eps": [None, NAN, [1e-5]],
        "cross_attention_dim": [None, [[]]],
        "down_block_types": [[], ["Strange"], 3],
        "transformer_layers_per_block": [10**9, None],
        "act_fn": [None, "strange"],
        "class_embed_type": ["strange", 3],
        "projection_class_embeddings_input_dim": [HUGE],
        "_class_name": [None, "Mystery", 7],
    },
    "vae/config.json": {
        "scaling_factor": [None, "a", NAN],
        "latent_channels": [0, HUGE],
        "block_out_channels": [[8], "abc"],
        "down_block_types": [["DownEncoderBlock2D"] * 64],
        "norm_num_groups": [0, None],
    },
    "vocoder/config.json": {
        "upsample_rates": [None, [], [0, 0, 0, 0, 0], ["a"], [HUGE, 4, 2, 2, 2], [5, 4, 2, 2, 3]],
        "upsample_kernel_sizes": [[16], None],
        "resblock_kernel_sizes": [[], [-3]],
        "resblock_dilation_sizes": [[[]], [[0, 0]]],
        "sampling_rate": [None, HUGE],
        "model_in_dim": [0, 63],
        "leaky_relu_slope": ["a", None],
    },
    "text_encoder/config.json": {
        "hidden_size": [0, 15, HUGE],
        "num_attention_heads": [0, 3],
        "num_hidden_layers": [HUGE, -1, "a"],
        "vocab_size": [1, None],
        "max_position_embeddings": [0, 2],
        "pad_token_id": [-5, 10**6],
        "hidden_act": ["strange", None],
    },
    "audio_encoder/config.json": {
        "widths": [None, [], [HUGE, 8], ["a"]],
        "spec": ["strange", ["16k_64"]],
        "dim": [0, 15, HUGE],
    },
    "scheduler/scheduler_config.json": {
        "trained_betas": [[], "a", [None, 0.1], [NAN] * 1000, [[0.1]], {"a": 1}, [2.0] * 1000],
        "prediction_type": [None, "strange", 4, []],
    },
    "audioldm.json": {
        "name": [None, 3],
        "spec": [None, [], {"rate": 0}, {"rate": "a"}, {"strange": 1}, {"hop": -1}, {"mels": HUGE}],
        "defaults": [None, [], {"steps": 4}, {"seconds": "a"}],
        "about": [[], "x"],
        "sha256": [[], {"unet": 3}],
    },
    "model_index.json": {"_class_name": [None, 5], "texts": [3]},
    "tokenizer/tokenizer_config.json": {
        "pad_token": [None],
        "model_max_length": ["a"],
        "tokenizer_class": [5],
    },
    "tokenizer/tokenizer.json": {
        "model": [None, {}, {"type": "WordPiece", "vocab": {"a": -1}}],
        "version": [None],
    },
}
TEXTS = {
    "empty": b"", "cut": b'{"a": [1, 2', "list": b"[1, 2]", "bytes": b"\xff\xfe\x00", "deep": b"[" * 100_000,
    "number": b"1e999", "nothing": b"null",
}  # fmt: skip
FILES = sorted(CONFIGS)


@pytest.fixture(scope="module")
def base(tiny_model: Path, tmp_path_factory) -> Path:
    """The tiny model without hashes, which would refuse every change of a weight."""
    folder = tmp_path_factory.mktemp("mutated") / "base"
    shutil.copytree(tiny_model, folder)
    path = folder / "audioldm.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": {}}))
    return folder


def linked(base: Path, folder: Path) -> Path:
    """A copy of ``base`` that shares its files until one is replaced."""
    shutil.copytree(base, folder, copy_function=lambda a, b: Path(b).symlink_to(a))
    return folder


def replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def survives(folder: Path) -> str:
    """ "" where the model works, else the one line of its refusal; anything else fails the test."""
    try:
        wave = AudioLDM.from_pretrained(folder)(["rain"], seeds=[0], **QUICK)
    except AudioLDMError as error:
        line = str(error)
    else:
        assert wave.shape == (1, 5120) and bool(wave.isfinite().all())
        return ""
    assert "\n" not in line and len(line) < 600, line
    return line


@pytest.mark.parametrize("file", FILES)
def test_a_value_of_another_type_or_size(base: Path, tmp_path: Path, file: str):
    refused = 0
    for i, (key, value) in enumerate((k, v) for k, values in CONFIGS[file].items() for v in values):
        folder = linked(base, tmp_path / str(i))
        content = json.loads((folder / file).read_text())
        replace(folder / file, json.dumps({**content, key: value}).encode())
        refused += survives(folder) != ""
    assert refused > 0 or file == "model_index.json", "no change mattered"


PAIRS = [
    *((kind, "unet/config.json") for kind in TEXTS),
    *((kind, file) for kind in ("cut", "endless") for file in FILES),
]
"""Each kind of text in one file, and two kinds in every file."""


def test_a_file_that_is_no_settings(base: Path, tmp_path: Path):
    for i, (kind, file) in enumerate(PAIRS):
        folder = linked(base, tmp_path / str(i))
        (folder / file).unlink()
        if kind == "endless":
            (folder / file).symlink_to("/dev/zero")
        else:
            (folder / file).write_bytes(TEXTS[kind])
        assert survives(folder), (kind, file)


def first_weight(state: dict) -> str:
    return next(k for k, v in state.items() if v.is_floating_point() and v.dim() > 1 and min(v.shape[:2]) > 1)


WEIGHTS = {
    "nan": lambda v: v.clone().index_fill_(0, torch.tensor([0]), NAN),
    "infinite": lambda v: v.clone().index_fill_(0, torch.tensor([0]), float("inf")),
    "flat": lambda v: v.flatten(),
    "one rank more": lambda v: v[None],
    "turned": lambda v: v.transpose(0, 1)[:, :1].contiguous(),
    "empty": lambda v: v[:0],
    "scalar": lambda v: v.flatten()[0].clone(),
    "integers": lambda v: v.long(),
}


@pytest.mark.parametrize("part", ["unet", "vae", "vocoder", "text_encoder", "audio_encoder"])
def test_a_weight_of_other_content_is_named(base: Path, tmp_path: Path, part: str):
    state = load_file(weight_file(base / part))
    key = first_weight(state)
    for kind, change in WEIGHTS.items():
        folder = linked(base, tmp_path / kind)
        path = weight_file(folder / part)
        path.unlink()
        save_file({**state, key: change(state[key])}, path)
        assert repr(key) in survives(folder), kind


def test_a_weight_file_that_is_none(base: Path, tmp_path: Path):
    folder = linked(base, tmp_path / "m")
    path = weight_file(folder / "unet")
    for content in (b"", b"\xff" * 16, b"\0" * 64, (2**40).to_bytes(8, "little") + b"{}"):
        replace(path, content)
        assert "cannot be read" in survives(folder)
    for content in (weight_file(base / "unet").read_bytes(), b""):
        replace(path, content)
        os.truncate(path, 2**40)
        assert "cannot be read" in survives(folder), "an endless file is not read to its end"


@pytest.mark.parametrize(
    "key", ["upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes", "resblock_dilation_sizes"]
)
def test_lists_of_a_vocoder_that_differ_in_length(base: Path, tmp_path: Path, key: str):
    folder = linked(base, tmp_path / "m")
    path = folder / "vocoder/config.json"
    config = json.loads(path.read_text())
    replace(path, json.dumps({**config, key: [*config[key], config[key][-1]]}).encode())
    assert "differ in length" in survives(folder)


def test_shards_outside_of_the_folder_are_not_read(base: Path, tmp_path: Path):
    folder = linked(base, tmp_path / "m")
    path = weight_file(folder / "unet")
    shutil.copy(path, tmp_path / "outside.safetensors")
    path.unlink()
    index = {"weight_map": {"conv_in.weight": "../../outside.safetensors"}}
    (folder / "unet/model.safetensors.index.json").write_text(json.dumps(index))
    assert "leads out of" in survives(folder)


def test_the_unchanged_model_works(base: Path):
    assert survives(base) == ""
    assert len(sha256(weight_file(base / "unet"))) == 64
