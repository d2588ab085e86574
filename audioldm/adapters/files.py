"""Adapters on disk: one safetensors file whose metadata say what it is.

Own layout: ``unet.<layer>.<factor>`` and ``unet.<layer>.scale`` (left out: alpha / rank) for a U-Net, ``words`` for
Textual Inversion; metadata format, kind, rank, alpha, targets (JSON), base (JSON: part to sha256) and about (JSON).
Files of kohya, LyCORIS and peft are known by keys.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Read a file of our own, of kohya (LyCORIS) or of peft; ``net`` is the U-Net it is for, which kohya's names need.

    Raises AudioLDMError where it is missing, damaged, or no adapter.
    """
    tensors, about = load(path)
    with content_of(path):
        if about.get("format", "").startswith("audioldm-adapter"):
            return read_native(path, tensors, about)
        if any(key.startswith(KOHYA) for key in tensors):
            if net is None:
                raise AudioLDMError(f"{path} has kohya's names of layers.", "Name the model that it is for.")
            return from_kohya(tensors, net)
        if any(part in key for key in tensors for part in (".lora_A", ".hada_w1_a", ".lokr_w")):
            return from_peft(tensors, peft_config(path, about))
    first = next(iter(sorted(tensors)), "nothing")
    raise AudioLDMError(
        f"{path} is no adapter: it holds {first!r}.",
        "Known: files of audioldm train personal/..., kohya, peft.",
    )


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a safetensors file, and its metadata.   Raises AudioLDMError, also for NaN."""
    if not path.is_file():
        raise AudioLDMError(f"adapter={path} is not a file.", "Name a .safetensors file.")
    try:
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise AudioLDMError(
            f"{path} cannot be read ({reason(error)}): not safetensors, truncated or corrupt.",
            "Copy it again.",
        ) from None
    for key, value in tensors.items():
        if not value.is_floating_point():
            raise AudioLDMError(f"{path}: {key!r} is {describe(value)}, no weight.", "Copy it again.")
        check_finite(key, value, path)
    return tensors, about


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """Within, what a file's content makes Python raise is one line."""
    try:
        yield
    except CONTENT as error:
        raise AudioLDMError(f"{path} is not a valid adapter ({reason(error)}).", "Copy it again.") from None


def table(text: str) -> dict[str, Any]:
    """A JSON object of the metadata.   Raises ValueError for anything else."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"{text[:40]!r} is no table")
    return content


def read_native(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> Adapter | Words:
    """What ``write`` wrote."""
    if about["format"] != FORMAT:
        raise AudioLDMError(f"{path} has the newer format {about['format']!r}.", "Update audioldm.")
    base, facts = table(about["base"]), table(about["about"])
    if about["kind"] == "textual_inversion":
        check_word(about["word"])
        return Words(about["word"], vectors_of(tensors), base, facts)
    kinds = kinds_of(path, about["kind"])
    rank, alpha = int(about["rank"]), float(about["alpha"])
    if rank < 1 or not math.isfinite(alpha):
        raise ValueError(f"{rank=}, {alpha=}")
    factors = grouped(tensors, "unet.")
    layers = {name: layer_of(name, parts, alpha / rank) for name, parts in factors.items()}
    if kinds != {layer.kind for layer in layers.values()}:
        raise ValueError(f"kind={about['kind']}")
    return Adapter(about["kind"], layers, rank, alpha, targets_of(about["targets"]), base, facts)


def vectors_of(tensors: dict[str, Tensor]) -> Tensor:
    """The rows of a word.   Raises ValueError where there are none."""
    words = tensors["words"]
    if words.dim() != 2 or 0 in words.shape:
        raise ValueError(f"words of shape {tuple(words.shape)}")
    return words


def kinds_of(path: Path, text: str) -> set[str]:
    """The kinds of layers that a file says it has."""
    kinds = set(text.split("+"))
    if unknown := sorted(kinds - DELTAS.keys()):
        raise AudioLDMError(f"{path} is of the unknown kind {unknown[0]!r}.", "Update audioldm.")
    return kinds


def layer_of(name: str, factors: dict[str, Tensor], scale: float) -> Layer:
    """A layer with the scale that is beside its factors, else with ``scale``."""
    scale = float(factors.pop("scale", scale))
    return Layer(kind_of(factors, name), factors, scale)


def targets_of(text: str) -> tuple[str, ...]:
    """The names of layers in a JSON list.   Raises ValueError."""
    targets = json.loads(text)
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ValueError(f"targets={text[:40]}")
    return tuple(targets)


def peft_config(path: Path, about: dict[str, str]) -> dict[str, Any]:
    """peft's settings: adapter_config.json beside the file, or what diffusers puts into the metadata."""
    beside = path.with_name("adapter_config.json")
    if beside.is_file():
        return read_json(beside)
    if "lora_adapter_metadata" in about:
        return {key.removeprefix("unet."): v for key, v in table(about["lora_adapter_metadata"]).items()}
    warnings.warn(
        f"{path} has no adapter_config.json beside it: alpha is taken to be the rank.",
        AdapterWarning,
        stacklevel=3,
    )
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
