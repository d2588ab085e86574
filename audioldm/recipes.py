"""The only file that knows Hydra: names to configurations, configurations to experiments.

``conf/`` holds parts (one group = one constructor), ``recipes/`` named experiments that choose parts and set the few
numbers that are their point.   A checkout's folders are used where there is one, else the copies in the package.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from glob import glob
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audioldm.errors import AudioLDMError

PACKAGE = Path(__file__).parent
PLACES = ("manifests", "val_manifest", "folder", "val_folder", "shards", "path", "vae", "vocoder", "clap")
"""keys whose texts name files or folders"""


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
    """A recipe's file.   Raises AudioLDMError for a name that is none."""
    path = find_root()[1] / f"{name}.yaml"
    if not path.is_file():
        raise AudioLDMError(f"Unknown recipe {name!r}.", f"Known: {', '.join(names())}.")
    return path.read_text(encoding="utf-8")


def headline(name: str) -> str:
    """A recipe's first comment line."""
    lines = [line[1:].strip() for line in recipe_text(name).splitlines() if line.startswith("#")]
    return next((line for line in lines if not line.startswith("@")), "")


def load(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a recipe with Hydra overrides such as ``task.lr=1e-4`` or ``trainer=gpu``; a typo is refused.

    ``debug=...`` comes after the recipe, whose numbers it replaces.
    """
    recipe_text(name)
    group, _, choice = name.rpartition("/")
    conf, recipes = find_root()
    ladder = [f"+{word}" for word in overrides if word.startswith("debug=")]
    GlobalHydra.instance().clear()
    try:
        words = [part for word in overrides if not word.startswith("debug=") for part in readable(word)]
        with initialize_config_dir(version_base="1.3", config_dir=str(conf)):
            search = f"hydra.searchpath=[file://{recipes}]"
            cfg = compose("train", [search, f"+{group}={choice}", f"recipe={name}", *ladder, *words])
        OmegaConf.resolve(cfg)
        if missing := OmegaConf.missing_keys(cfg):
            raise AudioLDMError(
                f"{name}: no value for {', '.join(sorted(missing))}.", "Give it as key=value."
            )
    except (HydraException, OmegaConfBaseException) as error:
        raise AudioLDMError(f"{name}: {one_line(error)}", f"See `audioldm recipes {name} --full`.") from None
    for path, value in numbers(OmegaConf.to_container(cfg)):
        refuse_out_of_range(path, value)
    return cfg


def readable(word: str) -> list[str]:
    """An override as Hydra reads it: a text with , ( = or letters that its grammar has not is quoted.

    ``data.weights={...}`` takes the place of the recipe's, to whose keys Hydra would add.

    >>> readable("data.prompt=rain, wind (far)"), readable("data.weights={a: 1}")
    (["data.prompt='rain, wind (far)'"], ['data.weights=null', 'data.weights={a: 1}'])
    """
    key, _, value = word.partition("=")
    quoted = f"{key}='" + value.replace("'", "\\'") + "'"
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        if not value or not key.replace(".", "").isidentifier():
            raise
        return [quoted]
    if override.is_sweep_override():
        if any(character.isdigit() for character in value) or "." not in key:
            raise AudioLDMError(
                f"{word} has several values.", f'Pass -m to train one after the other, or quote: "{quoted}".'
            )
        return [quoted]
    return [f"{key}=null", word] if key == "data.weights" and value.startswith("{") else [word]


def sweep(name: str, overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a sweep, each with a run folder that is named by what is swept.

    >>> sweep("tiny/vae", ["task.lr=1e-3,3e-4", "seed=1"])[0]
    ['task.lr=0.001', 'seed=1', 'run_dir=runs/tiny/vae/task.lr=0.001']
    """
    parent, choices = f"runs/{name}", []
    for word in overrides:
        key, _, value = word.partition("=")
        if key == "run_dir":
            parent = value
            continue
        override = OverridesParser.create().parse_override(word)
        swept = override.is_sweep_override()
        choices.append([f"{key}={one}" for one in override.sweep_string_iterator()] if swept else [word])
    runs = []
    for words in product(*choices):
        varied = [word for word, several in zip(words, choices, strict=True) if len(several) > 1]
        folder = ",".join(varied).replace("/", "_")
        runs.append([*words, f"run_dir={quote(f'{parent}/{folder}')}" if folder else f"run_dir={parent}"])
    return runs


def quote(text: str) -> str:
    """Quoted where Hydra's grammar asks for it."""
    return f"'{text}'" if set(text) & set(",(){}[]: ") else text


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each path of a configuration with its value; the parts of a list have the list's path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from numbers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for value in node:
            yield from numbers(value, path)
    else:
        yield path, node


@lru_cache
def ranges() -> dict[str, str]:
    """Name of a number -> its range, such as "[1, inf)"."""
    return dict(OmegaConf.load(find_root()[0] / "ranges.yaml"))


def refuse_out_of_range(path: str, value: Any) -> None:
    """AudioLDMError for a number outside its range, and for a word where a number belongs."""
    name = "weights" if path.startswith("data.weights.") else path.rpartition(".")[2]
    bounds = ranges().get(name)
    if bounds is None or value is None or isinstance(value, bool) or value == "auto":
        return
    interval = bounds.removeprefix("int ")
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    if isinstance(value, str):
        raise AudioLDMError(f"{path}={value} is not a number.", f"Use one in {interval}.")
    if bounds.startswith("int ") and isinstance(value, float):
        raise AudioLDMError(f"{path}={value} is not a whole number.", f"Use one in {interval}.")
    above = value > low or (value == low and interval[0] == "[")
    below = value < high or (value == high and interval[-1] == "]")
    if not (above and below and math.isfinite(value)):
        raise AudioLDMError(f"{path}={value} is out of range.", f"Use a number in {interval}.")


def one_line(error: Exception) -> str:
    """Without the places that Hydra looked at."""
    return " ".join(str(error).split()).partition(" Config search path")[0][:300] or type(error).__name__


def build(cfg: DictConfig) -> Experiment:
    """Instantiate the parts of a composed recipe; a mistake inside of a part surfaces as itself."""
    import torch

    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    if cfg.trainer.accelerator != "cpu":
        # float32 products on tensor cores, 10 bits of mantissa
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(cfg.seed)
    try:
        module, data = instantiate(cfg.task), instantiate(cfg.data)
        instantiate(cfg.speed).apply(module)
        data.repeat = cfg.data_repeat
        by_hand: dict[str, Any] = {}
        if not module.automatic_optimization:
            module.accumulate, module.clip = cfg.accumulate, cfg.trainer.gradient_clip_val
            by_hand = {"accumulate_grad_batches": 1, "gradient_clip_val": None}
        callbacks, loggers = (
            [instantiate(node) for node in group.values() if node] for group in (cfg.callbacks, cfg.logger)
        )
        trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, **by_hand)
    except HydraException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, AudioLDMError):
            raise cause from None
        raise AudioLDMError(
            f"{cfg.recipe}: {one_line(error)}", f"See `audioldm recipes {cfg.recipe} --full`."
        ) from error
    return Experiment(module, data, trainer, Path(cfg.run_dir))


def open_run(
    cfg: DictConfig, overrides: Sequence[str], *, fresh: bool = False
) -> tuple[Path | None, list[str]]:
    """Prepare the run folder; return the checkpoint to resume from, if any, and what was wrong with newer ones."""
    from audioldm.training.run_folder import open_folder, provenance

    data = OmegaConf.to_container(cfg.data)
    return open_folder(
        Path(cfg.run_dir),
        config=OmegaConf.to_yaml(cfg),
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
    if (cfg.trainer.devices, cfg.trainer.num_nodes) != (1, 1):
        raise AudioLDMError(
            "batch_size=auto probes one device.", "Probe with trainer=gpu, then give its number."
        )
    before = Path(cfg.run_dir) / "config.yaml"
    size = OmegaConf.load(before).batch_size if before.exists() else "auto"
    cfg.batch_size = cfg.data.batch_size = 1
    cfg.batch_size = cfg.data.batch_size = size if isinstance(size, int) else fitting(cfg)


def fitting(cfg: DictConfig, *, limit: int | None = None) -> int:
    """The batch size up to ``limit`` that the memory of one device holds, found by real steps.

    In processes of their own, which leave no memory behind; forked where they can be, because a GPU's state cannot.
    """
    from audioldm.training.memory import LARGEST, probe

    method = "fork" if cfg.trainer.accelerator == "cpu" else "spawn"
    settings = {key: cfg.trainer[key] for key in ("accelerator", "precision")}
    return probe(partial(build, cfg), limit=limit or LARGEST, method=method, devices=1, **settings)


def parameters(cfg: DictConfig) -> dict[str, int]:
    """Number of values of each net of a composed recipe, counted without making them; those on disk left out."""
    import torch

    built = {}
    with torch.device("meta"):
        for name in ("vae", "vocoder", "unet", "discriminator"):
            node = cfg.task.get(name)
            if node and "folder" not in node and "ref" not in node:
                built[name] = instantiate(node)
    return {name: sum(p.numel() for p in net.parameters()) for name, net in built.items()}


def missing(cfg: DictConfig) -> list[str]:
    """Files, folders and patterns that a configuration names and that are not there; addresses are not asked."""
    named = (
        str(value)
        for path, value in numbers(OmegaConf.to_container(cfg))
        if isinstance(value, str) and path.rpartition(".")[2] in PLACES
    )
    lost = (path for path in named if ":" not in path and not (glob(path) or Path(path).exists()))
    return list(dict.fromkeys(lost))
