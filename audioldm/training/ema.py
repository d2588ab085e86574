"""Averages of the weights over training: one whose length is chosen before, and any length chosen afterwards.

Post-hoc EMA: Karras et al. 2024 (EDM2, arXiv:2312.02696) sec. 3 and app. C.   A power-function average of exponent g
at step t weighs the weights of step s by p_g(s; t) = (g + 1) s^g / t^(g + 1), 0 < s <= t.   Its width is the standard
deviation of that density over t.   Two such averages are followed and stored now and then; any other is, to good
accuracy, a linear combination of what was stored.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from audioldm.errors import AudioLDMError
from audioldm.paths import write_bytes
from audioldm.progress import counted
from audioldm.training.distributed import like, local, whole

open_tensors: Any = safe_open


@dataclass(eq=False)
class Averages(L.Callback):
    """Averages of ``module.averaged``: ``shadows`` by name, each moved by its share of the way at a step."""

    updates: int = field(default=0, init=False)
    shadows: dict[str, dict[str, Tensor]] = field(default_factory=dict, init=False)

    def shares(self) -> dict[str, float]:
        """The averages that are followed, and how far each moves towards the weights at update ``updates``, from 1."""
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Begin at the weights, unless a checkpoint has brought averages."""
        state = module.averaged.state_dict()
        for name in self.shares():
            old = self.shadows.get(name, {})
            self.shadows[name] = {k: like(v, old.get(k, whole(v))) for k, v in state.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """shadow += share * (weights - shadow)."""
        if not self.shares() or not module.steps_now:
            return
        self.updates += 1
        state = module.averaged.state_dict()
        reals = [key for key, value in state.items() if value.is_floating_point()]
        for name, share in self.shares().items():
            shadow = self.shadows[name]
            ours, theirs = ([local(part[key]) for key in reals] for part in (shadow, state))
            torch._foreach_lerp_(ours, theirs, share)
            for key in state.keys() - set(reals):  # counters
                shadow[key].copy_(state[key])

    def state_dict(self) -> dict[str, Any]:
        shadows = {name: {k: whole(v) for k, v in shadow.items()} for name, shadow in self.shadows.items()}
        return {"updates": self.updates, "shadows": shadows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates, self.shadows = state_dict["updates"], state_dict["shadows"]


@dataclass(eq=False)
class Ema(Averages):
    """Exponential moving average of decay min(d, (1+n)/(10+n)); validation and export use it.

    Lightning's own averaging copies the whole module, frozen parts too, and has no warm-up of the decay, without which
    a short training is still half its random start.   ``decay`` None follows nothing.
    """

    decay: float | None = None
    raw: dict[str, Tensor] | None = field(default=None, init=False)

    def shares(self) -> dict[str, float]:
        least = (1 + self.updates) / (10 + self.updates)
        return {} if self.decay is None else {"ema": 1 - min(self.decay, least)}

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        if self.shadows:
            self.raw = {k: v.detach().clone() for k, v in module.averaged.state_dict().items()}
            module.averaged.load_state_dict(self.shadows["ema"])

    def on_validation_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Train on with the weights; they come back before a state is saved."""
        if self.raw is not None:
            module.averaged.load_state_dict(self.raw)
            self.raw = None

    on_exception = on_validation_end  # type: ignore[assignment]


@contextmanager
def averaged(trainer: Any, module: Any) -> Iterator[None]:
    """Within, the module has its averaged weights, where it has an average."""
    ema = next((callback for callback in trainer.callbacks if isinstance(callback, Ema)), Ema())
    ema.on_validation_start(trainer, module)
    try:
        yield
    finally:
        ema.on_validation_end(trainer, module)


@dataclass(eq=False)
class PowerEma(Averages):
    """Power-function averages of ``widths``; every ``every`` batches all go to ``folder``; None follows nothing."""

    folder: str | Path
    every: int | None = None
    widths: Sequence[float] = (0.05, 0.10)

    def shares(self) -> dict[str, float]:
        """1 - (1 - 1/t)^(g + 1)."""
        left, names = 1 - 1 / max(1, self.updates), [f"{width:g}" for width in self.widths]
        return {} if self.every is None else {n: 1 - left ** (exponent(float(n)) + 1) for n in names}

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *args: Any) -> None:
        """Then, now and then, one file with every average; its metadata say at which step it was."""
        super().on_train_batch_end(trainer, module, *args)
        if self.every is None or module.batch_count % self.every:
            return
        pairs = [(f"{w}/{k}", v) for w, shadow in self.shadows.items() for k, v in shadow.items()]
        tensors = {name: whole(value).cpu().contiguous() for name, value in pairs}
        if trainer.is_global_zero:
            path = Path(self.folder) / f"batch-{module.batch_count:09d}.safetensors"
            write_bytes(path, save(tensors, metadata={"step": str(self.updates)}))


@lru_cache
def exponent(width: float) -> float:
    """The g of a power-function average whose width is ``width`` times t.   EDM2 eq. 126.

    width^2 = (g + 1) / ((g + 2)^2 (g + 3)): the largest root of g^3 + 7 g^2 + (16 - w) g + 12 - w, w = width^-2.

    >>> round(exponent(0.10), 4), round(exponent(0.05), 3)
    (6.9372, 16.972)
    """
    if not 0 < width < 12**-0.5:
        raise AudioLDMError(f"width={width} is not the width of an average.", "Use more than 0, below 0.288.")
    w = width**-2
    companion = torch.tensor([[-7.0, w - 16, w - 12], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    return float(torch.linalg.eigvals(companion).real.max())


def overlap(t: Tensor, g: Tensor, s: Tensor, h: Tensor) -> Tensor:
    """Integral of p_g(x; t) p_h(x; s) over x, for every pair that broadcasts; float64.   EDM2 app. C.4.

    Both densities end at m = min(t, s):  (g+1)(h+1) m^(g+h+1) / ((g+h+1) t^(g+1) s^(h+1)).
    """
    low = torch.minimum(t, s)
    log = (g + h + 1) * low.log() - (g + 1) * t.log() - (h + 1) * s.log()
    return (g + 1) * (h + 1) / (g + h + 1) * log.exp()


def coefficients(t: Tensor, g: Tensor, *, at: float, width: float) -> Tensor:
    """Shares of the stored averages (step ``t``, exponent ``g``, both (n,)) in the one of ``width`` at step ``at``.

    Least squares on the densities, with the sum held at 1 so that constant weights stay what they are.   (n,) float64.
    """
    t, g, n = t.double(), g.double(), len(t)
    goal_t, goal_g = torch.tensor([float(at), exponent(width)], dtype=torch.float64)
    right = torch.cat([overlap(t, g, goal_t, goal_g), torch.ones(1, dtype=torch.float64)])
    system = torch.ones(n + 1, n + 1, dtype=torch.float64)
    system[:n, :n], system[n, n] = overlap(t[:, None], g[:, None], t, g), 0
    solution: Tensor = torch.linalg.lstsq(system, right, driver="gelsd").solution
    return solution[:n]


def synthesise(folder: Path | str, *, width: float, at: int | None = None) -> dict[str, Tensor]:
    """The average of ``width`` at step ``at`` (None: the last) from what PowerEma stored in ``folder``; float32.

    Raises AudioLDMError if there is none up to that step.
    """
    averages = [one for one in stored(Path(folder)) if at is None or one[2] <= at]
    if not averages:
        hint = "Train with callbacks.power_ema.every=N, or choose a later step."
        when = "" if at is None else f" of step {at} or before"
        raise AudioLDMError(f"{folder} holds no stored averages{when}.", hint)
    _, names, steps = zip(*averages, strict=True)
    exponents = torch.tensor([*map(exponent, map(float, names))])
    at = max(steps) if at is None else at
    weights = coefficients(torch.tensor(steps), exponents, at=at, width=width)
    total: dict[str, Tensor] = {}
    for (path, name, _), weight in zip(counted(averages, "averages"), weights.tolist(), strict=True):
        add(total, path, f"{name}/", weight)
    return {key: value.float() if value.is_floating_point() else value for key, value in total.items()}


def stored(folder: Path) -> Iterator[tuple[Path, str, int]]:
    """The file, the width and the step of each average that PowerEma stored."""
    for path in sorted(folder.glob("batch-*.safetensors")):
        with open_tensors(path, "pt") as file:
            names, step = {key.partition("/")[0] for key in file.keys()}, int(file.metadata()["step"])  # noqa: SIM118
        yield from ((path, name, step) for name in sorted(names))


def add(total: dict[str, Tensor], path: Path, prefix: str, weight: float) -> None:
    """Onto ``total`` (float64) the tensors of ``prefix``, by ``weight``; counters stay those of the last ones."""
    with open_tensors(path, "pt") as file:
        for key in filter(lambda key: key.startswith(prefix), file.keys()):
            value, part = file.get_tensor(key), key.removeprefix(prefix)
            if value.is_floating_point():
                value = total.get(part, torch.zeros(())) + weight * value.double()
            total[part] = value
