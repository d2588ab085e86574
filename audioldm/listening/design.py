"""Who hears what in which order.   The order of every rater follows from the test's secret and the rater's number.

A block is one prompt; within it the conditions (systems, or pairs of systems) follow a row of a Williams square, so
that over the raters every condition comes at every place, and after every other, equally often.
"""

import hashlib
import random
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Any, Literal

Task = Literal["ab", "quality", "relevance", "abx", "mushra"]
Kind = Literal["training", "main", "catch"]

METHODS: dict[str, tuple[Task, ...]] = {
    "ab": ("ab",), "acr": ("quality", "relevance"), "acr-quality": ("quality",), "acr-relevance": ("relevance",),
    "abx": ("abx",), "mushra": ("mushra",),
}  # fmt: skip
"""Method to the tasks of its parts, in order: quality is judged before any caption is shown."""

PAIRED: tuple[Task, ...] = ("ab", "abx")
DAMAGED = "damaged:"  # before a system's name: its clip made bad on purpose, for training and catch trials
ANCHOR = "anchor3500"  # MUSHRA's low anchor: the reference without what is above 3.5 kHz (BS.1534)
SCALES: dict[Task, tuple[int, int]] = {"quality": (1, 5), "relevance": (1, 5), "mushra": (0, 100)}
CHOICES: dict[Task, tuple[str, ...]] = {"ab": ("A", "B", "tie"), "abx": ("A", "B")}


@dataclass(frozen=True)
class Trial:
    """One page.   ``slots`` are the versions of the prompt's clip in the order of their buttons."""

    kind: Kind
    task: Task
    prompt: str
    slots: tuple[str, ...]
    reference: str | None = None  # the version shown as such: MUSHRA's open reference
    caption_of: str | None = None  # whose caption is shown; another prompt's in a catch trial of relevance


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
    per_rater: int = 0  # prompts each rater hears; 0 is all
    training: int = 2
    catch: int = 2
    secret: str = ""

    def versions(self) -> list[str]:
        """Systems, and the anchor or damaged copies where a task needs them."""
        if self.method == "mushra":
            return [*self.systems, ANCHOR]
        damaged = (self.reference,) if self.reference else self.systems
        return [*self.systems, *(DAMAGED + name for name in damaged if self.method != "acr-relevance")]


def williams_square(n: int) -> list[tuple[int, ...]]:
    """Orders of n conditions: each at each place, and after each other, once (odd n: twice).   Williams (1949)."""
    zigzag = [(n - (i + 1) // 2) % n if i % 2 else i // 2 for i in range(n)]
    rows = [tuple((step + start) % n for step in zigzag) for start in range(n)]
    return rows + [row[::-1] for row in rows] if n % 2 and n > 1 else rows


def plan(design: Design, rater: int) -> list[Trial]:
    """The trials of rater number ``rater`` (0, 1, ...): for each part training, then the rest with catches mixed in."""
    return [trial for task in METHODS[design.method] for trial in part(design, task, rater)]


def part(design: Design, task: Task, rater: int) -> list[Trial]:
    # every rater has an own shuffle, but what balances sides and orders below counts on with the rater's number
    rng = random.Random(hashlib.sha256(f"{design.secret}|{task}|{rater}".encode()).digest())
    # a window that moves on with the raters, so that all prompts are heard equally often
    count = len(design.prompts)
    size = design.per_rater or count
    blocks = [block(design, task, rater, (rater * size + i) % count) for i in range(min(size, count))]
    rng.shuffle(blocks)
    trials, caught = [*chain(*blocks)], task != "mushra"  # its hidden reference is a catch on every page
    for i in range(design.catch * caught):
        place = rng.randint(min(1, len(trials)), len(trials))
        trials.insert(place, catch(design, task, rng, "catch", i + rater))
    practice: list[Trial] = []
    for i in range(design.training):
        number = rng.randrange(len(design.prompts))
        if caught and i % 2 == 0:
            practice.append(catch(design, task, rng, "training", rng.randrange(4)))
        else:
            plain = block(design, task, rng.randrange(1000), number)
            practice.append(replace(rng.choice(plain) if caught else plain[0], kind="training"))
    return practice + trials


def block(design: Design, task: Task, rater: int, number: int) -> list[Trial]:
    """The trials about prompt ``number``: systems one by one, pairs of them, or all on a page with the anchors."""
    prompt, compared = design.prompts[number], list(combinations(design.systems, 2))
    if task not in PAIRED:
        signals = (str(design.reference), ANCHOR) if task == "mushra" else ()
        compared = [(name,) for name in dict.fromkeys((*signals, *design.systems))]  # type: ignore[misc]
    rows = williams_square(len(compared))
    order = [compared[i] for i in rows[(rater + number) % len(rows)]]
    if task == "mushra":
        return [Trial("main", task, prompt, tuple(chain(*order)), reference=design.reference)]
    shown = None if task in ("quality", "abx") else prompt
    # a new round through the square turns every side, so that no order goes with one side
    turn = rater + number + (rater // len(rows)) * (len(rows) > 1)
    pairs = [sided(task, names, turn + compared.index(names)) for names in order]
    return [Trial("main", task, prompt, pair, caption_of=shown) for pair in pairs]


def sided(task: Task, names: tuple[str, ...], turn: int) -> tuple[str, ...]:
    """The clips as A and B (and X): which side, and which of both X is, take turns."""
    if task not in PAIRED:
        return names
    pair = names if turn % 2 == 0 else names[::-1]
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
    # a caption that shares as few words as possible with the clip's
    texts = dict(zip(design.prompts, design.captions, strict=True))
    words = {name: set(text.casefold().split()) for name, text in texts.items()}
    shared = {name: len(words[prompt] & words[name]) for name in texts if texts[name] != texts[prompt]}
    least = [name for name, count in shared.items() if count == min(shared.values())]
    return Trial(kind, task, prompt, (system,), caption_of=rng.choice(least))
