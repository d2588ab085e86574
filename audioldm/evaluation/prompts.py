"""Does a tagger name what was asked for, whatever was asked for?   Prompts with AudioSet classes that count as right.

A clip is right when one of its prompt's classes is among YAMNet's five highest (Silence left out) with at least .2,
each class at its highest over the clip's patches.   K = 521 classes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from audioldm.datasets.decode import decode, resample
from audioldm.errors import AudioLDMError
from audioldm.evaluation.clip_set import Frame
from audioldm.evaluation.clips import Clip
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.evaluation.generation import Codec, GeneratedClips
from audioldm.metrics.interval import wilson
from audioldm.tables import lines, read_text

BEST, LEAST = 5, 0.2
IGNORED = "Silence"


@dataclass(frozen=True)
class Prompt:
    """One line of the list: the prompt, and the class names (or their beginnings) that count as right."""

    text: str
    classes: tuple[str, ...]


@dataclass
class Result:
    """What became of one prompt, or of a set of real clips: each clip's highest tags, and whether it is right."""

    name: str
    right: list[bool] = field(default_factory=list)
    tags: list[dict[str, float]] = field(default_factory=list)
    error: str = ""

    def add(self, scores: dict[str, float], classes: Sequence[str]) -> list[str]:
        """Count one clip by its class scores; returns the names that make it right."""
        best = sorted(scores, key=lambda name: -scores[name])[:BEST]
        names = [
            name for name in best if scores[name] >= LEAST and any(begins(name, each) for each in classes)
        ]
        self.tags.append({name: round(scores[name], 4) for name in best})
        self.right.append(bool(names))
        return names

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        row = {"name": self.name, **share([self]), "clips": self.right, "tags": self.tags}
        return row | ({"error": self.error} if self.error else {})


def begins(name: str, beginning: str) -> bool:
    """Whether a class name begins so, whatever the case.

    >>> begins("Rain on surface", "rain"), begins("Train", "rain")
    (True, False)
    """
    return name.casefold().startswith(beginning.casefold())


def read_prompts(path: Path, known: Sequence[str]) -> tuple[list[Prompt], list[str]]:
    """The prompts of a TSV (prompt, classes joined by ``|``), and one line for each row that cannot be used."""
    if not path.is_file():
        raise AudioLDMError(f"There is no file {path}.", "Give a TSV: prompt, tab, classes joined by |.")
    prompts, findings, unknown = [], [], []
    for number, line in enumerate(lines(read_text(path)), start=1):
        if not line.strip():
            continue
        text, _, names = line.partition("\t")
        asked = [name.strip() for name in names.split("|") if name.strip()]
        classes = tuple(name for name in asked if any(begins(each, name) for each in known))
        unknown += [f"{name} ({path}:{number})" for name in asked if name not in classes]
        if text.strip() and classes:
            prompts.append(Prompt(text.strip(), classes))
        else:
            findings.append(
                f"{path}:{number}: expected a prompt, a tab and classes of AudioSet, not {line[:60]!r}"
            )
    if unknown:
        findings.append(
            f"{len(unknown)} names that no class begins with count for nothing: {', '.join(unknown)}"
        )
    if not prompts:
        raise AudioLDMError(f"{path} has no prompt that can be used.", next(iter(findings), "It is empty."))
    return prompts, findings


def scores_of(wave: Tensor, rate: int, yamnet: YamNet) -> dict[str, float]:
    """Class -> highest score over patches, of a wave (N,), Silence left out."""
    scores = yamnet.embed(resample(wave.clamp(-1, 1), rate, RATE)).scores.amax(dim=0).tolist()
    return {name: score for name, score in zip(yamnet.class_names, scores, strict=True) if name != IGNORED}


def evaluate_prompts(
    prompts: Iterable[Prompt], clips: GeneratedClips, yamnet: YamNet, *, seeds: int
) -> Iterator[Result]:
    """Each prompt's clips of seeds 0 to ``seeds`` - 1; a prompt that fails says why and ends nothing."""
    for prompt in prompts:
        result = Result(prompt.text)
        try:
            for wave in clips.waves([prompt.text] * seeds, range(seeds)):
                result.add(scores_of(wave, clips.pipe.spec.rate, yamnet), prompt.classes)
        except AudioLDMError as error:
            result = Result(prompt.text, error=str(error))
        yield result


def evaluate_real(
    clips: Sequence[Clip], prompts: Sequence[Prompt], codec: Codec, yamnet: YamNet, step: Callable[[], None]
) -> tuple[Result, Result, list[str]]:
    """Real clips, those of them that are right through the codec, and one line for each that cannot be read.

    What counts for a clip are the classes of the prompt that is its caption, else those of all prompts; after the
    codec, the names that made it right.
    """
    by_caption = {prompt.text.casefold(): prompt.classes for prompt in prompts}
    every = tuple(dict.fromkeys(name for prompt in prompts for name in prompt.classes))
    real, trip, findings = Result("real clips"), Result("those right when real, after VAE and vocoder"), []
    frame, rate = Frame(codec.seconds), codec.spec.rate
    for clip in clips:
        try:
            wave = frame(decode(clip.path, rate, start=clip.start, seconds=clip.seconds), rate)
            classes = by_caption.get(clip.caption.casefold(), every)
            if names := real.add(scores_of(wave, rate, yamnet), classes):
                trip.add(scores_of(frame(codec.round_trip(wave), rate), rate, yamnet), names)
        except AudioLDMError as error:
            findings.append(f"{clip.path}: {error}")
        step()
    return real, trip, findings


def share(results: Iterable[Result]) -> dict[str, Any]:
    """Right clips of all clips, with Wilson's 95 % interval."""
    right = [each for result in results for each in result.right]
    if not right:
        return {"right": 0, "n": 0, "share": None, "interval95": None}
    hits, n = sum(right), len(right)
    return {"right": hits, "n": n, "share": hits / n, "interval95": wilson(hits, n)}


def table(results: Iterable[Result]) -> str:
    """Markdown rows: right of n with the share and its interval, the tags that came most often or the error."""
    rows = ["| prompt | right | share | 95 % | highest tags |", "|---|--:|--:|---|---|"]
    for result in results:
        total, names = share([result]), Counter(next(iter(tags)) for tags in result.tags)
        note = result.error or ", ".join(f"{name} {count}" for name, count in names.most_common(2))
        rows.append(f"| {result.name} | {cells(total)} | {note} |")
    return "\n".join(rows) + "\n"


def cells(total: dict[str, Any]) -> str:
    """A share as three cells."""
    if total["share"] is None:
        return "- | - | -"
    low, high = total["interval95"]
    return f"{total['right']} of {total['n']} | {total['share']:.3f} | {low:.2f} to {high:.2f}"
