"""Does a tagger name what was asked for, whatever was asked for?   Prompts with AudioSet classes that count as right.

The rule, wherever a clip is judged by its tags: it is right when one of its classes is among YAMNet's five highest with
at least .2, each class at its mean over the clip's patches, Silence left out.   P patches, K = 521 classes.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.functional import pad

from audioldm.datasets.decode import decode, resample
from audioldm.errors import AudioLDMError
from audioldm.evaluation.clips import Clip
from audioldm.evaluation.embedders.yamnet import RATE, YamNet
from audioldm.evaluation.generation import Codec, GeneratedClips
from audioldm.metrics.interval import wilson
from audioldm.progress import counted, listening
from audioldm.signal.level import normalise_peak
from audioldm.tables import csv_text, filled, lines, markdown, read_text

HIGHEST, LEAST = 5, 0.2
IGNORED = "Silence"
Scores = dict[str, float]  # class -> mean over the clip
Judged = dict[str, Any]  # a clip, see ``judged``
ClipSource = Callable[[str, int], list[tuple[int, Path]]]  # prompt, number of seeds -> (seed, file)s


def class_scores(wave: Tensor, rate: int, yamnet: YamNet) -> Scores:
    """Class -> mean probability over the patches of a wave (N,), highest first, Silence left out."""
    scores = yamnet.embed(resample(wave.clamp(-1, 1), rate, RATE)).scores.mean(dim=0)
    order = scores.argsort(descending=True, stable=True).tolist()
    named = ((yamnet.class_names[i], float(scores[i])) for i in order)
    return {name: score for name, score in named if name != IGNORED}


def fits(name: str, classes: Iterable[str]) -> bool:
    """Whether a class name begins with the whole words of one of ``classes``, whatever the case.

    >>> fits("Rain on surface", ["rain"]), fits("Raindrop", ["rain"]), fits("Dishes, pots, and pans", ["Dishes, pots"])
    (True, False, True)
    """
    return any(re.match(re.escape(each) + r"(?!\w)", name, re.IGNORECASE) for each in classes)


def begins(name: str, known: Iterable[str]) -> bool:
    return any(fits(each, [name]) for each in known)


def highest(scores: Scores) -> list[str]:
    return sorted(scores, key=scores.__getitem__, reverse=True)[:HIGHEST]


def right_classes(scores: Scores, classes: Sequence[str]) -> list[str]:
    """The classes that make a clip right: among its five highest, with at least .2, and begun by one of ``classes``."""
    return [name for name in highest(scores) if scores[name] >= LEAST and fits(name, classes)]


class Prompt(NamedTuple):
    """One line of the list: the prompt, and the class names (or their first words) that count as right."""

    text: str
    classes: tuple[str, ...]


def judged(file: str, scores: Scores, classes: Sequence[str], seed: int | None = None) -> Judged:
    """A clip: its five highest classes, the highest score of a class that fits, and the names that make it right."""
    tags = {name: round(scores[name], 4) for name in highest(scores)}
    fit = max((score for name, score in scores.items() if fits(name, classes)), default=0.0)
    right = right_classes(scores, classes)
    return {"file": file, "tags": tags, "fit": round(fit, 4), "right": right, "seed": seed}


@dataclass
class Result:
    """What became of one prompt, or of a set of real clips."""

    name: str
    clips: list[Judged] = field(default_factory=list)
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        clips = [{**clip, "right": bool(clip["right"])} for clip in self.clips]
        error = {"error": self.error} if self.error else {}
        return {"name": self.name, **share([self]), "clips": clips, **error}


def read_prompts(path: Path, known: Sequence[str]) -> tuple[list[Prompt], list[str]]:
    """The prompts of a TSV (prompt, classes joined by ``|``), and one line for each row that cannot be used."""
    prompts, findings, unknown = [], [], []
    for number, line in filled(lines(read_text(path)), path):
        text, _, names = line.partition("\t")
        asked = [*filter(None, map(str.strip, names.split("|")))]
        classes = tuple(name for name in asked if begins(name, known))
        unknown += [f"{name} ({path}:{number})" for name in asked if name not in classes]
        if text.strip() and classes:
            prompts.append(Prompt(text.strip(), classes))
        else:
            expected = "expected a prompt, a tab and classes of AudioSet"
            findings.append(f"{path}:{number}: {expected}, not {line[:60]!r}")
    if unknown:
        count = f"{len(unknown)} names that no class begins with count for nothing"
        findings.append(f"{count}: {', '.join(unknown)}")
    if not prompts:
        raise AudioLDMError(f"{path} has no prompt that can be used.", next(iter(findings), "It is empty."))
    return prompts, findings


def generated(clips: GeneratedClips) -> ClipSource:
    return lambda prompt, seeds: list(enumerate(clips.paths([prompt] * seeds, range(seeds))))


def existing(clips: Sequence[Clip], prompts: Sequence[Prompt]) -> tuple[ClipSource, list[str]]:
    """Clips by their captions, numbered in their order, and a line about those of prompts that are not asked for."""
    paths: dict[str, list[Path]] = defaultdict(list)
    for clip in clips:
        paths[clip.caption.strip()].append(clip.path)
    rest = sorted(paths.keys() - {prompt.text for prompt in prompts})
    left = [f"left out: {len(rest)} prompts that the list does not have, {name!r} first" for name in rest[:1]]
    return lambda prompt, seeds: list(enumerate(paths[prompt][:seeds])), left


def evaluate_prompts(
    prompts: Sequence[Prompt], source: ClipSource, yamnet: YamNet, *, seeds: int
) -> Iterator[Result]:
    """Each prompt's clips; a prompt that fails, or a clip that cannot be read, says why and ends nothing."""
    for prompt in counted(prompts, "prompts"):
        result, clips = Result(prompt.text), list[tuple[int, Path]]()
        try:
            with listening(lambda *_: None):  # the prompts are counted, not the clips of each
                clips = source(prompt.text, seeds)
            result.error = "" if clips else "no clip"
        except AudioLDMError as error:
            result.error = str(error)
        for seed, path in clips:
            try:
                scores = class_scores(decode(path, RATE), RATE, yamnet)
                result.clips.append(judged(path.name, scores, prompt.classes, seed))
            except AudioLDMError as error:
                result.error = str(error)
        yield result


def evaluate_real(
    clips: Sequence[Clip], prompts: Sequence[Prompt], codec: Codec, yamnet: YamNet
) -> tuple[Result, Result, list[str]]:
    """Real clips, those of them that are right through the codec, and one line for each that cannot be read.

    What counts for a clip are the classes of the prompt that is its caption, else those of all prompts; after the
    codec, the names that made it right.   Clips are cut to the model's length, but not filled up: the mean over a
    clip's patches would count the zeros.
    """
    by_caption = {prompt.text.casefold(): prompt.classes for prompt in prompts}
    every = tuple(dict.fromkeys(name for prompt in prompts for name in prompt.classes))
    real, trip, findings = Result("real clips"), Result("those right when real, after VAE and vocoder"), []
    rate = codec.spec.rate
    for clip in counted(clips, "real clips"):
        try:
            wave = decode(clip.path, rate, start=clip.start, seconds=clip.seconds)
            wave = wave[: codec.spec.samples(codec.seconds)]
            wave = normalise_peak(pad(wave, (0, max(0, rate // 4 - len(wave)))))
            classes = by_caption.get(clip.caption.casefold(), every)
            real.clips.append(judged(clip.id, class_scores(wave, rate, yamnet), classes))
            if right := real.clips[-1]["right"]:
                scores = class_scores(codec.round_trip(wave)[: len(wave)], rate, yamnet)
                trip.clips.append(judged(clip.id, scores, right))
        except AudioLDMError as error:
            findings.append(f"{clip.path}: {error}")
    return real, trip, findings


def share(results: Iterable[Result]) -> dict[str, Any]:
    """Right clips of all clips with Wilson's 95 % interval, the mean of the prompts' shares and of the fits."""
    rights = [[bool(clip["right"]) for clip in result.clips] for result in results if result.clips]
    fit = [clip["fit"] for result in results for clip in result.clips]
    hits, n = sum(map(sum, rights)), len(fit)
    if not n:
        return {"right": 0, "n": 0, **dict.fromkeys(("share", "interval95", "mean_of_prompts", "fit"))}
    mean = sum(sum(part) / len(part) for part in rights) / len(rights)
    means = {"share": hits / n, "interval95": wilson(hits, n), "mean_of_prompts": mean, "fit": sum(fit) / n}
    return {"right": hits, "n": n, **means}


class Report(NamedTuple):
    """The prompts' results, the rows of real clips, and ``about`` what was judged and by what."""

    results: list[Result]
    real: list[Result]
    about: dict[str, Any]
    findings: list[str]

    def json(self) -> str:
        content = {
            **self.about,
            "rule": {"highest": HIGHEST, "least": LEAST, "over patches": "mean", "ignored": IGNORED},
            "total": share(self.results), "prompts": list(map(Result.as_dict, self.results)),
            "real": list(map(Result.as_dict, self.real)), "findings": self.findings,
        }  # fmt: skip
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """Right of n, share, interval, mean score of the best fitting class, most frequent highest tags."""
        every, rows = Result("all prompts", list(chain(*(result.clips for result in self.results)))), []
        mean = share(self.results)["mean_of_prompts"]
        every.error = "no clip" if mean is None else f"mean of the prompts' shares {mean:.3f}"
        for result in [*self.results, *self.real, every]:
            total = share([result])
            low, high = total["interval95"] or (0.0, 1.0)
            right, ends = f"{total['right']} of {total['n']}", f"{low:.2f} to {high:.2f}"
            cells = [right, total["share"], ends, total["fit"]]
            tags = Counter(next(iter(clip["tags"])) for clip in result.clips).most_common(2)
            note = ", ".join(f"{name} {count}" for name, count in tags if result is not every)
            notes = "; ".join(filter(None, (note, result.error)))
            rows.append([result.name, *(cells if result.clips else [None] * 4), notes])
        return markdown(["prompt", "right", "share", "95 %", "fit", "highest tags"], rows) + "\n"

    def csv(self) -> str:
        """A line a clip: prompt, seed, file, right, fit, and the five highest classes with their scores."""
        tags = [name for i in range(1, HIGHEST + 1) for name in (f"tag{i}", f"score{i}")]
        rows = []
        for result in [*self.results, *self.real]:
            for clip in result.clips:
                facts = clip["seed"], clip["file"], int(bool(clip["right"])), clip["fit"]
                rows.append([result.name, *facts, *chain(*clip["tags"].items())])
        return csv_text(["prompt", "seed", "file", "right", "fit", *tags], rows)
