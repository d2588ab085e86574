"""Where the parts of a model come from: a finished run, a checkpoint of one, a published file, a component folder."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from audioldm.errors import AudioLDMError

NETS = {"ldm": "unet", "vae": "vae", "vocoder": "vocoder", "clap": "clap"}
"""What the command calls a part: what a module of ``training`` and a folder call it."""


def part_folder(place: Path, part: str, stack: ExitStack) -> Path:
    """A folder that holds the net of ``part``; what has to be unpacked for that is gone when ``stack`` closes."""
    net = NETS[part]
    if place.is_file():
        folder = Path(stack.enter_context(TemporaryDirectory()))
        unpack(place, part, folder)
        return folder
    for folder in (place / "model", place):
        if (folder / ("text_encoder" if net == "clap" else net)).is_dir():
            return folder
    if place.name == net and (place / "config.json").is_file():
        return place.parent
    raise AudioLDMError(
        f"{place} holds no {net}: the run is missing or not finished.",
        "Train it to its end, or name its checkpoint (checkpoints/last.ckpt).",
    )


def unpack(file: Path, part: str, folder: Path) -> None:
    """Write the net of ``part`` from a checkpoint into ``folder``."""
    if run_of(file) is not None:
        unpack_training(file, part, folder)
        return
    from audioldm.convert.checkpoint import read_checkpoint

    written = write_published(read_checkpoint(file), file, folder, {NETS[part]})
    if not written:
        raise AudioLDMError(f"{file} has no {NETS[part]}.", "Name a file that has one.")


def run_of(file: Path) -> Path | None:
    """The run folder of a training checkpoint."""
    run = file.parent.parent
    return run if (run / "config.yaml").is_file() else None


def unpack_training(file: Path, part: str, folder: Path) -> None:
    """The averaged weights of a training checkpoint where it has an average, else its weights."""
    from audioldm import recipes
    from audioldm.nets.folder import read_weights
    from audioldm.nets.folder import check_state, save_component

    net, settings = NETS[part], run_settings(file.parent.parent)
    content = read_weights(file)
    prefix = f"{net}."
    state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
    averages = [
        c["shadow"] for c in content.get("callbacks", {}).values() if isinstance(c, dict) and c.get("shadow")
    ]
    module = recipes.part(settings, net)
    state = averages[0] if averages else state
    check_state(module, state, file)
    module.load_state_dict(state, strict=True)
    if net == "clap":
        module.save(folder)
    else:
        save_component(module, folder / net)


def write_published(found: Any, file: Path, folder: Path, wanted: set[str]) -> list[Path]:
    """Write the nets of a published checkpoint that are ``wanted`` and there as component folders."""
    from audioldm.convert import build
    from audioldm.nets.folder import save_component

    makers = {
        "unet": (found.unet, build.unet_of),
        "vae": (found.vae, build.vae_of),
        "vocoder": (found.vocoder, build.vocoder_of),
        "text_encoder_2": (found.words, build.words_of),
    }
    written = []
    for name, (state, make) in makers.items():
        if state and name in wanted:
            save_component(make(found, file), folder / name)
            written.append(folder / name)
    if found.language and "language_model" in wanted:
        nets = build.generator_of(found, file)
        for name, net in zip(("projection_model", "language_model"), nets, strict=True):
            save_component(net, folder / name)
            written.append(folder / name)
    if found.clap and "clap" in wanted:
        for name, tower in zip(("text_encoder", "audio_encoder"), build.clap_of(found, file), strict=True):
            save_component(tower, folder / name)
            written.append(folder / name)
    return written


def run_settings(run: Path) -> dict[str, Any]:
    """The resolved configuration that a run was started with."""
    import yaml

    path = run / "config.yaml"
    if not path.is_file():
        raise AudioLDMError(
            f"{path} is missing.", "Name the folder that `audioldm train` printed, without /model."
        )
    return yaml.safe_load(path.read_text())


def t5_of(index: dict[str, Any], named: str = "") -> Any:
    """The T5 that a latent cache was made with: the ``named`` one, or where it was then; the same weights."""
    from audioldm.nets.folder import sha256
    from audioldm.nets.text_encoder import T5TextEncoder, weights_of

    made = next((item for item in index.get("made_of", []) if item["what"] == "T5"), None)
    if made is None:
        raise AudioLDMError(
            "The U-Net attends to tokens, which its latents do not hold.", "Encode with --t5 and train again."
        )
    place = named or str(Path(made["file"]).parent)
    if not named and not Path(made["file"]).is_file():
        raise AudioLDMError(f"{made['file']} is missing, with which the tokens were made.", "Name it: --t5.")
    text = T5TextEncoder.from_pretrained(place)
    if sha256(weights_of(place)) != made["sha256"]:
        raise AudioLDMError(f"The U-Net's tokens were not made with t5={place}.", "Name the right one.")
    return text
