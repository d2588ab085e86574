"""Components on disk: a folder with config.json and weights, as this project, diffusers and transformers write them.

Reading is strict both ways: a missing, unknown, misshapen or non-finite tensor, or a configuration that builds no
module, is an AudioLDMError of one line.   A class of ours becomes readable as a ``Component``.
"""

import hashlib
import pickle
import re
import typing
import zipfile
from collections import ChainMap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audioldm.errors import AudioLDMError
from audioldm.paths import AHEAD, inside, sha256, staged
from audioldm.tables import read_object

Module = TypeVar("Module")
State = dict[str, Tensor]
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
NAMES = tuple(f"{stem}{suffix}" for suffix in (".safetensors", ".bin") for stem in STEMS)
"""weight files in the order of preference; the first two are what ``save_component`` writes"""
SUFFIXES = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")
LARGEST = 2**24  # a number in a configuration above this is a mistake
COMPUTED = ("embeddings.position_ids", "embeddings.token_type_ids")
"""buffers that transformers saves or not, by its version"""
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""diffusers' names in an autoencoder's attention before and since version 0.17"""
PAIRS = (("upsample_rates", "upsample_kernel_sizes"), ("resblock_kernel_sizes", "resblock_dilation_sizes"))
"""lists of a vocoder's configuration, of which one belongs to the other"""
DAMAGE = (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError)
"""what libraries raise for a damaged weight file"""
INNER = {"GPT2LMHeadModel": ("GPT2Model", "transformer.")}
"""which part of a net is read, and where: some of AudioLDM 2's folders have the layer that gives words, too"""
AGAIN = "Copy the model folder again."
DIFFUSERS = (
    "AutoencoderKL", "UNet2DConditionModel", "AudioLDM2UNet2DConditionModel", "AudioLDM2ProjectionModel",
)  # fmt: skip
TRANSFORMERS = (
    "SpeechT5HifiGan", "GPT2Model", "ClapModel", "T5EncoderModel", "ClapTextModelWithProjection",
    "ClapAudioModelWithProjection",
)  # fmt: skip
COMPONENTS: dict[str, Any] = {  # every class that load_component builds, by name
    **{name: getattr(diffusers, name) for name in DIFFUSERS},
    **{name: getattr(transformers, name) for name in TRANSFORMERS},
}


class Named:
    """Replaces a class that a training saved in its checkpoint as the key of a table."""


HARMLESS: list[Any] = [
    (Named, f"{package}.callbacks.{name}") for package in ("pytorch_lightning", "lightning.pytorch")
    for name in ("model_checkpoint.ModelCheckpoint", "lr_monitor.LearningRateMonitor")
]  # fmt: skip


class Component(ModelMixin, ConfigMixin):
    """A net of ours in diffusers' way: its arguments are its configuration, and ``load_component`` builds it."""

    def __init_subclass__(cls, **details: Any) -> None:
        super().__init_subclass__(**details)
        if "__init__" in vars(cls):
            cls.__init__ = register_to_config(cls.__init__)  # type: ignore[method-assign]
            COMPONENTS[cls.__name__] = cls


def load_component(folder: Path | str, kind: type[Module] | Any = nn.Module, **changes: Any) -> Module:
    """The module of a folder, float32, in eval mode; ``changes`` go into its configuration.   Raises AudioLDMError."""
    folder = Path(folder)
    config = {**read_json(folder / "config.json"), **changes}
    name, prefix = INNER.get(class_name(config), (class_name(config), ""))
    if name not in COMPONENTS:
        raise AudioLDMError(f"{folder}: unknown class {name!r}.", f"Known: {', '.join(sorted(COMPONENTS))}.")
    if not issubclass(COMPONENTS[name], kind):
        wanted = " or ".join(c.__name__ for c in (kind if isinstance(kind, tuple) else (kind,)))
        raise AudioLDMError(f"{folder} holds a {name}, no {wanted}.", "Name another folder.")
    weights = ChainMap(*map(read_weights, find_weights(folder))).items()
    state = {k.removeprefix(prefix): v for k, v in weights if isinstance(v, Tensor) and k.startswith(prefix)}
    module: Module = fill(lambda: build(COMPONENTS[name], config, folder), state, folder)
    return module


def class_name(config: Mapping[str, Any]) -> str:
    named = config.get("_class_name") or config.get("architectures") or [None]
    return str(named[0] if isinstance(named, list) else named)


def build(component: Any, config: Mapping[str, Any], place: Path) -> nn.Module:
    """``component`` with this configuration.   Raises AudioLDMError where a value has a wrong type or range."""
    check_range(config, place)
    if issubclass(component, ConfigMixin):
        hints = typing.get_type_hints(component.__init__)
        for key, value in config.items():
            hint = hints.get(key, Any)
            if (hint is float and isinstance(value, list)) or not fits(value, leaves(hint)):
                raise AudioLDMError(f"{place}/config.json: {key}={value!r} is not valid.", "Copy it.")
        return component.from_config(dict(config))
    module = component(component.config_class.from_dict(dict(config)))
    for one, other in PAIRS:  # transformers passes over what one of two lists has more
        if len(getattr(module.config, one, ())) != len(getattr(module.config, other, ())):
            raise ValueError(f"{one} and {other} differ in length")
    return module


def leaves(hint: Any) -> set[Any]:
    """The types that a hint allows inside its containers: int, float and None of ``tuple[int, ...] | float | None``."""
    inner = [part for part in typing.get_args(hint) if part is not Ellipsis]
    return set().union(*map(leaves, inner)) if inner else {hint}


def fits(value: Any, allowed: set[Any]) -> bool:
    """Whether a value of a configuration, or all that a list holds, is of the ``allowed`` types."""
    if not allowed <= {int, float, str, bool, NoneType} or isinstance(value, dict):
        return True
    if isinstance(value, list | tuple):  # a list in a list may have gaps: AudioLDM 2's contexts
        return all(fits(item, allowed | {NoneType} if isinstance(item, list) else allowed) for item in value)
    return type(value) in (allowed | {int} if float in allowed else allowed)


def check_range(value: Any, place: Path, key: str = "", depth: int = 0) -> None:
    """Refuse numbers that no model has: above ``LARGEST`` they would take all memory or never end."""
    items: Any = value.items() if isinstance(value, Mapping) else ()
    for name, item in enumerate(value) if isinstance(value, list) else items:
        check_range(item, place, f"{key}.{name}".strip("."), depth + 1)
    if depth > 16 or (isinstance(value, int | float) and not 0 <= value <= LARGEST):
        raise AudioLDMError(f"{place}/config.json: {key} is out of range.", "Copy it again.")


class Undrawn(TorchFunctionMode):
    """Leave new parameters as they were allocated, since a file will replace them; stop above ``limit`` values."""

    DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_)
    INITS = ("torch.nn.init", "transformers.initialization")  # by which transformers replaces it
    CREATORS = frozenset({"empty", "zeros", "ones", "full", "rand", "randn", "arange", "linspace"})

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        target = options.get("tensor", args[0] if args else None)
        draws = getattr(func, "__module__", None) in self.INITS or func in self.DRAWS
        if draws and isinstance(target, nn.Parameter):
            return target
        out = func(*args, **options)
        self.limit -= out.numel() if getattr(func, "__name__", "") in self.CREATORS else 0
        if self.limit < 0:
            raise ValueError("it is larger than the weights")
        return out


def empty(make: Callable[[], Any], size: int, place: Path) -> Any:
    """``make()`` before its weights are known, of at most twice ``size`` values and 2^24.   Raises AudioLDMError."""
    try:
        with Undrawn(2 * size + 2**24):
            module = make()
        parts = (m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d))
        if any(min(*m.stride, *m.dilation) < 1 for m in parts):
            raise ValueError("a stride or dilation is below 1")
        return module
    except AudioLDMError:
        raise
    except Exception as error:  # whatever a library says of a configuration that it cannot use
        raise AudioLDMError(f"{place}: its configuration builds no module ({reason(error)}).") from None


def fill(make: Callable[[], Any], state: Mapping[str, Tensor], place: Path) -> Any:
    """``make()`` with exactly ``state`` as its weights; float32, eval mode.   Raises AudioLDMError."""
    module = empty(make, sum(value.numel() for value in state.values()), place)
    state = {k: v.float() if v.is_floating_point() else v for k, v in completed(module, state).items()}
    check_state(module.state_dict(), state, place)
    # A matrix product may round by where its operands lie (MKL on AMD does): the same weights from another file would
    # give another sound, so all are copied where one is not at a multiple of 16 bytes.   All, because one view that is
    # left would hold the whole file in memory beside the copies.
    if any(value.data_ptr() % 16 for value in state.values()):
        state = {key: value.clone() for key, value in state.items()}
    # weights with two names must stay one, so they are copied
    shared = len(list(module.parameters())) < len(list(module.named_parameters(remove_duplicate=False)))
    module.load_state_dict(state, strict=True, assign=not shared)
    return module.float().eval()


def reason(error: BaseException) -> str:
    """The first line of an exception's message with its kind, at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:160] if lines else type(error).__name__


def completed(module: nn.Module, state: Mapping[str, Tensor]) -> State:
    """``state`` in the names of today's libraries, with the buffers that these compute and weights' second names."""
    expected = module.state_dict()
    names = [(key, id(value)) for key, value in module.named_parameters(remove_duplicate=False)]
    tensors = {number: state[key] for key, number in reversed(names) if key in state}
    state = {
        **{key: value for key, value in expected.items() if key.endswith(COMPUTED)},
        **{key: tensors[number] for key, number in names if number in tensors},
        **{key: value for key, value in state.items() if key in expected or not key.endswith(COMPUTED)},
    }
    return modern_attention(state) if isinstance(module, diffusers.AutoencoderKL) else state


def modern_attention(state: Mapping[str, Tensor]) -> State:
    """An autoencoder's state in diffusers' names of today; 1 x 1 convolutions of its attention become matrices."""
    new: State = {}
    for old, value in state.items():
        match = re.fullmatch(r"(.+\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)", old)
        key = f"{match[1]}.{OLD_ATTENTION[match[2]]}.{match[3]}" if match else old
        new[key] = value[:, :, 0, 0] if ".attentions." in key and value.dim() == 4 else value
    return new


def check_state(expected: State, state: Mapping[str, Tensor], place: Path) -> None:
    """Name the first tensor that is missing, unknown, of another shape or kind, or not finite."""
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        what = f"lacks {missing[0]!r}" if missing else f"has an unknown {extra[0]!r}"
        counts = f"({len(missing)} missing, {len(extra)} unknown)"
        raise AudioLDMError(f"{place} {what} {counts}.", "Its config.json does not belong to it.")
    for key, value in expected.items():
        if value.shape != state[key].shape or value.is_floating_point() != state[key].is_floating_point():
            why = f"{place}: {key!r} is {describe(state[key])}, its config.json says {describe(value)}."
            raise AudioLDMError(why, "Use the config.json that belongs to these weights.")
        check_finite(key, state[key], place)


def describe(value: Tensor) -> str:
    return f"of shape {tuple(value.shape)} and {str(value.dtype).removeprefix('torch.')}"


def check_finite(key: str, value: Tensor, place: Path) -> None:
    """Raise AudioLDMError for NaN or infinity; the sum, which either spoils, is read in one pass."""
    if value.is_floating_point() and not value.sum().isfinite() and not value.isfinite().all():
        raise AudioLDMError(f"{place}: {key!r} has NaN or infinity.", "The training broke down: use another.")


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.   Raises AudioLDMError for a file that is missing, too long, or something else."""
    if not path.is_file():
        raise AudioLDMError(f"{path} is missing.", "Is this a model folder? Name another with -m.")
    return read_object(path, AGAIN)


def find_weights(folder: Path | str) -> list[Path]:
    """The weight files of a component folder: one, or the shards that an index names, all inside the folder."""
    folder = Path(folder)
    for name in NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise AudioLDMError(f"{index} has no weight_map.", "Download the folder again.")
            # the hub's are links
            return [inside(folder, shard, where=index, links=True) for shard in sorted(set(shards.values()))]
    raise AudioLDMError(f"{folder} has no weights ({', '.join(NAMES)}).", "Download the folder again.")


def weight_file(folder: Path | str) -> Path:
    return find_weights(folder)[0]


def read_weights(path: Path) -> dict[str, Any]:
    """Everything in a weight file, on the CPU, pickles as weights only.   Raises AudioLDMError for all else."""
    if not path.is_file():
        raise AudioLDMError(f"{path} is missing.", "Check the path.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        pattern = r"(?:Unsupported global: GLOBAL|Unsupported class|unsupported GLOBAL) (\S+)"
        if code := re.search(pattern, str(error)):
            what = f"it is a pickle that would run {code[1].rstrip('.,')!r} when opened, not weights only."
            hint = "Ask its author for safetensors, or load it where you trust it and save the tensors again."
        else:
            what = "it is neither torch's archive of tensors nor a pickle of weights."
            hint = f"Name a file of weights ({', '.join(SUFFIXES)}), or download it again."
        raise AudioLDMError(f"{path} is refused: {what}", hint) from None
    except DAMAGE as error:
        raise damaged(path, error) from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise AudioLDMError(f"{path} holds a {kind}, not a table of weights.", "Name a checkpoint.")
    return content


def damaged(path: Path, error: Exception) -> AudioLDMError:
    why = f"{path} cannot be read ({reason(error)}): truncated or corrupt."
    return AudioLDMError(why, "Download it again.")


def weight_hash(path: Path) -> str:
    """Hex digest of a weight file.   Raises AudioLDMError for one that is endless or holds next to nothing."""
    try:
        return AHEAD.pop(path, None) or sha256(path)
    except OSError as error:
        raise damaged(path, error) from None


def save_component(module: nn.Module, folder: Path | str, *, dtype: torch.dtype | None = None) -> Path:
    """Write ``config.json`` and the weights (cast to ``dtype`` if given) into ``folder``; returns the weight file."""
    folder, net, ours = Path(folder), typing.cast(Any, module), hasattr(module, "save_config")
    folder.mkdir(parents=True, exist_ok=True)
    if ours:
        net.save_config(folder)
    else:  # transformers
        net.config.architectures = [type(module).__name__]
        net.config.save_pretrained(folder)
    path = folder / NAMES[not ours]
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    first: dict[int, str] = {}  # safetensors wants two tensors for a weight with two names
    state = {k: v if first.setdefault(v.data_ptr(), k) == k else v.clone() for k, v in state.items()}
    if dtype is not None:
        state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    with staged(path) as draft:  # weights in memory may be views of the file at ``path``
        save_file(state, draft, metadata={"format": "pt"})
    return path


def state_digest(*modules: nn.Module) -> str:
    """sha256 over names and float32 values of the modules' weights, whatever file they came from."""
    digest = hashlib.sha256()
    for key, value in (item for module in modules for item in sorted(module.state_dict().items())):
        digest.update(key.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
