"""Components on disk: a folder with config.json and one safetensors file.   Strict both ways.

diffusers and transformers write the same layout; this reader adds what a user needs: one clear line for a missing
folder, a truncated file, or weights of another shape, and a sha256 of every weight file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    UNet2DConditionModel,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import (
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    ClapConfig,
    ClapModel,
    ClapTextConfig,
    ClapTextModelWithProjection,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
)

from audioldm.errors import AudioLDMError
from audioldm.nets.clap import MelEncoder
from audioldm.nets.istft_vocoder import ISTFTVocoder
from audioldm.nets.micro import MicroConditioning
from audioldm.nets.noisy_classifier import NoisyClassifier

BUILDERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "AutoencoderKL": AutoencoderKL.from_config,
    "UNet2DConditionModel": UNet2DConditionModel.from_config,
    "AudioLDM2UNet2DConditionModel": AudioLDM2UNet2DConditionModel.from_config,
    "ISTFTVocoder": ISTFTVocoder.from_config,
    "MelEncoder": MelEncoder.from_config,
    "MicroConditioning": MicroConditioning.from_config,
    "NoisyClassifier": NoisyClassifier.from_config,
    "SpeechT5HifiGan": lambda config: SpeechT5HifiGan(SpeechT5HifiGanConfig.from_dict(config)),
    "AudioLDM2ProjectionModel": AudioLDM2ProjectionModel.from_config,
    "GPT2Model": lambda config: GPT2Model(GPT2Config.from_dict(config)),
    "ClapModel": lambda config: ClapModel(ClapConfig.from_dict(config)),
    "T5EncoderModel": lambda config: T5EncoderModel(T5Config.from_dict(config)),
    "ClapTextModelWithProjection": lambda config: ClapTextModelWithProjection(
        ClapTextConfig.from_dict(config)
    ),
    "ClapAudioModelWithProjection": lambda config: ClapAudioModelWithProjection(
        ClapAudioConfig.from_dict(config)
    ),
}
DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_)
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")


def save_component(module: nn.Module, folder: Path | str, *, dtype: torch.dtype | None = None) -> Path:
    """Write ``config.json`` and the weights (cast to ``dtype`` if given) into ``folder``; return the weight file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    borrowed = not hasattr(module, "save_config")  # transformers keeps its configuration in an object
    if borrowed:
        module.config.architectures = [type(module).__name__]
        module.config.save_pretrained(folder)
    else:
        module.save_config(folder)
    path = folder / WEIGHTS[borrowed]
    draft = path.with_suffix(
        f".{os.getpid()}.part"
    )  # loaded weights may be views of the file that is replaced
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    first: dict[int, str] = {}  # T5 has its words under two names; safetensors wants two tensors for them
    state = {k: v if first.setdefault(v.data_ptr(), k) == k else v.clone() for k, v in state.items()}
    if dtype is not None:
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    save_file(state, draft, metadata={"format": "pt"})
    settle_header(draft)
    os.replace(draft, path)
    return path


def settle_header(path: Path) -> None:
    """Put spaces behind a safetensors header: the first weight is then at a multiple of 64 bytes (see ``aligned``)."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
        if not (spaces := -(8 + length) % 64):
            return
        longer = path.with_suffix(".longer")
        with open(longer, "wb") as copy:
            copy.write((length + spaces).to_bytes(8, "little") + header + b" " * spaces)
            shutil.copyfileobj(file, copy)
    os.replace(longer, path)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object, or one clear line."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise AudioLDMError(f"{path} is missing.", "Is this a model folder? Name another with -m.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AudioLDMError(f"{path} is not valid JSON ({error}).", "Copy the model folder again.") from None
    if not isinstance(content, dict):
        raise AudioLDMError(f"{path} holds no JSON object.", "Copy the model folder again.")
    return content


def weight_file(folder: Path | str) -> Path:
    """The one weight file of a component folder."""
    for name in WEIGHTS:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise AudioLDMError(f"{folder} has no weights ({' or '.join(WEIGHTS)}).", "Copy the model folder again.")


def load_component(
    folder: Path | str, builders: Mapping[str, Callable[[dict[str, Any]], nn.Module]] = BUILDERS
) -> nn.Module:
    """Build the class that ``config.json`` names and load its weights strictly, as float32, in eval mode.

    Float32 weights that lie well in the file stay views of it, read where they are first used and copied where they
    are changed; ``aligned`` copies the rest.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    name = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    if name not in builders:
        raise AudioLDMError(f"{folder}: unknown class {name!r}.", f"Known: {', '.join(builders)}.")
    with Undrawn():
        module = builders[name](config)
    path = weight_file(folder)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise AudioLDMError(
            f"{path} cannot be read ({error}): truncated or corrupt.", "Copy it again."
        ) from None
    check_state(module, state, path)
    own = len(list(module.parameters())) == len(list(module.named_parameters(remove_duplicate=False)))
    module.load_state_dict(aligned(state), strict=True, assign=own)  # weights with two names must stay one
    return module.float().eval()


def aligned(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with every tensor at a multiple of 16 bytes, copied where it was not.

    A matrix product may round by where its operands lie (MKL on AMD does, modulo 16), and a file puts them anywhere:
    the same weights from another file would make another sound, if only in the last bit.

    >>> store = torch.arange(40.0)
    >>> aligned({"weight": store[1:33]})["weight"].data_ptr() % 16
    0
    """
    return {key: value.clone() if value.data_ptr() % 16 else value for key, value in state.items()}


class Undrawn(TorchFunctionMode):
    """Leave parameters as they were allocated: what a file will replace needs no random start."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """``func``, unless it fills a parameter in place."""
        given = kwargs or {}
        target = given.get("tensor", args[0] if args else None)
        draws = getattr(func, "__module__", None) == "torch.nn.init" or func in DRAWS
        return target if draws and isinstance(target, nn.Parameter) else func(*args, **given)


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerFast:
    """A tokenizer that was saved with ``save_pretrained``."""
    read_json(Path(folder) / "tokenizer.json")
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def check_state(module: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Name the first tensor that is missing, unexpected, or of another shape."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or extra:
        what = f"lacks {missing[0]!r}" if missing else f"has an unknown {extra[0]!r}"
        raise AudioLDMError(
            f"{path} {what} ({len(missing)} missing, {len(extra)} unknown).",
            "Its config.json does not belong to it.",
        )
    for key, value in own.items():
        if value.shape != state[key].shape:
            raise AudioLDMError(
                f"{path}: {key!r} has shape {tuple(state[key].shape)}, its config.json says {tuple(value.shape)}.",
                "Use the config.json that belongs to these weights.",
            )


def sha256(path: Path | str) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
