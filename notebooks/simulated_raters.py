"""A simulated rater: to try a test before people do, and to run the notebooks without any."""

import math
import random

from audioldm.listening.design import ANCHOR, DAMAGED, Trial
from audioldm.listening.study import Session, Study


def take(
    study: Study, worth: dict[str, float], *, rng: random.Random, spread: float = 1.0, name: str = "simulated"
) -> str:
    """Take the whole test as a rater for whom ``worth`` (system to a number of logits) is true; returns the code.

    The answers are marked as simulated in the log.   Damaged copies are worth 6 less, anchors 3 less; captions that
    do not belong to the clip 8 less.
    """
    code = study.join(name)
    rater = study.rater(code)
    while rater.answered < len(rater.trials):
        trial = rater.trials[rater.answered]
        study.answer(code, rater.answered, impression(trial, worth, rng, spread), Session(source="simulated"))
        rater = study.rater(code)
    return code


def value(version: str, worth: dict[str, float]) -> float:
    """What a version is worth to the rater."""
    if version.startswith(DAMAGED):
        return worth.get(version.removeprefix(DAMAGED), 0.0) - 6
    return -3.0 if version.startswith(ANCHOR) else worth.get(version, 0.0)


def impression(
    trial: Trial, worth: dict[str, float], rng: random.Random, spread: float
) -> str | int | list[int]:
    """One answer: the better impression wins, where an impression is the worth and a Gaussian error."""
    felt = {name: value(name, worth) + rng.gauss(0, spread) for name in dict.fromkeys(trial.slots)}
    if trial.task == "abx":
        a, b, x = (value(name, worth) + rng.gauss(0, spread) for name in trial.slots)
        return "A" if abs(a - x) < abs(b - x) else "B"
    if trial.task == "mushra":
        return [100 if name == trial.reference else round(90 * share(felt[name])) for name in trial.slots]
    first, second = felt[trial.slots[0]], felt[trial.slots[-1]]
    if trial.task == "ab":
        return preferred(first - second, 0.3 * spread)
    wrong = 8 * (trial.task == "relevance" and trial.caption_of != trial.prompt)
    return 1 + min(4, int(5 * share(first - wrong)))


def preferred(lead: float, least: float) -> str:
    """Which of A and B, where A leads by so much; no difference below ``least``."""
    return "tie" if abs(lead) < least else "A" if lead > 0 else "B"


def share(logit: float) -> float:
    """Logit to a share strictly between 0 and 1."""
    return 1 / (1 + math.exp(-logit))
