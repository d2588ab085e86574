"""The noise schedule on disk, in diffusers' scheduler_config.json."""

import json
from pathlib import Path
from typing import Any, cast

import torch

from audioldm.diffusion.prediction import Prediction
from audioldm.diffusion.schedule import NoiseSchedule, from_betas, linear, scaled_linear
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import read_json
from audioldm.paths import write_text

LONGEST = 100_000
"""steps of a schedule"""
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}  # ours: diffusers'


def write_scheduler(folder: Path, schedule: NoiseSchedule, prediction: Prediction) -> None:
    """Every schedule is written by its betas, which any diffusers scheduler takes as ``trained_betas``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": schedule.length,
        "trained_betas": schedule.betas.tolist(),
        "prediction_type": PREDICTIONS[prediction],
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    write_text(folder / "scheduler_config.json", json.dumps(config))


def read_scheduler(folder: Path) -> tuple[NoiseSchedule, Prediction]:
    """A schedule and what the net predicts, from our own or a published configuration."""
    path = folder / "scheduler_config.json"
    config = read_json(path)
    ours = {theirs: name for name, theirs in PREDICTIONS.items()}
    kind = config.get("prediction_type", "epsilon")
    if not isinstance(kind, str) or kind not in ours:
        raise AudioLDMError(f"{path}: prediction_type={kind!r} is unknown.", f"Known: {', '.join(ours)}.")
    try:
        return betas_of(config), cast(Prediction, ours[kind])
    except AudioLDMError as error:
        raise AudioLDMError(f"{path}: {error.message}", error.hint) from None


def betas_of(config: dict[str, Any]) -> NoiseSchedule:
    """The schedule of a diffusers configuration.   Raises AudioLDMError."""
    copy = "Copy the model folder again."
    betas = config.get("trained_betas")
    if betas is not None:
        if not isinstance(betas, list) or not is_length(len(betas)) or not all(map(is_beta, betas)):
            raise AudioLDMError("trained_betas are not numbers between 0 and 1.", copy)
        return from_betas(torch.tensor(betas, dtype=torch.float64))
    shapes = {"linear": linear, "scaled_linear": scaled_linear}
    name, length = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
    if name not in [*shapes]:
        raise AudioLDMError(f"beta_schedule={name!r} is unknown.", f"Known: {', '.join(shapes)}.")
    ends: list[Any] = [config.get("beta_start"), config.get("beta_end")]
    if not all(map(is_beta, ends)) or not is_length(length):
        raise AudioLDMError("the schedule has no betas, or a length out of range.", copy)
    return shapes[name](*map(float, ends), length=length)


def is_length(value: Any) -> bool:
    """Whether a schedule may have so many steps."""
    return type(value) is int and 2 <= value <= LONGEST


def is_beta(value: Any) -> bool:
    """Whether a value of a configuration can be the variance of a step."""
    return isinstance(value, int | float) and 0 <= value <= 1
