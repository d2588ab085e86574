"""Whole models as components: original checkpoints, diffusers' and Tango's folders, and the folder of this project.

That is diffusers' layout, and ``audioldm.json``: AudioSpec, defaults for generating, sha256 of every weight file.
"""

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import SpeechT5HifiGan

from audioldm.components import Components, Sampling
from audioldm.control.controls import MicroControl
from audioldm.control.nets import MicroConditioning
from audioldm.convert.checkpoint import TANGO_MAIN, TANGO_VAE, TITLES, Checkpoint, read_checkpoint, read_tango
from audioldm.convert.folder import CLASSES, NETS, Choices, Folder, Source, clap_of, token_encoder_of
from audioldm.diffusion.prediction import Prediction
from audioldm.diffusion.schedule import NoiseSchedule, audioldm, from_betas, linear, scaled_linear
from audioldm.errors import AudioLDMError
from audioldm.nets.clap import NoClap
from audioldm.nets.folder import load_component, read_json, save_component, weight_file, weight_hash
from audioldm.nets.text_encoder import LONGEST, AudioLDM2TextEncoder
from audioldm.nets.unet import learns_variance
from audioldm.nets.vae import stride_of
from audioldm.paths import published, write_text
from audioldm.progress import counted
from audioldm.spec import SPECS, AudioSpec

SUCCESSORS = Sampling(guidance=3.5)
"""how AudioLDM 2's original samples; its U-Nets have more than one transformer a block"""
TANGO = Sampling(sampler="ddpm", grid="leading", guidance=3.0)
"""how Tango's own code samples: diffusers' DDPMScheduler"""
LICENCE = "CC-BY-NC-SA-4.0"
NOTICE = "The published AudioLDM weights are licensed CC-BY-NC-SA-4.0: not for commercial use, share alike."
TANGO_NOTICE = "The published Tango weights are for research, not for commercial use; see their model card."
HASHED = (*CLASSES, "micro")
ABOUT = {"name": str, "spec": dict, "defaults": dict, "about": dict, "sha256": dict}
"""what ``audioldm.json`` holds"""
REQUIRED = ("seconds", "steps", "sampler", "grid", "guidance")  # defaults that a model folder must name
AGAIN = "Copy the model folder again."
MOST_STEPS = 100_000  # of a schedule
SHAPES = {"linear": linear, "scaled_linear": scaled_linear}
PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}  # ours: diffusers'


def open_checkpoint(path: Path, choices: Choices) -> Components:
    """The model of an original ``.ckpt`` or ``.pth``, with both CLAP towers and its encoders of tokens."""
    checkpoint = read_checkpoint(path, choices)
    more = {"weights": checkpoint.weights, "heads": choices.heads, "scaling_factor": checkpoint.scale}
    return replace(
        of_source(checkpoint, alone=choices.heads == "original", longest=LONGEST), name=path.stem, notice=NOTICE,
        hashes={"checkpoint": weight_hash(path)},
        schedule=audioldm() if checkpoint.betas is None else from_betas(checkpoint.betas),
        defaults=SUCCESSORS if len(checkpoint.nets["unet"].config["shape"].contexts) > 1 else Sampling(),
        about={"source": path.name, "licence": LICENCE, **more},
    )  # fmt: skip


def open_tango(folder: Path, choices: Choices) -> Components:
    """The model of Tango's folder, without CLAP; FLAN-T5 reads 512 tokens by ``tokenizer_2`` inside, or the hub's."""
    checkpoint = read_tango(folder, replace(choices, heads="original"))
    about = {"source": str(folder), "licence": "research, non-commercial", "scaling_factor": checkpoint.scale}
    return replace(
        of_source(checkpoint, longest=512), name=folder.name, notice=TANGO_NOTICE, defaults=TANGO,
        schedule=scaled_linear(0.00085, 0.012), prediction="v", about=about,
        hashes={name: weight_hash(folder / name) for name in (TANGO_MAIN, TANGO_VAE)},
    )  # fmt: skip


def of_source(
    source: Source, *, alone: bool = True, longest: int | None = None, spec: AudioSpec | None = None
) -> Components:
    """The nets of a source together, or AudioLDMError; ``spec`` None is the one that belongs to the vocoder."""
    if isinstance(source, Checkpoint) and (problem := obstacle(source)):
        raise problem
    unet, vae, vocoder = (source.build(name) for name in counted(NETS, "nets"))
    clap, spec = clap_of(source), spec or spec_of(vocoder, stride_of(vae), vae.config.latent_channels)
    tokens = token_encoder_of(source, clap, alone=alone, longest=longest)
    return Components(unet, vae, vocoder, clap, spec, token_encoder=tokens)


def obstacle(checkpoint: Checkpoint) -> AudioLDMError | None:
    """Why a checkpoint cannot generate: it lacks a net, or its U-Net needs a condition that nothing in it gives."""
    nets = checkpoint.nets
    needed = (*NETS, "text_encoder") if "unet" not in nets or nets["unet"].config["shape"].film_dim else NETS
    if not (lost := [TITLES[name] for name in needed if name not in nets]):
        return gap(checkpoint)
    there = ", ".join(TITLES[name] for name in needed if name in nets) or "none of them"
    what = f"{checkpoint.path} holds {there} but no {', no '.join(lost)}: it cannot generate alone."
    hint = "Join parts with audioldm export --ldm ... --vae ... --vocoder ... --clap ...."
    return AudioLDMError(what, hint)


def gap(checkpoint: Checkpoint) -> AudioLDMError | None:
    """Which condition a checkpoint's U-Net needs, if nothing in the file gives it."""
    path, nets = checkpoint.path, checkpoint.nets
    widths = [nets["text_encoder_2"].config["d_model"]] if "text_encoder_2" in nets else []
    if "language_model" in nets and "text_encoder" in nets:
        widths.insert(0, nets["language_model"].config["n_embd"])
    needed = [width for width in nets["unet"].config["shape"].contexts if width]
    if checkpoint.unread:
        unknown = f"neither CLAP nor T5 nor AudioLDM 2's GPT-2: {checkpoint.unread[0]!r}"
        problem = f"{path} has a conditioner that is {unknown}"
    elif needed not in ([], widths):
        gives = f"gives {', '.join(map(str, widths))}" if widths else "has no encoder for them"
        wide = ", ".join(map(str, needed))
        problem = f"The U-Net of {path} needs token sequences ({wide} wide); the file {gives}"
    else:
        return None
    return AudioLDMError(f"{problem}.", f"Take its other nets out with: audioldm export {path} -o FOLDER.")


def spec_of(vocoder: Any, stride: int, latent_channels: int) -> AudioSpec:
    """The front end that belongs to a vocoder; AudioLDMError where no known one does."""
    config = vocoder.config
    if hasattr(config, "spec"):  # a vocoder of this project, trained on one front end
        return replace(SPECS[config.spec], stride=stride, latent_channels=latent_channels)
    facts = (config.sampling_rate, config.model_in_dim, math.prod(config.upsample_rates))
    for spec in SPECS.values():
        if (spec.rate, spec.mels, spec.hop) == facts:
            return replace(spec, stride=stride, latent_channels=latent_channels)
    what = "No known mel front end has {} Hz, {} mels and a hop of {}.".format(*facts)
    raise AudioLDMError(what, f"Known: {', '.join(SPECS)}.")


def open_diffusers(folder: Path, choices: Choices) -> Components:
    """The model of a diffusers folder; ``heads="as-published"`` also pads texts as AudioLDM2Pipeline does."""
    kind = read_json(folder / "model_index.json").get("_class_name")
    if kind not in ("AudioLDMPipeline", "AudioLDM2Pipeline"):
        raise AudioLDMError(f"{folder} is a {kind}.", "Known: AudioLDMPipeline, AudioLDM2Pipeline.")
    schedule, prediction = read_scheduler(folder / "scheduler")
    return replace(
        of_source(Folder(folder, choices.heads), alone=choices.heads == "original"), name=folder.name,
        schedule=schedule, prediction=prediction, notice=NOTICE, hashes=hashes_of(folder),
        defaults=SUCCESSORS if kind == "AudioLDM2Pipeline" else Sampling(),
        about={"source": str(folder), "licence": LICENCE, "heads": choices.heads},
    )  # fmt: skip


def open_folder(folder: Path) -> Components:
    """The model in a folder that ``save_model`` wrote, float32 on the CPU.   Raises AudioLDMError."""
    index, about = read_json(folder / "model_index.json"), read_about(folder / "audioldm.json")
    hashes = hashes_of(folder, about["sha256"])
    schedule, prediction = read_scheduler(folder / "scheduler")
    model = of_source(Folder(folder), alone=index.get("texts", "alone") == "alone", spec=about["spec"])
    spec, hop = model.spec, math.prod(getattr(model.vocoder.config, "upsample_rates", (model.spec.hop,)))
    facts = (hop, model.vae.config.latent_channels, stride_of(model.vae))
    if facts != (spec.hop, spec.latent_channels, spec.stride):
        raise AudioLDMError(f"{folder}: its vocoder, its VAE and its spec do not belong together.", AGAIN)
    more = {key: about[key] for key in ("defaults", "name", "about")} | {"controls": micro_of(folder)}
    return replace(model, schedule=schedule, prediction=prediction, hashes=hashes, **more)


def micro_of(folder: Path) -> tuple[MicroControl, ...]:
    """The micro-conditioning of a model folder, if it has one."""
    if not (folder / "micro").is_dir():
        return ()
    return (MicroControl(load_component(folder / "micro", MicroConditioning).requires_grad_(False), {}),)


def read_fields(kind: Any, values: Mapping[str, Any], path: Path) -> Any:
    """An AudioSpec or a Sampling of ``values`` of usual types and in range.   Raises AudioLDMError."""
    plain = asdict(kind())
    for key, value in values.items():
        if key not in plain:
            raise AudioLDMError(f"{path}: {key} is unknown here.", "Export the model again.")
        usual = {float: (float, int)}.get(type(plain[key]), (type(plain[key]),))
        least = 0 if kind is Sampling or key == "fmin" else 1e-9
        if type(value) not in usual or not (type(value) is str or least <= value <= 2**20):
            raise AudioLDMError(f"{path}: {key}={value!r:.60} is not valid.", AGAIN)
    return kind(**values)


def read_about(path: Path) -> dict[str, Any]:
    """``audioldm.json`` with its AudioSpec and Sampling, values of usual types and in range.   Raises AudioLDMError."""
    about: dict[str, Any] = {"about": {}, "sha256": {}, **read_json(path)}
    for key, kind in ABOUT.items():
        if not isinstance(about.get(key), kind):
            raise AudioLDMError(f"{path}: {key}={about.get(key)!r:.60} is not valid.", AGAIN)
    if missing := [key for key in REQUIRED if key not in about["defaults"]]:
        raise AudioLDMError(f"{path} has no default for {', '.join(missing)}.", "Export the model again.")
    about["spec"] = read_fields(AudioSpec, about["spec"], path)
    about["defaults"] = read_fields(Sampling, about["defaults"], path)
    return about


def hashes_of(folder: Path, expected: Mapping[str, str] | None = None) -> dict[str, str]:
    """The sha256 of every weight file; AudioLDMError where one is not the ``expected``."""
    expected, hashes = expected or {}, dict[str, str]()
    parts = [part for part in HASHED if part in expected or (folder / part).is_dir()]
    files = {part: weight_file(folder / part) for part in parts}
    with ThreadPoolExecutor() as pool:  # a digest leaves the interpreter to others
        digests = pool.map(weight_hash, files.values())
        for part, file in counted(files.items(), "MB", lambda item: item[1].stat().st_size / 1e6):
            hashes[part] = next(digests)
            if hashes[part] != expected.get(part, hashes[part]):
                changed = f"its sha256 is {hashes[part][:12]}..., not {str(expected[part])[:12]}..."
                raise AudioLDMError(f"{file} is truncated or was changed: {changed}.", AGAIN)
    return hashes


def read_scheduler(folder: Path) -> tuple[NoiseSchedule, Prediction]:
    """A schedule and what the net predicts, from our own or a published ``scheduler_config.json``."""
    path = folder / "scheduler_config.json"
    config = read_json(path)
    ours = {theirs: name for name, theirs in PREDICTIONS.items()}
    betas, kind = config.get("trained_betas"), config.get("prediction_type", "epsilon")
    shape = config.get("beta_schedule", "linear") if betas is None else "linear"
    for name, value, known in (("prediction_type", kind, [*ours]), ("beta_schedule", shape, [*SHAPES])):
        if value not in known:
            raise AudioLDMError(f"{path}: {name}={value!r} is unknown.", f"Known: {', '.join(known)}.")
    numbers = [config.get("beta_start"), config.get("beta_end")] if betas is None else betas
    length = config.get("num_train_timesteps", 1000) if betas is None else MOST_STEPS
    fits = isinstance(numbers, list) and all(isinstance(n, int | float) and 0 <= n <= 1 for n in numbers)
    if not fits or type(length) is not int or not 2 <= min(length, len(numbers)) <= length <= MOST_STEPS:
        raise AudioLDMError(f"{path}: the betas are no numbers between 0 and 1, or too many.", AGAIN)
    try:
        if betas is None:
            return SHAPES[shape](*map(float, numbers), length=length), cast(Prediction, ours[kind])
        return from_betas(torch.tensor(numbers, dtype=torch.float64)), cast(Prediction, ours[kind])
    except ValueError as error:
        raise AudioLDMError(f"{path}: {error}", AGAIN) from error


def save_model(model: Components, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write all parts (cast to ``dtype``), whole or not at all; AudioLDMPipeline opens a model of one FiLM vector."""
    tokens, facts = model.token_encoder, [part for part in model.controls if isinstance(part, MicroControl)]
    with published(folder) as stage:
        for name in counted(NETS, "nets"):
            save_component(getattr(model, name), stage / name, dtype=dtype)
        model.clap.save(stage, dtype=dtype)
        if tokens is not None:
            tokens.save(stage, dtype=dtype)
        if facts:
            save_component(facts[0].net, stage / "micro", dtype=dtype)
        content = {
            "format": 1, "name": model.name, "spec": asdict(model.spec), "defaults": asdict(model.defaults),
            "about": model.about, "sha256": hashes_of(stage),
        }  # fmt: skip
        # every schedule by its betas, which any diffusers scheduler takes as trained_betas
        scheduler = {
            "_class_name": "DDIMScheduler", "prediction_type": PREDICTIONS[model.prediction], "clip_sample": False,
            "num_train_timesteps": model.schedule.length, "trained_betas": model.schedule.betas.tolist(),
            "set_alpha_to_one": False, "steps_offset": 1,
        }  # fmt: skip
        write_text(stage / "scheduler" / "scheduler_config.json", json.dumps(scheduler))
        write_text(stage / "model_index.json", json.dumps(index_of(model), indent=1))
        write_text(stage / "audioldm.json", json.dumps(content, indent=1))


def index_of(model: Components) -> dict[str, Any]:
    """``model_index.json``: stock AudioLDMPipeline's, or our own for a model with tokens or another vocoder."""
    tokens, nets, texts = model.token_encoder, {name: getattr(model, name) for name in NETS}, dict[str, str]()
    if not isinstance(model.clap, NoClap):
        nets |= {"text_encoder": model.clap.text_encoder, "tokenizer": model.clap.tokenizer}
    if isinstance(tokens, AudioLDM2TextEncoder):
        nets |= {"projection_model": tokens.projection, "language_model": tokens.gpt}
        texts = {"texts": "alone" if tokens.alone else "padded"}
    if tokens is not None:
        nets["text_encoder_2"] = getattr(tokens, "t5", tokens).model
    index: dict[str, Any] = {k: [type(v).__module__.split(".")[0], type(v).__name__] for k, v in nets.items()}
    other = not isinstance(model.vocoder, SpeechT5HifiGan)
    ours = any((tokens, model.controls, learns_variance(model.unet), other))
    index |= {"_class_name": "AudioLDM" if ours else "AudioLDMPipeline"}
    return index | {"scheduler": ["diffusers", "DDIMScheduler"], **texts}
