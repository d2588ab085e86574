"""Adapters whose files are damaged, one value at a time: a line that says what is wrong, or an adapter that works."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from audioldm.adapters.adapter import Adapter, merge, unmerge
from audioldm.adapters.files import export, load, read, write
from audioldm.errors import AudioLDMError

METADATA = {
    "format": ["", "audioldm-adapter-9", "audioldm-adapter"],
    "kind": ["", "strange", "textual_inversion", "loha"],
    "base": ["", "[]", "3", "{", "null"],
    "about": ["", "[1]", "nonsense", "[" * 50_000],
    "rank": ["", "0", "-2", "a", "1e9", "9" * 5000],
    "alpha": ["", "a", "nan", "inf", "None"],
    "targets": ["", "{}", "[3]", "null"],
}
CONFIG = {
    "r": [None, 0, -1, "a", [1], 1e308],
    "lora_alpha": [None, "a", [1], {}],
    "rank_pattern": [3, {"(": 2}, {".*": "a"}, ["a"]],
    "alpha_pattern": [{"[": 1}, {".*": None}, "x"],
    "use_rslora": ["yes", -1],
}
WEIGHTS = {
    "nan": lambda v: v * float("nan"),
    "infinite": lambda v: v / 0,
    "flat": lambda v: v.flatten(),
    "one rank more": lambda v: v[None],
    "turned": lambda v: v.reshape(len(v), -1).T.contiguous(),
    "empty": lambda v: v[:0],
    "scalar": lambda v: v.flatten()[0].clone(),
    "integers": lambda v: v.long(),
    "longer": lambda v: torch.cat([v, v]),
}


def survives(path: Path, unet) -> str:
    """ "" where the adapter can be put on the U-Net, else the one line of its refusal."""
    try:
        adapter = read(path, unet)
        if isinstance(adapter, Adapter):
            before = merge(unet, [(adapter, 1.0)])
            finite = all(bool(value.isfinite().all()) for value in unet.state_dict().values())
            unmerge(unet, before)
            assert finite
    except AudioLDMError as error:
        line = str(error)
    else:
        return ""
    assert "\n" not in line and len(line) < 600, line
    return line


@pytest.fixture
def ours(unet, moved, tmp_path) -> Path:
    path = tmp_path / "a.safetensors"
    write(path, moved(unet, "lora"))
    return path


@pytest.mark.parametrize("key", METADATA)
def test_metadata(ours: Path, unet, key: str):
    assert survives(ours, unet) == ""
    tensors, about = load(ours)
    tensors = {name: value.clone() for name, value in tensors.items()}
    for value in METADATA[key]:
        save_file(tensors, ours, metadata={**about, key: value})
        assert survives(ours, unet), value
    save_file(tensors, ours, metadata={name: value for name, value in about.items() if name != key})
    survives(ours, unet)


@pytest.mark.filterwarnings("ignore::audioldm.errors.AudioLDMWarning")
@pytest.mark.parametrize(
    ("kind", "layout"),
    [("lora", "audioldm"), ("dora", "audioldm"), ("loha", "kohya"), ("lokr", "kohya"), ("lora", "peft")],
)
def test_weights(unet, moved, tmp_path, kind: str, layout: str):
    path = tmp_path / "a.safetensors"
    if layout == "audioldm":
        write(path, moved(unet, kind))
    else:
        path = export(path if layout == "kohya" else tmp_path, moved(unet, kind), layout)[0]
    assert survives(path, unet) == ""
    tensors, about = load(path)
    tensors = {name: value.clone() for name, value in tensors.items()}
    first = sorted(name for name in tensors if not name.endswith("alpha"))[0]
    for change in WEIGHTS.values():
        save_file({**tensors, first: change(tensors[first])}, path, metadata=about)
        survives(path, unet)
    for change in ("nan", "infinite", "integers"):
        save_file({**tensors, first: WEIGHTS[change](tensors[first])}, path, metadata=about)
        assert repr(first) in survives(path, unet)
    needed = next(
        n for n in sorted(tensors) if any(f in n for f in ("lora_up", "lora_B", "hada_w1_a", "lokr_w1"))
    )
    save_file({name: value for name, value in tensors.items() if name != needed}, path, metadata=about)
    assert survives(path, unet), "a factor is missing"
    save_file({**tensors, "strange": torch.zeros(2)}, path, metadata=about)
    survives(path, unet)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\xff" * 64, b"<html>"):
        path.write_bytes(content)
        assert "cannot be read" in survives(path, unet)


@pytest.mark.parametrize("key", CONFIG)
def test_the_settings_of_peft(unet, moved, tmp_path, key: str):
    file, config = export(tmp_path, moved(unet, "lora"), "peft")
    content = json.loads(config.read_text())
    for value in CONFIG[key]:
        config.write_text(json.dumps({**content, key: value}))
        survives(file, unet)
    for text in ("", "[", "[1]", "null", '"x"'):
        config.write_text(text)
        assert survives(file, unet), text


@pytest.mark.parametrize(
    ("word", "rows"),
    [("", torch.zeros(1, 4)), ("mine", torch.zeros(1, 4)), ("<a b>", torch.zeros(1, 4)), ("<mine>", torch.zeros(4)),
     ("<mine>", torch.zeros(0, 4)), ("<mine>", torch.zeros(1, 4) * float("nan"))],
)  # fmt: skip
def test_words(tmp_path, unet, word: str, rows: torch.Tensor):
    about = {
        "format": "audioldm-adapter-1",
        "kind": "textual_inversion",
        "base": "{}",
        "about": "{}",
        "word": word,
    }
    save_file({"words": rows}, tmp_path / "w.safetensors", metadata=about)
    assert survives(tmp_path / "w.safetensors", unet)
