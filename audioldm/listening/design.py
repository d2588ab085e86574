"""Who hears what in which order.   The order of every rater follows from the test's secret and the rater's number.

A block is one prompt; within it the conditions (systems, or pairs of systems) follow a row of a Williams square, so
that over the raters every condition comes at every place, and after every other, equally often.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Any, Literal

Task = Literal["ab", "quality", "relevance", "abx", "mushra"]
Kind = Literal["training", "main", "repeat", "catch"]
Condition = tuple[str, ...]

METHODS: dict[str, tuple[Task, ...]] = {
    "ab": ("ab",),
    "acr": ("quality", "relevance"),
    "acr-quality": ("quality",),
    "acr-relevance": ("relevance",),
    "abx": ("abx",),
    "mushra": ("mushra",),
}
"""Method to the tasks of its parts, in order: quality is judged before any caption is shown."""

PAIRED: tuple[Task, ...] = ("ab", "abx")
DAMAGED = "damaged:"
"""Before a system's name: its clip made bad on purpose, for training and catch trials."""
ANCHOR = "anchor"
SCALES: dict[Task, tuple[int, int]] = {"quality": (1, 5), "relevance": (1, 5), "mushra": (0, 100)}
CHOICES: dict[Task, tuple[str, ...]] = {"ab": ("A", "B", "tie"), "abx": ("A", "B")}


@dataclass(frozen=True)
class Trial:
    """One page.   ``slots`` are the versions of the prompt's clip in the order of their buttons."""

    kind: Kind
    task: Task
    prompt: str
    slots: tuple[str, ...]
    reference: str | None = None
    """the version shown as such: MUSHRA's open reference"""
    caption_of: str | None = None
    """the prompt whose caption is shown, if any; another prompt's in a catch trial of relevance"""


def wrong_answer(trial: Trial, answer: object) -> str | None:
    """What is wrong with an answer, if it is none that this trial asks for."""
    if trial.task in CHOICES:
        known = answer in CHOICES[trial.task]
        return None if known else f"answer must be one of {', '.join(CHOICES[trial.task])}."
    low, high = SCALES[trial.task]
    scores: list[Any] = answer if isinstance(answer, list) else [answer]
    if isinstance(answer, list) != (trial.task == "mushra") or len(scores) != len(trial.slots):
        return f"answer must be {'a list of ' * (trial.task == 'mushra')}{len(trial.slots)} score."
    whole = {*map(type, scores)} == {int} and low <= min(scores) <= max(scores) <= high
    return None if whole else f"scores are whole numbers from {low} to {high}."


@dataclass(frozen=True)
class Design:
    """What a test's order follows from."""

    method: str
    systems: tuple[str, ...]
    prompts: tuple[str, ...]
    captions: tuple[str, ...]
    reference: str | None = None
    anchors: tuple[str, ...] = ()
    per_rater: int = 0
    """prompts each rater hears; 0 is all"""
    training: int = 2
    catch: int = 2
    repeats: int = 1
    secret: str = ""


def williams_square(n: int) -> list[tuple[int, ...]]:
    """Orders of n conditions: each at each place once, each directly after each other once (odd n: twice in 2n rows).

    Williams (1949), Australian Journal of Scientific Research A 2:149.

    >>> williams_square(4)
    [(0, 3, 1, 2), (1, 0, 2, 3), (2, 1, 3, 0), (3, 2, 0, 1)]
    >>> len(williams_square(5))
    10
    """
    zigzag = [(n - (i + 1) // 2) % n if i % 2 else i // 2 for i in range(n)]
    rows = [tuple((step + start) % n for step in zigzag) for start in range(n)]
    return rows + [row[::-1] for row in rows] if n % 2 and n > 1 else rows


def plan(design: Design, rater: int) -> list[Trial]:
    """The trials of rater number ``rater`` (0, 1, ...): for each part training, then the rest with catches mixed in."""
    return [trial for task in METHODS[design.method] for trial in part(design, task, rater)]


def part(design: Design, task: Task, rater: int) -> list[Trial]:
    """The trials of one task; pairs asked again have their sides changed."""
    # every rater has an own shuffle, but what balances sides and orders below counts on with the rater's number
    rng = random.Random(hashlib.sha256(f"{design.secret}|{task}|{rater}".encode()).digest())
    # a window that moves on with the raters, so that all prompts are heard equally often
    count = len(design.prompts)
    size = design.per_rater or count
    blocks = [block(design, task, rater, (rater * size + i) % count) for i in range(min(size, count))]
    rng.shuffle(blocks)
    trials = [*chain(*blocks)]
    for trial in rng.sample(trials, min(design.repeats, len(trials))):
        first, *rest = trial.slots
        slots = (rest[0], first, *rest[1:]) if task in PAIRED else trial.slots
        trials.append(replace(trial, kind="repeat", slots=slots))
    if task != "mushra":  # its hidden reference is a catch on every page
        for i in range(design.catch):
            lowest = min(1, len(trials))
            trials.insert(rng.randint(lowest, len(trials)), catch(design, task, rng, "catch", i + rater))
    return practice(design, task, rng) + trials


def block(design: Design, task: Task, rater: int, number: int) -> list[Trial]:
    """The trials about prompt ``number``: systems one by one, pairs of them, or all on a page with the anchors."""
    prompt, compared = design.prompts[number], conditions(design, task)
    rows = williams_square(len(compared))
    order = [compared[i] for i in rows[(rater + number) % len(rows)]]
    if task == "mushra":
        return [Trial("main", task, prompt, tuple(name for (name,) in order), reference=design.reference)]
    shown = None if task in ("quality", "abx") else prompt
    # a new round through the square turns every side, so that no order goes with one side
    turn = rater + number + (rater // len(rows) if len(rows) > 1 else 0)
    return [
        Trial("main", task, prompt, sided(task, pair, turn + compared.index(pair)), caption_of=shown)
        for pair in order
    ]


def conditions(design: Design, task: Task) -> list[Condition]:
    if task in PAIRED:
        return list(combinations(design.systems, 2))
    signals = (str(design.reference), *design.anchors) if task == "mushra" else ()
    return [(name,) for name in dict.fromkeys((*signals, *design.systems))]


def sided(task: Task, condition: Condition, turn: int) -> Condition:
    """The clips as A and B (and X): which side, and which of both X is, take turns."""
    if task not in PAIRED:
        return condition
    pair = condition if turn % 2 == 0 else condition[::-1]
    return (*pair, pair[turn // 2 % 2]) if task == "abx" else pair


def catch(design: Design, task: Task, rng: random.Random, kind: Kind, turn: int) -> Trial:
    """A trial with a right answer: a damaged copy beside its clip, a damaged clip, or a clip under a wrong caption."""
    prompt = rng.choice(design.prompts)
    system = design.reference or rng.choice(design.systems)
    if task in PAIRED:
        caption = prompt if task == "ab" else None
        return Trial(kind, task, prompt, sided(task, (system, DAMAGED + system), turn), caption_of=caption)
    if task == "quality":
        return Trial(kind, task, prompt, (DAMAGED + system,))
    return Trial(kind, task, prompt, (system,), caption_of=unlike(design, prompt, rng))


def unlike(design: Design, prompt: str, rng: random.Random) -> str:
    """A prompt whose caption shares as few words as possible with that of ``prompt``."""
    captions = dict(zip(design.prompts, design.captions, strict=True))
    words = set(captions[prompt].casefold().split())
    others = [name for name in design.prompts if captions[name] != captions[prompt]]
    if not others:
        raise ValueError("all captions are equal; relevance has nothing to mismatch.")
    shared = {name: len(words & set(captions[name].casefold().split())) for name in others}
    return rng.choice([name for name in others if shared[name] == min(shared.values())])


def practice(design: Design, task: Task, rng: random.Random) -> list[Trial]:
    trials: list[Trial] = []
    for i in range(design.training):
        number = rng.randrange(len(design.prompts))
        if task != "mushra" and i % 2 == 0:
            trials.append(catch(design, task, rng, "training", rng.randrange(4)))
            continue
        plain = block(design, task, rng.randrange(1000), number)
        trials.append(replace(plain[0] if task == "mushra" else rng.choice(plain), kind="training"))
    return trials


def versions(design: Design) -> Sequence[str]:
    damaged: list[str] = []
    if {"ab", "abx", "quality"} & set(METHODS[design.method]):
        damaged = [DAMAGED + name for name in ([design.reference] if design.reference else design.systems)]
    return (*design.systems, *design.anchors, *damaged)
