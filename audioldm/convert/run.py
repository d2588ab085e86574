"""What a training run left: its settings, the nets of its checkpoints, and the model that its U-Net belongs to."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from audioldm.components import Components, Sampling
from audioldm.convert.model import micro_of
from audioldm.convert.names import below
from audioldm.datasets.latents import read_index
from audioldm.diffusion import schedule as schedules
from audioldm.errors import AudioLDMError
from audioldm.nets.folder import fill, read_weights, state_digest, weight_hash
from audioldm.nets.text_encoder import T5TextEncoder
from audioldm.nets.unet import kind_of, with_variance
from audioldm.nets.vae import encoder_digest
from audioldm.spec import SPECS
from audioldm.tables import read_content

BUILDERS = (
    "audioldm.nets.unet.build_unet", "audioldm.nets.vae.build_vae", "audioldm.nets.hifigan.build_hifigan",
    "audioldm.nets.istft_vocoder.ISTFTVocoder", "audioldm.nets.clap.build_small_clap",
    "audioldm.nets.clap.train_tokenizer", "audioldm.nets.minilm.minilm_word_embeddings",
    "audioldm.nets.minilm.minilm_tokenizer", "audioldm.datasets.synthetic.captions",
    "audioldm.convert.reference.open_part",
)  # fmt: skip
"""what the configuration of a run may call to build a net: nothing that writes"""
HYDRA = ("_target_", "_partial_")  # how the training builds a net, not with what
TRAINED = Sampling(steps=25, sampler="dpmpp_2m", grid="trailing", guidance=3.0)
"""defaults of a model that is joined from runs"""


def run_of(file: Path) -> Path | None:
    run = file.parent.parent
    return run if (run / "config.yaml").is_file() else None


def run_settings(run: Path) -> dict[str, Any]:
    """The resolved configuration that a run was started with.   Raises AudioLDMError."""
    import yaml  # type: ignore[import-untyped]

    path = run / "config.yaml"
    if not path.is_file():
        hint = "Name the folder that `audioldm train` printed, without /model."
        raise AudioLDMError(f"{path} is missing.", hint)
    settings = read_content(path, "Name another run.", yaml.safe_load, "YAML")
    if not isinstance(settings, dict) or not isinstance(settings.get("task"), dict):
        raise AudioLDMError(f"{path} is no configuration of a training.", "Name another run.")
    return settings


def index_of(run: Path) -> dict[str, Any]:
    data = run_settings(run).get("data")
    folder = data.get("folder") if isinstance(data, dict) else None
    if not isinstance(folder, str):
        raise AudioLDMError(f"{run}/config.yaml names no folder of latents.", "Name the run of a U-Net.")
    return read_index(folder)


def open_run_checkpoint(file: Path, name: str) -> Any:
    """The net ``name`` of a training checkpoint: its averaged weights where it has an average, else its weights."""
    settings = run_settings(file.parent.parent)
    task = settings["task"]
    if name not in task:
        raise AudioLDMError(f"The run {settings.get('recipe')!r} trained no {name}.", "Name another run.")
    content = read_weights(file)
    weights, callbacks = content.get("state_dict"), content.get("callbacks") or {}
    if not isinstance(weights, dict):
        raise AudioLDMError(f"{file} has no state_dict.", "Name a checkpoint of a training.")
    state = below(weights, f"{name}.")
    for item in callbacks.values():
        state = item.get("shadows", {}).get("ema", state) if isinstance(item, dict) else state
    wide = name == "unet" and task.get("learned_variance")
    return fill(lambda: with_variance(built(task[name])) if wide else built(task[name]), state, file)


def built(node: Any) -> Any:
    """An object that a run's configuration describes, by builders of this package only.   Raises AudioLDMError."""
    if isinstance(node, list):
        return [built(item) for item in node]
    if not isinstance(node, dict):
        return node
    values = {str(key): built(value) for key, value in node.items() if key not in HYDRA}
    if "_target_" not in node:
        return values
    if (target := str(node["_target_"])) not in BUILDERS:
        raise AudioLDMError(f"The run's configuration names {target!r}.", f"Known: {', '.join(BUILDERS)}.")
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)(**values)


def join_run(run: Path, unet: Any, vae: Any, vocoder: Any, clap: Any, t5: T5TextEncoder | None) -> Components:
    """The model of a run's U-Net and parts.   AudioLDMError where its latents were not made with these."""
    settings, index = run_settings(run), index_of(run)
    hears = "" if clap.audio_encoder is None else state_digest(clap.audio_encoder)
    for what, digest in {"encoder": encoder_digest(vae), "clap": hears}.items():
        if digest != index[what]:
            hint = "Encode and train again, or name the right part."
            raise AudioLDMError(f"The U-Net's latents were not made with this {what}.", hint)
    if (kind_of(unet) == "film") != (t5 is None):
        hint = "Name the T5 of its latents: --t5."
        raise AudioLDMError("The U-Net and the T5 do not belong together.", hint)
    vae.register_to_config(scaling_factor=index["scaling_factor"])
    spec = SPECS[index.get("spec", "16k_64")]
    try:
        call = dict(settings["task"]["schedule"])
        schedule = getattr(schedules, str(call.pop("_target_")).rpartition(".")[2])(**call)
        prediction = settings["task"]["prediction"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AudioLDMError(f"{run}/config.yaml has no usable schedule ({error}).", "Restore it.") from None
    latents = {key: index[key] for key in ("windows", "seconds", "split", "scaling_factor")}
    spec = replace(spec, stride=index["stride"], latent_channels=index["latent_channels"])
    return Components(
        unet, vae, vocoder, clap, spec, token_encoder=t5, schedule=schedule, prediction=prediction,
        defaults=replace(TRAINED, seconds=index["seconds"]), controls=micro_of(run / "model"),
        about={"latents": latents},
    )  # fmt: skip


def t5_of(run: Path, named: str | None = None) -> str | None:
    """The T5 of a run's latents, or the same one as ``named``; None without tokens.   Raises AudioLDMError."""
    index = index_of(run)
    item = next((item for item in index.get("made_of", []) if item["what"] == "T5"), None)
    if item is None:
        return None
    if named is None and not Path(item["file"]).is_file():
        raise AudioLDMError(f"{item['file']} is missing, with which the tokens were made.", "Name it: --t5.")
    from audioldm.convert.reference import find_part

    part = find_part(named or Path(item["file"]).parent, "text_encoder")
    if weight_hash(part.files[0]) != item["sha256"]:
        raise AudioLDMError(f"The U-Net's tokens were not made with t5={part.ref}.", "Name the right one.")
    return part.ref
