"""The noise schedule on disk, in diffusers' scheduler_config.json."""

import json
from pathlib import Path
from typing import cast

import torch

from audioldm.diffusion.prediction import Prediction
from audioldm.diffusion.schedule import NoiseSchedule, from_betas, linear, scaled_linear
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import read_json

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
    (folder / "scheduler_config.json").write_text(json.dumps(config))


def read_scheduler(folder: Path) -> tuple[NoiseSchedule, Prediction]:
    """A schedule and what the net predicts, from our own or a published configuration."""
    path = folder / "scheduler_config.json"
    config = read_json(path)
    ours = {theirs: name for name, theirs in PREDICTIONS.items()}
    kind = config.get("prediction_type", "epsilon")
    if kind not in ours:
        raise AudioLDMError(f"{path}: prediction_type={kind!r} is unknown.", f"Known: {', '.join(ours)}.")
    if config.get("trained_betas") is not None:
        schedule = from_betas(torch.tensor(config["trained_betas"], dtype=torch.float64))
    else:
        shapes = {"linear": linear, "scaled_linear": scaled_linear}
        name = config.get("beta_schedule", "linear")
        if name not in shapes:
            raise AudioLDMError(f"{path}: beta_schedule={name!r} is unknown.", f"Known: {', '.join(shapes)}.")
        if not {"beta_start", "beta_end"} <= config.keys():
            raise AudioLDMError(f"{path}: the schedule has no betas.", "Copy the model folder again.")
        length = config.get("num_train_timesteps", 1000)
        schedule = shapes[name](config["beta_start"], config["beta_end"], length=length)
    return schedule, cast(Prediction, ours[kind])
