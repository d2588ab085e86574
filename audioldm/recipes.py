"""The only file that knows Hydra: names to configurations, configurations to experiments.

``conf/`` holds parts (one group = one constructor), ``recipes/`` named experiments that choose parts and set the few
numbers that are their point.   A checkout's folders are used where there is one, else the copies in the package.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from glob import glob
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audioldm.convert.hub import cached
from audioldm.convert.reference import open_model
from audioldm.errors import AudioLDMError
from audioldm.nets.unet import multiple_of
from audioldm.paths import shipped
from audioldm.training.memory import LARGEST, RECOMPUTED, kept_bytes, probe
from audioldm.training.run_folder import RunFolder

CONF, RECIPES = shipped("conf"), shipped("recipes")
PLACES = re.compile(
    r"(.*\.)?(manifests|val_manifest|folder|file|val_folder|shards|path|vae|vocoder|clap|model)"
)
"""keys whose texts name files or folders"""


class Range:
    """The numbers that a key may have, such as "int (0, 1] or -1"."""

    def __init__(self, text: str) -> None:
        self.text, self.kind = text.removeprefix("int "), int if text.startswith("int ") else int | float
        interval, *others = self.text.split(" or ")
        low, high = map(float, interval[1:-1].split(","))
        # the ends themselves, or the numbers next to them
        self.low = low if "[" in interval else math.nextafter(low, math.inf)
        self.high = high if "]" in interval else math.nextafter(high, -math.inf)
        self.others = *map(float, others), None, "auto"

    def check(self, path: str, value: Any) -> None:
        number = isinstance(value, self.kind)
        if value not in self.others and not (number and self.low <= value <= self.high):
            wrong = "out of range" if number else f"not a {'whole ' * isinstance(value, float)}number"
            raise AudioLDMError(f"{path}={value} is {wrong}.", f"Use a number in {self.text}.")


rows: Any = OmegaConf.load(CONF / "ranges.yaml")
RANGES = {name: Range(text) for text, names in rows.items() for name in names}
"""by the last part of a number's key"""


@dataclass(frozen=True)
class Experiment:
    """What ``audioldm train`` runs."""

    module: Any
    data: Any
    trainer: Any
    folder: Any

    def fit(self) -> None:
        """Train, from the newest whole state of the run's folder where there is one."""
        with redirect_stdout(sys.stderr):
            self.trainer.fit(self.module, self.data, ckpt_path=self.folder.checkpoint(), weights_only=True)


def names() -> list[str]:
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def load(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose a recipe with Hydra overrides such as ``task.lr=1e-4`` or ``trainer=gpu``; a typo is refused."""
    words = [f"hydra.searchpath=[file://{RECIPES}]", f"+{'='.join(name.rsplit('/', 1))}", f"recipe={name}"]
    with causes(name), initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        cfg = compose("train", [*words, *(part for word in overrides for part in readable(word))])
        OmegaConf.resolve(cfg)
    if missing := OmegaConf.missing_keys(cfg):
        raise AudioLDMError(f"{name}: no value for {', '.join(sorted(missing))}.", "Give it as key=value.")
    refuse_out_of_range(OmegaConf.to_container(cfg))
    return cfg


def parsed(word: str) -> Override | None:
    """An override as Hydra reads it; None for a text beyond its grammar: with , ( = or other letters."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        key, _, value = word.partition("=")
        if not value or not key.replace(".", "").isidentifier():
            raise
        return None


def readable(word: str) -> list[str]:
    """An override as Hydra takes it: a text beyond its grammar is quoted.

    ``data.weights={...}`` takes the place of the recipe's, to whose keys Hydra would add; ``debug=...`` comes after the
    recipe, whose numbers it replaces.

    >>> readable("data.prompt=rain, wind (far)"), readable("data.weights={a: 1}"), readable("debug=overfit")
    (["data.prompt='rain, wind (far)'"], ['data.weights=null', 'data.weights={a: 1}'], ['+debug=overfit'])
    """
    key, _, value = word.partition("=")
    if word.startswith(("debug=", "data.weights={")):
        return [f"+{word}"] if key == "debug" else [f"{key}=null", word]
    override = parsed(word)
    if override is not None and not override.is_sweep_override():
        return [word]
    quoted = f"{key}='" + value.replace("'", "\\'") + "'"
    if override is not None and ("." not in key or re.search(r"\d", value)):
        hint = f'Pass -m to train one after the other, or quote: "{quoted}".'
        raise AudioLDMError(f"{word} has several values.", hint)
    return [quoted]


def sweep(name: str, overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a sweep, each with a run folder that is named by what is swept.

    >>> sweep("tiny/vae", ["task.lr=1e-3,3e-4", "seed=1"])[0]
    ['task.lr=0.001', 'seed=1', "run_dir='runs/tiny/vae/task.lr=0.001'"]
    """
    parent, choices, swept = f"runs/{name}", list[list[str]](), list[int]()
    for word in overrides:
        override = parsed(word)
        if word.startswith("run_dir="):
            parent = word.removeprefix("run_dir=")
        elif override and override.is_sweep_override():
            swept.append(len(choices))
            choices.append([f"{word.partition('=')[0]}={one}" for one in override.sweep_string_iterator()])
        else:
            choices.append([word])
    names = [(run, ",".join(map(run.__getitem__, swept)).replace("/", "_")) for run in product(*choices)]
    return [[*run, f"run_dir='{parent}/{varied}'"] for run, varied in names]


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each path of a configuration with its value; the parts of a list have the list's path."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else [("", value) for value in node]:
            yield from numbers(value, f"{path}.{key}".strip("."))
    else:
        yield path, node


def refuse_out_of_range(cfg: Any) -> None:
    """Raise AudioLDMError for a number outside of its range, and for a word where a number belongs."""
    for path, value in numbers(cfg):
        name = "weights" if path.startswith("data.weights.") else path.rpartition(".")[2]
        if name in RANGES and not isinstance(value, bool):
            RANGES[name].check(path, value)


def build(
    cfg: DictConfig, overrides: Sequence[str] = (), *, fresh: bool = False, report: Callable[[str], Any] = str
) -> Experiment:
    """Instantiate the parts of a composed recipe; a mistake inside of a part surfaces as itself.

    ``overrides`` are noted in the run's folder; ``fresh`` drops the state that is there; ``report`` takes a line for
    the user.
    """
    torch.set_num_threads(cfg.threads or torch.get_num_threads())
    # float32 products on a GPU's tensor cores, 10 bits of mantissa
    torch.set_float32_matmul_precision("highest" if cfg.trainer.accelerator == "cpu" else "high")
    torch.manual_seed(cfg.seed)
    folder = RunFolder(Path(cfg.run_dir), cfg.recipe, OmegaConf.to_yaml(cfg), overrides, fresh, report)
    with causes(cfg.recipe):
        parts = instantiate(cfg, _convert_="all")
        module, data, trainer = (parts[name] for name in ("task", "data", "trainer"))
        module.speed, module.accumulate = parts["speed"], cfg.accumulate
        module.clip = cfg.trainer.gradient_clip_val
        if not module.automatic_optimization:
            # Lightning refuses both for a module that steps its own optimisers
            trainer.keywords.update(accumulate_grad_batches=1, gradient_clip_val=None)
        callbacks, loggers = (filter(None, parts[name].values()) for name in ("callbacks", "logger"))
        return Experiment(module, data, trainer(callbacks=[folder, *callbacks], logger=[*loggers]), folder)


@contextmanager
def causes(recipe: str) -> Iterator[None]:
    """Within, what Hydra wraps surfaces as itself; other mistakes, an unknown name first, become one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, AudioLDMError):
            raise cause from None
        if recipe not in names():
            raise AudioLDMError(f"Unknown recipe {recipe!r}.", f"Known: {', '.join(names())}.") from None
        # without the places that Hydra looked at
        line = " ".join(str(error).split()).partition(" Config search path")[0][:300] or type(error).__name__
        raise AudioLDMError(f"{recipe}: {line}", f"See `audioldm train {recipe} --cfg job`.") from error


def resolve_batch_size(cfg: DictConfig) -> None:
    """Replace ``batch_size: auto`` by the number that a run in the same folder chose, or by a new probe's."""
    if (cfg.trainer.devices, cfg.trainer.num_nodes) != (1, 1):
        hint = "Probe with trainer=gpu, then give its number."
        raise AudioLDMError("batch_size=auto probes one device.", hint)
    before = Path(cfg.run_dir) / "config.yaml"
    size = OmegaConf.load(before).batch_size if before.exists() else "auto"
    cfg.batch_size = cfg.data.batch_size = 1
    cfg.batch_size = cfg.data.batch_size = size if isinstance(size, int) else fitting(cfg)


def fitting(cfg: DictConfig, *, limit: int = LARGEST) -> int:
    """The batch size up to ``limit`` that a device's memory holds, by real steps in processes of their own."""
    forks = sys.platform == "linux" and cfg.trainer.accelerator == "cpu"
    settings = {key: cfg.trainer[key] for key in ("accelerator", "precision")}
    return probe(partial(build, cfg), limit=limit, method="fork" if forks else "spawn", devices=1, **settings)


def nets(cfg: DictConfig) -> dict[str, Any]:
    """Each net of a composed recipe, on "meta" (it holds no values); those on disk left out."""
    nodes = {name: cfg.task.get(name) for name in ("vae", "vocoder", "unet", "discriminator")}
    with torch.device("meta"), causes(cfg.recipe):
        new = {name: node for name, node in nodes.items() if node and not {"folder", "ref"} & set(node)}
        return {name: instantiate(node, _partial_=False) for name, node in new.items()}


def parameters(cfg: DictConfig) -> dict[str, int]:
    """Number of values of each of the ``nets``."""
    return {name: sum(p.numel() for p in net.parameters()) for name, net in nets(cfg).items()}


def memory(cfg: DictConfig) -> str:
    """What training a latent U-Net, a recipe's or of a model that is here, takes in bfloat16; what the GPU holds."""
    task, spec, usual = cfg.task, instantiate(cfg.spec), 10.24
    if further := task.get("_target_", "").endswith(".FineTune"):
        ref = task.model or "embedded"
        if (place := ref if ref == "embedded" else cached(ref)) is None:
            return f"not known before {ref} is here"
        model = open_model(place)
        unet, spec, usual = model.unet.to("meta"), model.spec, model.defaults.seconds
    elif not isinstance(unet := nets(cfg).get("unet"), UNet2DConditionModel):
        return ""
    seconds = cfg.data.get("seconds") or usual
    averages = (cfg.callbacks.ema.decay is not None) + 2 * (cfg.callbacks.power_ema.every is not None)
    # weights; gradients and AdamW's two averages; averages, and the weights beside them in a validation; in float32
    copies = 1 + 3 * (not further or task.kind == "full") + averages + bool(averages)
    fixed = 4 * copies * sum(value.numel() for value in unet.parameters())
    shape = unet.config.in_channels, *spec.latent_shape(seconds, multiple_of(unet))[1:]
    clip = kept_bytes(unet, shape) * (RECOMPUTED if cfg.speed.checkpointing else 1.0)
    line = f"about {fixed / 2**30:.1f} GiB, and {clip / 2**30:.2g} for each clip of {seconds:g} s in a batch"
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        room = max(0, int((card.total_memory - 2**30 - fixed) / clip))  # a GiB is the driver's
        line += f"; {card.name} ({card.total_memory / 2**30:.0f} GiB) holds {room} clips"
    return line


def missing(cfg: DictConfig) -> list[str]:
    """What a configuration names and is not there, but for addresses, ids of the hub, and the run's own output."""
    pairs = numbers(OmegaConf.to_container(cfg))
    named = dict.fromkeys(value for path, value in pairs if isinstance(value, str) and PLACES.fullmatch(path))
    elsewhere = re.compile(r"(?!runs/|data/)(.*:.*|[\w.-]+/[\w.@-]+|embedded)")
    known = (p for p in named if not elsewhere.fullmatch(p) and not Path(p).is_relative_to(cfg.run_dir))
    return [path for path in known if not (glob(path) or Path(path).exists())]
