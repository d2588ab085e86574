"""Adapters on disk: one safetensors file whose metadata say what it is.

Own layout: ``unet.<layer>.<factor>`` and ``unet.<layer>.scale`` (left out: alpha / rank) for a U-Net, ``words`` for
Textual Inversion; metadata format, kind, rank, alpha, targets (JSON), base (JSON: part to sha256) and about (JSON).
Files of kohya, LyCORIS and peft are known by keys.
"""

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, float64, nn, tensor

from audioldm.adapters.adapter import Adapter, AdapterWarning, Layer
from audioldm.adapters.delta import DELTAS
from audioldm.adapters.layouts import KOHYA, from_kohya, from_peft, grouped, kind_of, to_kohya, to_peft
from audioldm.adapters.words import Words, check_word
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import check_finite, describe, read_json, reason
from audioldm.paths import staged, write_text

FORMAT = "audioldm-adapter-1"
CONTENT = (LookupError, ArithmeticError, ValueError, TypeError, AttributeError, RuntimeError, re.error)
"""What Python raises of values that are of other kinds or shapes than they should be."""


def write(path: Path, adapter: Adapter | Words) -> None:
    """Write ``adapter`` as one file, whole or not at all."""
    about = {
        "format": FORMAT,
        "kind": adapter.kind,
        "base": json.dumps(adapter.base, sort_keys=True),
        "about": json.dumps(adapter.about, sort_keys=True),
    }
    if isinstance(adapter, Words):
        tensors, about["word"] = {"words": adapter.rows}, adapter.word
        about["rank"], about["targets"] = str(len(adapter.rows)), json.dumps(["text_encoder"])
    else:
        tensors = {
            f"unet.{name}.{factor}": value
            for name, layer in adapter.layers.items()
            for factor, value in {**layer.factors, "scale": tensor(layer.scale, dtype=float64)}.items()
        }
        about |= {"rank": str(adapter.rank), "alpha": repr(adapter.alpha)}
        about["targets"] = json.dumps(adapter.targets)
    with staged(path) as draft:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, draft, metadata=about)


def read(path: Path, net: nn.Module | None = None) -> Adapter | Words:
    """Read our own file, kohya's (LyCORIS) or peft's; kohya's names need ``net``, the U-Net.   Raises AudioLDMError."""
    tensors, about = load(path)
    try:
        if about.get("format", "").startswith("audioldm-adapter"):
            return read_native(path, tensors, about)
        if any(key.startswith(KOHYA) for key in tensors):
            if net is None:
                raise AudioLDMError(f"{path} has kohya's names of layers.", "Name the model that it is for.")
            return from_kohya(tensors, net)
        if any(part in key for key in tensors for part in (".lora_A", ".hada_w1_a", ".lokr_w")):
            return from_peft(tensors, peft_config(path, about))
    except CONTENT as error:
        raise AudioLDMError(f"{path} is not a valid adapter ({reason(error)}).", "Copy it again.") from None
    first = next(iter(sorted(tensors)), "nothing")
    use = "Known: files of audioldm train personal/..., kohya, peft."
    raise AudioLDMError(f"{path} is no adapter: it holds {first!r}.", use)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a safetensors file, and its metadata.   Raises AudioLDMError, also for NaN."""
    if not path.is_file():
        raise AudioLDMError(f"adapter={path} is not a file.", "Name a .safetensors file.")
    try:
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        why = f"{path} cannot be read ({reason(error)}): not safetensors, truncated or corrupt."
        raise AudioLDMError(why, "Copy it again.") from None
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise AudioLDMError(f"{path}: {key!r} is {describe(value)}, no weight.", "Copy it again.")
        check_finite(key, value, path)
    return tensors, about


def table(text: str) -> dict[str, Any]:
    """A JSON object of the metadata.   Raises ValueError for anything else."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"{text[:40]!r} is no table")
    return content


def read_native(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> Adapter | Words:
    if about["format"] != FORMAT:
        raise AudioLDMError(f"{path} has the newer format {about['format']!r}.", "Update audioldm.")
    base, facts, kind = table(about["base"]), table(about["about"]), about["kind"]
    if kind == "textual_inversion":
        check_word(about["word"])
        if tensors["words"].dim() != 2 or 0 in tensors["words"].shape:
            raise ValueError(f"words of shape {tuple(tensors['words'].shape)}")
        return Words(about["word"], tensors["words"], base, facts)
    if unknown := sorted(set(kind.split("+")) - DELTAS.keys()):
        raise AudioLDMError(f"{path} is of the unknown kind {unknown[0]!r}.", "Update audioldm.")
    rank, alpha, targets = int(about["rank"]), float(about["alpha"]), json.loads(about["targets"])
    if rank < 1 or not math.isfinite(alpha):
        raise ValueError(f"{rank=}, {alpha=}")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ValueError(f"targets={about['targets'][:40]}")
    layers = {}
    for name, factors in grouped(tensors, "unet.").items():
        scale = float(factors.pop("scale", alpha / rank))
        layers[name] = Layer(kind_of(factors, name), factors, scale)
    if set(kind.split("+")) != {layer.kind for layer in layers.values()}:
        raise ValueError(f"{kind=}")
    return Adapter(kind, layers, rank, alpha, tuple(targets), base, facts)


def peft_config(path: Path, about: dict[str, str]) -> dict[str, Any]:
    """peft's settings: adapter_config.json beside the file, or what diffusers puts into the metadata."""
    beside = path.with_name("adapter_config.json")
    if beside.is_file():
        return read_json(beside)
    if "lora_adapter_metadata" in about:
        return {key.removeprefix("unet."): v for key, v in table(about["lora_adapter_metadata"]).items()}
    why = f"{path} has no adapter_config.json beside it: alpha is taken to be the rank."
    warnings.warn(why, AdapterWarning, stacklevel=3)
    return {}


def export(
    path: Path, adapter: Adapter | Words, layout: str, *, dtype: torch.dtype | None = None
) -> list[Path]:
    """Write ``adapter`` as kohya's file ``path``, or into the folder ``path`` as peft reads it; returns the files."""
    if isinstance(adapter, Words):
        raise AudioLDMError(f"{layout} has no layout for new words.", "Copy the file as it is.")
    tensors, config = (to_kohya(adapter), None) if layout == "kohya" else to_peft(adapter)
    tensors = {k: v.detach().cpu().to(dtype or v.dtype).contiguous() for k, v in tensors.items()}
    file = path if config is None else path / "adapter_model.safetensors"
    with staged(file) as draft:
        save_file(tensors, draft, metadata={"format": "pt"})
    if config is None:
        return [file]
    return [file, write_text(path / "adapter_config.json", json.dumps(config, indent=1))]
