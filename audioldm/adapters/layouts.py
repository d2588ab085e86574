"""Adapters in the layouts of others: kohya's (also LyCORIS') one file, and peft's pair of weights and JSON.

kohya   lora_unet_<layer with _ for .>.<factor>[.weight], and .alpha: the change is alpha / rank times the product
peft    [base_model.model.|unet.]<layer>.<factor>[.weight]; rank and alpha stand in the JSON
Both name diffusers' layers; the names of the original checkpoints (input_blocks.3...) are not read.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn, tensor

from audioldm.adapters.adapter import Adapter, AdapterWarning, Layer, layers_of
from audioldm.errors import AudioLDMError

KOHYA = "lora_unet_"
PEFT_NAMES = {"lora_A": "lora_down", "lora_B": "lora_up", "lora_magnitude_vector": "dora_scale"}
PEFT_KINDS = {"lora": "LORA", "dora": "LORA", "loha": "LOHA", "lokr": "LOKR"}
FACTORS = ("lora_", "dora_scale", "hada_w", "lokr_w")
KINDS = {
    "dora": ({"lora_down", "lora_up", "dora_scale"},),
    "lora": ({"lora_down", "lora_up"},),
    "loha": ({"hada_w1_a"},),
    "lokr": ({"lokr_w1"}, {"lokr_w1_a"}, {"lokr_w2"}, {"lokr_w2_a"}),
}
"""What a layer of each kind has; the first kind that fits is the one."""
FOLD = {"lora": "lora_up", "dora": "lora_up", "loha": "hada_w1_a"}
"""The factor that takes the scale in, where a layout has no place for it."""


def rank_of(factors: Mapping[str, Tensor]) -> int | None:
    """The rank that the shapes show; None for a Kronecker product of two whole matrices."""
    for name in ("lora_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in factors:
            return factors[name].shape[0]
    return None


def kind_of(factors: Iterable[str], where: str) -> str:
    """Which kind these factors are of; AudioLDMError for one that is not known here."""
    names = set(factors)
    if other := sorted(name for name in names if not name.startswith(FACTORS)):
        use = "Save it without Tucker (conv) decomposition, biases or norms."
        raise AudioLDMError(f"{where} has {other[0]!r}, which is not supported.", use)
    for kind, needed in KINDS.items():
        if any(some <= names for some in needed):
            return kind
    raise AudioLDMError(f"{where} has only {', '.join(sorted(names))}.", "Copy the file again.")


def folded(layer: Layer) -> dict[str, Tensor]:
    first = FOLD.get(layer.kind) or ("lokr_w1" if "lokr_w1" in layer.factors else "lokr_w1_a")
    return {**layer.factors, first: layer.scale * layer.factors[first]}


def collected(layers: dict[str, Layer]) -> Adapter:
    """One adapter of these layers, its rank the largest there is."""
    kinds = sorted({layer.kind for layer in layers.values()})
    rank = max((rank_of(layer.factors) or 1) for layer in layers.values())
    return Adapter("+".join(kinds), layers, rank, float(rank), tuple(sorted(layers)))


def grouped(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, dict[str, Tensor]]:
    """Layer to factors, in our names, of keys that begin with a prefix; warns of the keys of other nets."""
    prefixes = tuple(prefix for prefix in prefixes if any(key.startswith(prefix) for key in tensors)) or ("",)
    groups: dict[str, dict[str, Tensor]] = {}
    others = [key for key in tensors if not key.startswith(prefixes)]
    for key in tensors.keys() - set(others):
        prefix = next(prefix for prefix in prefixes if key.startswith(prefix))
        name, factor = key.removeprefix(prefix).removesuffix(".weight").rsplit(".", 1)
        groups.setdefault(name, {})[PEFT_NAMES.get(factor, factor)] = tensors[key]
    if others:
        why = f"{len(others)} keys are not of the U-Net and left out, such as {others[0]}."
        warnings.warn(why, AdapterWarning, stacklevel=3)
    return groups


def from_kohya(tensors: Mapping[str, Tensor], net: nn.Module) -> Adapter:
    """Read kohya's keys; ``net`` says which of its layers a name without dots means."""
    known, layers = {name.replace(".", "_"): name for name in layers_of(net)}, {}
    for flat, factors in grouped(tensors, KOHYA).items():
        if flat not in known:
            use = "Use an adapter of this U-Net, in diffusers' names of layers."
            raise AudioLDMError(f"This model has no layer for {KOHYA}{flat}.", use)
        alpha, rank = factors.pop("alpha", None), rank_of(factors)
        scale = 1.0 if alpha is None or rank is None else float(alpha) / rank
        floats = {name: value.float() for name, value in factors.items()}
        layers[known[flat]] = Layer(kind_of(factors, flat), floats, scale)
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
    """Read peft's keys; ``config`` is adapter_config.json, or empty, which means alpha = rank."""
    layers = {}
    for name, factors in grouped(tensors, "base_model.model.", "unet.").items():
        factors = {key: value.float() for key, value in factors.items()}
        if "dora_scale" in factors:
            factors["dora_scale"] = factors["dora_scale"].flatten()
        layers[name] = Layer(kind_of(factors, name), factors, peft_scale(name, factors, config))
    return collected(layers)


def peft_scale(name: str, factors: dict[str, Tensor], config: Mapping[str, Any]) -> float:
    """alpha over the rank, or over its root (rsLoRA); 1 where peft's settings give no alpha."""
    rank = patterned(config, "rank_pattern", name, config.get("r")) or rank_of(factors)
    alpha = patterned(config, "alpha_pattern", name, config.get("lora_alpha", config.get("alpha")))
    divisor = (rank**0.5 if config.get("use_rslora") else rank) if rank else 1
    return 1.0 if alpha is None or not divisor else alpha / divisor


def patterned(config: Mapping[str, Any], table: str, name: str, default: Any) -> Any:
    """peft's exception for a layer: the first pattern that the end of its name matches."""
    for pattern, value in (config.get(table) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def to_peft(adapter: Adapter) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """peft's weights and its adapter_config.json; every scale is multiplied in, so that alpha is the rank."""
    kinds = {layer.kind for layer in adapter.layers.values()}
    if len(kinds) > 1:
        why = f"peft has no adapter of kinds {', '.join(sorted(kinds))} together."
        raise AudioLDMError(why, "Use kohya.")
    names, kind = {ours: theirs for theirs, ours in PEFT_NAMES.items()}, kinds.pop()
    out, ranks, low = {}, dict[str, int](), kind in ("lora", "dora")
    for name, layer in adapter.layers.items():
        rank = rank_of(layer.factors) or adapter.rank
        ranks |= {name: rank} if rank != adapter.rank else {}
        for factor, value in folded(layer).items():
            weight = ".weight" if factor in ("lora_down", "lora_up") else ""
            if factor == "dora_scale" and (axes := layer.factors["lora_down"].dim()) > 2:
                value = value.reshape(1, -1, *[1] * (axes - 2))
            out[f"base_model.model.{name}.{names.get(factor, factor)}{weight}"] = value.contiguous()
    return out, {
        "peft_type": PEFT_KINDS[kind],
        "r": adapter.rank,
        "lora_alpha" if low else "alpha": adapter.rank,
        "target_modules": sorted(adapter.layers),
        "rank_pattern": ranks,
        "alpha_pattern": dict(ranks),
        **({"use_dora": kind == "dora", "bias": "none"} if low else {}),
        "base_model_name_or_path": None,
        "task_type": None,
        "inference_mode": True,
    }
