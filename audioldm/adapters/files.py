"""Adapters on disk: one safetensors file whose metadata say what it is, and the layouts of others.

own     unet.<layer>.<factor> and .scale (left out: alpha / rank), or ``words`` for Textual Inversion; metadata format,
        kind, rank, alpha, targets (JSON), base (JSON: part to sha256) and about (JSON)
kohya   lora_unet_<layer with _ for .>.<factor>[.weight], and .alpha: the change is alpha / rank times the product
peft    [base_model.model.|unet.]<layer>.<factor>[.weight]; rank and alpha stand in the JSON
Those of others are known by their keys and name diffusers' layers, not those of the original checkpoints.
"""

import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, float64, nn, tensor

from audioldm.adapters.adapter import Adapter, Layer, layers_of
from audioldm.adapters.delta import DELTAS
from audioldm.adapters.words import Words, check_word
from audioldm.errors import AudioLDMError, AudioLDMWarning
from audioldm.nets.folder import check_finite, describe, read_json, reason
from audioldm.paths import staged, write_text

FORMAT = "audioldm-adapter-1"
CONTENT = (LookupError, ArithmeticError, ValueError, TypeError, AttributeError, RuntimeError, re.error)
"""What Python raises of values that are of other kinds or shapes than they should be."""
KOHYA = "lora_unet_"
PEFT_NAMES = {"lora_A": "lora_down", "lora_B": "lora_up", "lora_magnitude_vector": "dora_scale"}
TO_PEFT = {"lora_down": "lora_A.weight", "lora_up": "lora_B.weight", "dora_scale": "lora_magnitude_vector"}
PEFT = re.compile(r"\.lora_A|\.hada_w1_a|\.lokr_w")
PEFT_KINDS = {"lora": "LORA", "dora": "LORA", "loha": "LOHA", "lokr": "LOKR"}
FACTORS = ("lora_", "dora_scale", "hada_w", "lokr_w")
KINDS = {  # What a layer of each kind has; the first kind that fits is the one.
    "dora": ({"lora_down", "lora_up", "dora_scale"},), "lora": ({"lora_down", "lora_up"},),
    "loha": ({"hada_w1_a"},), "lokr": ({"lokr_w1"}, {"lokr_w1_a"}, {"lokr_w2"}, {"lokr_w2_a"}),
}  # fmt: skip


def write(path: Path, adapter: Adapter | Words) -> None:
    """Write ``adapter`` as one file, whole or not at all."""
    about = {"format": FORMAT, "kind": adapter.kind}
    about |= {name: json.dumps(getattr(adapter, name), sort_keys=True) for name in ("base", "about")}
    if isinstance(adapter, Words):
        tensors, about["word"] = {"words": adapter.rows}, adapter.word
        about |= {"rank": str(len(adapter.rows)), "targets": json.dumps(["text_encoder"])}
    else:
        scales = {f"unet.{n}.scale": tensor(one.scale, dtype=float64) for n, one in adapter.layers.items()}
        pairs = [(f"unet.{n}", one.factors) for n, one in adapter.layers.items()]
        tensors = scales | {f"{n}.{factor}": value for n, parts in pairs for factor, value in parts.items()}
        about |= {"rank": str(adapter.rank), "alpha": repr(adapter.alpha)}
        about["targets"] = json.dumps(adapter.targets)
    save(path, tensors, about)


def save(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str]) -> None:
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
        if any(map(PEFT.search, tensors)):
            return from_peft(tensors, peft_config(path, about))
    except CONTENT as error:
        raise AudioLDMError(f"{path} is not a valid adapter ({reason(error)}).", "Copy it again.") from None
    use = "Known: files of audioldm train personal/..., kohya, peft."
    raise AudioLDMError(f"{path} is no adapter: it holds {min(tensors, default='nothing')!r}.", use)


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


def read_native(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> Adapter | Words:
    if about["format"] != FORMAT:
        raise AudioLDMError(f"{path} has the newer format {about['format']!r}.", "Update audioldm.")
    base, facts = ({**json.loads(about[name])} for name in ("base", "about"))  # or TypeError
    kinds, layers = set(about["kind"].split("+")), dict[str, Layer]()
    if kinds == {"textual_inversion"}:
        check_word(about["word"])
        if tensors["words"].dim() != 2 or 0 in tensors["words"].shape:
            raise ValueError(f"words of shape {tuple(tensors['words'].shape)}")
        return Words(about["word"], tensors["words"], base, facts)
    if unknown := sorted(kinds - DELTAS.keys()):
        raise AudioLDMError(f"{path} is of the unknown kind {unknown[0]!r}.", "Update audioldm.")
    rank, alpha, targets = int(about["rank"]), float(about["alpha"]), json.loads(about["targets"])
    if rank < 1 or not math.isfinite(alpha):
        raise ValueError(f"{rank=}, {alpha=}")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ValueError(f"targets={about['targets'][:40]}")
    for name, factors in grouped(tensors, "unet.").items():
        scale = float(factors.pop("scale", alpha / rank))
        layers[name] = Layer(kind_of(factors, name), factors, scale)
    if kinds != {layer.kind for layer in layers.values()}:
        raise ValueError(f"{kinds=}")
    return Adapter(about["kind"], layers, rank, alpha, tuple(targets), base, facts)


def peft_config(path: Path, about: dict[str, str]) -> dict[str, Any]:
    """peft's settings: adapter_config.json beside the file, or what diffusers puts into the metadata."""
    beside = path.with_name("adapter_config.json")
    if beside.is_file():
        return read_json(beside)
    if "lora_adapter_metadata" in about:
        settings = json.loads(about["lora_adapter_metadata"])
        return {key.removeprefix("unet."): value for key, value in settings.items()}
    why = f"{path} has no adapter_config.json beside it: alpha is taken to be the rank."
    warnings.warn(why, AudioLDMWarning, stacklevel=3)
    return {}


def export(
    path: Path, adapter: Adapter | Words, layout: str, *, dtype: torch.dtype | None = None
) -> list[Path]:
    """Write ``adapter`` as kohya's file ``path``, or into the folder ``path`` as peft reads it; returns the files."""
    if isinstance(adapter, Words):
        raise AudioLDMError(f"{layout} has no layout for new words.", "Copy the file as it is.")
    tensors, config = (to_kohya(adapter), None) if layout == "kohya" else to_peft(adapter)
    file = path if config is None else path / "adapter_model.safetensors"
    save(file, {key: value.to(dtype or value.dtype) for key, value in tensors.items()}, {"format": "pt"})
    if config is None:
        return [file]
    return [file, write_text(path / "adapter_config.json", json.dumps(config, indent=1))]


def rank_of(factors: Mapping[str, Tensor]) -> int | None:
    """The rank that the shapes show; None for a Kronecker product of two whole matrices."""
    names = ("lora_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
    return next((factors[name].shape[0] for name in names if name in factors), None)


def kind_of(factors: Iterable[str], where: str) -> str:
    """Which kind these factors are of; AudioLDMError for one that is not known here."""
    names = set(factors)
    if other := sorted(name for name in names if not name.startswith(FACTORS)):
        what = f"{where} has {other[0]!r}, which is not supported."
        raise AudioLDMError(what, "Save it without Tucker (conv) decomposition, biases or norms.")
    kinds = (kind for kind, needed in KINDS.items() if any(some <= names for some in needed))
    if (kind := next(kinds, None)) is None:
        raise AudioLDMError(f"{where} has only {', '.join(sorted(names))}.", "Copy the file again.")
    return kind


def folded(layer: Layer) -> dict[str, Tensor]:
    """The factors with the scale in one of them, for a layout that has no place for it."""
    first = next(name for name in ("lora_up", "hada_w1_a", "lokr_w1", "lokr_w1_a") if name in layer.factors)
    return {**layer.factors, first: layer.scale * layer.factors[first]}


def collected(layers: dict[str, Layer]) -> Adapter:
    """One adapter of these layers, in float32, its rank the largest there is."""
    kinds = "+".join(sorted({layer.kind for layer in layers.values()}))
    rank = max((rank_of(layer.factors) or 1) for layer in layers.values())
    for name, layer in layers.items():
        layers[name] = replace(layer, factors={key: value.float() for key, value in layer.factors.items()})
    return Adapter(kinds, layers, rank, float(rank), tuple(sorted(layers)))


def grouped(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, dict[str, Tensor]]:
    """Layer to factors, in our names, of keys that begin with a prefix; warns of the keys of other nets."""
    prefixes = tuple(prefix for prefix in prefixes if any(key.startswith(prefix) for key in tensors)) or ("",)
    groups, others = dict[str, dict[str, Tensor]](), list[str]()
    for key, value in tensors.items():
        prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
        if prefix is None:
            others.append(key)
            continue
        name, factor = key.removeprefix(prefix).removesuffix(".weight").rsplit(".", 1)
        groups.setdefault(name, {})[PEFT_NAMES.get(factor, factor)] = value
    if others:
        why = f"{len(others)} keys are not of the U-Net and left out, such as {others[0]}."
        warnings.warn(why, AudioLDMWarning, stacklevel=3)
    return groups


def from_kohya(tensors: Mapping[str, Tensor], net: nn.Module) -> Adapter:
    """Read kohya's keys; ``net`` says which of its layers a name without dots means."""
    known, layers = {name.replace(".", "_"): name for name in layers_of(net)}, {}
    for flat, factors in grouped(tensors, KOHYA).items():
        if flat not in known:
            raise AudioLDMError(f"This model has no layer for {KOHYA}{flat}.", "Use one of this U-Net.")
        alpha, rank = factors.pop("alpha", None), rank_of(factors)
        scale = 1.0 if alpha is None or rank is None else float(alpha) / rank
        layers[known[flat]] = Layer(kind_of(factors, flat), factors, scale)
    return collected(layers)


def to_kohya(adapter: Adapter) -> dict[str, Tensor]:
    """kohya's keys; a scale for which there is no rank is multiplied into w1."""
    out = {}
    for name, layer in adapter.layers.items():
        stem, rank = KOHYA + name.replace(".", "_"), rank_of(layer.factors)
        for factor, value in (folded(layer) if rank is None else layer.factors).items():
            weight = ".weight" if factor in ("lora_down", "lora_up") else ""
            out[f"{stem}.{factor}{weight}"] = value.reshape(-1, 1) if factor == "dora_scale" else value
        if rank is not None:
            out[f"{stem}.alpha"] = tensor(layer.scale * rank)
    return out


def from_peft(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Adapter:
    """peft's keys and settings: the scale is alpha over the rank, or over its root (rsLoRA); 1 without an alpha."""

    def setting(table: str, name: str, default: Any) -> Any:
        """That of a layer: of the first pattern that the end of its name matches."""
        patterns = (config.get(table) or {}).items()
        return next((v for pattern, v in patterns if re.match(rf"(.*\.)?({pattern})$", name)), default)

    layers = {}
    for name, factors in grouped(tensors, "base_model.model.", "unet.").items():
        rank = setting("rank_pattern", name, config.get("r")) or rank_of(factors)
        alpha = setting("alpha_pattern", name, config.get("lora_alpha", config.get("alpha")))
        divisor = (rank**0.5 if config.get("use_rslora") else rank) if rank else 1
        layers[name] = Layer(kind_of(factors, name), factors, 1.0 if alpha is None else alpha / divisor)
    return collected(layers)


def to_peft(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """peft's weights and its adapter_config.json; every scale is multiplied in, so that alpha is the rank."""
    kind, out, ranks = adapter.kind, dict[str, Tensor](), dict[str, int | None]()
    if "+" in kind:
        raise AudioLDMError(f"peft has no adapter of kinds {kind.replace('+', ', ')} together.", "Use kohya.")
    for name, layer in adapter.layers.items():
        for factor, value in folded(layer).items():
            if factor == "dora_scale" and (axes := layer.factors["lora_down"].dim()) > 2:
                value = value.reshape(1, -1, *[1] * (axes - 2))
            out[f"base_model.model.{name}.{TO_PEFT.get(factor, factor)}"] = value
        if (rank := rank_of(layer.factors)) not in (None, adapter.rank):
            ranks[name] = rank
    low = {"lora_alpha": adapter.rank, "use_dora": kind == "dora", "bias": "none"}
    return out, {
        "peft_type": PEFT_KINDS[kind], "r": adapter.rank, "target_modules": sorted(adapter.layers),
        **(low if kind in ("lora", "dora") else {"alpha": adapter.rank}),
        "rank_pattern": ranks, "alpha_pattern": dict(ranks), "base_model_name_or_path": None, "task_type": None,
        "inference_mode": True,
    }  # fmt: skip
