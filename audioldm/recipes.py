"""The only file that knows Hydra: names to configurations, configurations to experiments.

``conf/`` holds parts (one group = one constructor), ``recipes/`` named experiments that choose parts and set the few
numbers that are their point.   A checkout's folders are used where there is one, else the copies in the package.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audioldm.errors import AudioLDMError

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """What ``audioldm train`` runs."""

    module: Any
    data: Any
    trainer: Any
    run_dir: Path


def find_root() -> tuple[Path, Path]:
    """(conf, recipes): of the checkout that the package lies in, else the ones inside the package."""
    checkout = PACKAGE.parent
    if (checkout / "conf" / "train.yaml").is_file():
        return checkout / "conf", checkout / "recipes"
    return PACKAGE / "_conf", PACKAGE / "_recipes"


def names() -> list[str]:
    """Every recipe, such as "tiny/vae"."""
    _, recipes = find_root()
    return sorted(p.relative_to(recipes).with_suffix("").as_posix() for p in recipes.rglob("*.yaml"))


def recipe_text(name: str) -> str:
    """A recipe's file."""
    known(name)
    return (find_root()[1] / f"{name}.yaml").read_text()


def headline(name: str) -> str:
    """A recipe's first comment line."""
    lines = [line[1:].strip() for line in recipe_text(name).splitlines() if line.startswith("#")]
    return next((line for line in lines if not line.startswith("@")), "")


def known(name: str) -> None:
    """Refuse a name that is no recipe."""
    if name not in names():
        raise AudioLDMError(f"Unknown recipe {name!r}.", f"Known: {', '.join(names())}.")


def load(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a recipe with Hydra overrides such as ``task.lr=1e-4`` or ``trainer=gpu``; a typo is refused.

    ``debug=...`` comes after the recipe, whose numbers it replaces.
    """
    known(name)
    ladder = [f"+{word}" for word in overrides if word.startswith("debug=")]
    overrides = [word for word in overrides if not word.startswith("debug=")]
    conf, recipes = find_root()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
            search = f"hydra.searchpath=[file://{recipes.parent}]"
            words = [search, f"+{recipes.name}={name}", f"recipe={name}", *ladder]
            cfg = compose("train", [*words, *overrides])
            plain = compose("train", words) if overrides else cfg
        for word in overrides:
            refuse_words_for_numbers(name, word, cfg, plain)
        OmegaConf.resolve(cfg)
        if missing := OmegaConf.missing_keys(cfg):
            raise AudioLDMError(
                f"{name}: no value for {', '.join(sorted(missing))}.", "Give it as key=value."
            )
    except (HydraException, OmegaConfBaseException) as error:
        raise AudioLDMError(f"{name}: {_one_line(error)}", f"See `audioldm recipes {name} --full`.") from None
    return cfg


def refuse_words_for_numbers(name: str, override: str, cfg: DictConfig, plain: DictConfig) -> None:
    """A word where the recipe has a number, such as batches=many; "auto" and references are left to what reads them."""
    key, _, value = override.partition("=")
    if key.startswith(("+", "~")) or "@" in key or "/" in key or value == "auto" or "${" in value:
        return
    before, now = (OmegaConf.select(part, key, throw_on_resolution_failure=False) for part in (plain, cfg))
    if isinstance(before, int | float) and not isinstance(before, bool) and isinstance(now, str):
        raise AudioLDMError(f"{name}: {override} is not a number.", f"The recipe has {key}={before}.")


def _one_line(error: Exception) -> str:
    """Without the places that Hydra looked at."""
    return " ".join(str(error).split()).partition(" Config search path")[0][:300] or type(error).__name__


def build(cfg: DictConfig) -> Experiment:
    """Instantiate the parts of a composed recipe."""
    import torch

    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    torch.manual_seed(cfg.seed)
    try:
        module, data = instantiate(cfg.task), instantiate(cfg.data)
        speed = instantiate(cfg.speed)
        for net in module.components().values():
            speed.apply(net)
        data.repeat = cfg.data_repeat
        return Experiment(module, data, instantiate(cfg.trainer), Path(cfg.run_dir))
    except HydraException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, AudioLDMError):
            raise cause from None
        raise AudioLDMError(
            f"{cfg.recipe}: {_one_line(error)}", f"See `audioldm recipes {cfg.recipe} --full`."
        ) from error


def open_run(
    cfg: DictConfig, overrides: Sequence[str], *, fresh: bool = False
) -> tuple[Path | None, list[str]]:
    """Prepare the run folder; return the checkpoint to resume from, if any, and what was wrong with newer ones.

    A run may go on for other minutes than it began with: the machine's lease is no part of the experiment.
    """
    from audioldm.training.run_folder import open_folder, provenance

    data = OmegaConf.to_container(cfg.data)
    settings = {
        key: OmegaConf.to_container(part) if OmegaConf.is_config(part) else part for key, part in cfg.items()
    }
    settings["trainer"].pop("minutes", None)
    return open_folder(
        Path(cfg.run_dir),
        config=OmegaConf.to_yaml(OmegaConf.create(settings)),
        overrides=overrides,
        about=provenance(cfg.recipe, data),  # type: ignore[arg-type]
        fresh=fresh,
    )


def part(settings: dict[str, Any], name: str) -> Any:
    """The net ``name`` of a run's configuration, built as the run built it, with weights of its own."""
    if name not in settings.get("task", {}):
        raise AudioLDMError(f"The run {settings.get('recipe')!r} trained no {name}.", "Name another run.")
    return instantiate(settings["task"][name])


def resolve_batch_size(cfg: DictConfig) -> None:
    """Replace ``batch_size: auto`` by the number that a run in the same folder chose, or by a new probe's."""
    if cfg.batch_size != "auto":
        return
    if (cfg.trainer.devices, cfg.trainer.nodes) != (1, 1):
        raise AudioLDMError(
            "batch_size=auto probes one device.", "Probe with trainer=gpu, then give its number."
        )
    before = Path(cfg.run_dir) / "config.yaml"
    size = OmegaConf.load(before).batch_size if before.exists() else "auto"
    set_batch_size(cfg, 1)
    set_batch_size(cfg, size if isinstance(size, int) else fitting(cfg))


def set_batch_size(cfg: DictConfig, size: int) -> None:
    """Everywhere that it was interpolated to."""
    cfg.batch_size = cfg.data.batch_size = size


def fitting(cfg: DictConfig, *, limit: int | None = None) -> int:
    """The batch size up to ``limit`` that the memory of one device holds, found by real steps.

    In processes of their own, which leave no memory behind; forked where they can be, because a GPU's state cannot.
    """
    from audioldm.training.memory import LARGEST, probe

    method = "fork" if cfg.trainer.accelerator == "cpu" else "spawn"
    settings = {key: cfg.trainer[key] for key in ("accelerator", "precision")}
    return probe(partial(build, cfg), limit=limit or LARGEST, method=method, devices=1, **settings)


def parameters(cfg: DictConfig) -> dict[str, int]:
    """Number of values of each net of a composed recipe, counted without making them; trained ones on disk left out."""
    import torch

    counts = {}
    with torch.device("meta"):
        for part in ("vae", "vocoder", "unet", "discriminator"):
            if part in cfg.task and cfg.task[part] and "load_component" not in cfg.task[part]["_target_"]:
                counts[part] = sum(p.numel() for p in instantiate(cfg.task[part]).parameters())
    return counts


PLACES = ("manifests", "val_manifest", "folder", "val_folder", "shards", "path", "vae", "vocoder", "clap")
"""keys whose texts name files or folders"""


def missing(cfg: DictConfig) -> list[str]:
    """Files, folders and patterns that a configuration names and that are not there; addresses are not asked."""
    named: list[str] = []

    def gather(node: Any, key: str = "") -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                gather(value, name)
        elif isinstance(node, list):
            for value in node:
                gather(value, key)
        elif isinstance(node, str) and key in PLACES:
            named.append(node)

    gather(OmegaConf.to_container(cfg))
    lost = (path for path in named if ":" not in path and not (glob(path) or Path(path).exists()))
    return list(dict.fromkeys(lost))
