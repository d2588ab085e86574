"""From a test with answers to summary.json, answers.csv, plots and a page with the clips unblinded."""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioldm.errors import AudioLDMError
from audioldm.listening.analysis import Outcome, outcome
from audioldm.listening.design import METHODS
from audioldm.listening.figures import figures, power_table
from audioldm.listening.folder import Test
from audioldm.listening.report_page import page
from audioldm.listening.screening import Screened, screen
from audioldm.listening.tables import number, table_parts
from audioldm.pipeline.outputs import publish

FEW_RATERS = 6


@dataclass
class Result:
    """The analysis of one test."""

    title: str
    method: str
    raters: list[Screened]
    outcomes: list[Outcome]
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    power: list[dict[str, float]] = field(default_factory=list)

    @property
    def excluded(self) -> list[Screened]:
        """The raters left out."""
        return [rater for rater in self.raters if rater.reasons]

    def summary(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "title": self.title,
            "method": self.method,
            "raters": len(self.raters),
            "raters_counted": len(self.raters) - len(self.excluded),
            "outcomes": [found.as_dict() for found in self.outcomes],
            "screening": [rater.row() for rater in self.raters],
            "notes": self.notes,
            "settings": self.settings,
            "power": self.power,
        }

    def text(self) -> str:
        """A few lines for the terminal, as Markdown tables."""
        counted = len(self.raters) - len(self.excluded)
        lines = [f"{self.title} ({self.method}): {counted} of {len(self.raters)} raters counted"]
        lines += [f"  left out: rater {r.number} {r.name}: {'; '.join(r.reasons)}" for r in self.excluded]
        for found in self.outcomes:
            lines += ["", f"{found.task}: {found.answers} answers, {found.raters} raters x {found.prompts} prompts, "
                      f"Krippendorff alpha {number(found.alpha)}"]  # fmt: skip
            if found.friedman_p is not None:
                lines[-1] += f", Friedman p {number(found.friedman_p)}"
            for head, rows in table_parts(found):
                lines += ["", "| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
                lines += ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([*lines, "", *self.notes]) + "\n"


def analyse(test: Test, *, keep_all: bool = False, resamples: int = 10_000, seed: int = 0) -> Result:
    """Screen the raters, unblind, and analyse each task.   AudioLDMError where no answer is left."""
    raters, cut = screen(test, keep_all=keep_all)
    kept = [rater for rater in raters if not rater.reasons]
    judgements = [item for rater in kept for item in rater.judgements]
    if not raters or not any(item.kind == "main" for rater in raters for item in rater.judgements):
        raise AudioLDMError(
            f"{test.folder} holds no answers yet.", "Serve it: audioldm listen serve.", code=1
        )
    if not any(item.kind == "main" for item in judgements):
        told = "; ".join(
            f"rater {rater.number}: {', '.join(rater.reasons)}" for rater in raters if rater.reasons
        )
        raise AudioLDMError(f"No rater passed the screening ({told}).", "--keep-all counts them.", code=1)
    rng = np.random.default_rng(seed)
    made = [outcome(task, judgements, resamples=resamples, rng=rng) for task in METHODS[test.design.method]]
    settings = {"resamples": resamples, "seed": seed, "keep_all": keep_all, "key": test.about["key_sha256"]}
    result = Result(
        test.about["title"],
        test.design.method,
        raters,
        [found for found in made if found is not None],
        settings,
    )
    result.notes = notes(test, result, len(kept), cut)
    result.power = power_table() if test.design.method == "ab" else []
    return result


def notes(test: Test, result: Result, counted: int, cut: int) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = []
    if simulated := sum(rater.simulated for rater in result.raters):
        found.append(
            f"{simulated} of {len(result.raters)} raters are simulated: no ears took part in their answers."
        )
    if counted == 1:
        found.append("One rater: the intervals are over prompts only and say nothing about other listeners.")
    elif counted < FEW_RATERS:
        found.append(f"{counted} raters: intervals of so few raters are too narrow.")
    if test.design.method == "mushra" and len(test.design.anchors) < 2:
        found.append("Not BS.1534: it asks for a low and a mid anchor.")
    if cut:
        found.append(f"{cut} line(s) of the log were cut off by a crash and are left out.")
    for each in result.outcomes:
        if each.first_button is not None and not 0.35 <= each.first_button <= 0.65:
            found.append(f"{each.first_button:.0%} of the choices fell on button A.")
    return found


def save(test: Test, result: Result, folder: Path) -> Path:
    """Write report.html, summary.json, answers.csv and the plots to ``folder``, all or none; returns the page."""
    pictures = {
        f"{found.task}_{name}": figure.png()
        for found in result.outcomes
        for name, figure in figures(found).items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioLDMError(f"{folder} cannot be made: {error.strerror}.", "Use another --out.") from error
    contents = {
        folder / "summary.json": (json.dumps(result.summary(), indent=1, ensure_ascii=False) + "\n").encode(),
        folder / "answers.csv": answers_csv(result).encode(),
        folder / "report.html": page(test, result.summary(), result.outcomes, pictures, folder).encode(),
    }
    publish(contents | {folder / f"{name}.png": content for name, content in pictures.items()})
    return folder / "report.html"


def answers_csv(result: Result) -> str:
    """Every answer, unblinded: one row a version for scores, one a trial otherwise."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["rater", "counted", "kind", "task", "prompt", "versions", "answer", "seconds"])
    for rater in result.raters:
        for item in rater.judgements:
            answer = item.answer if not isinstance(item.answer, list) else " ".join(map(str, item.answer))
            head = [rater.number, int(not rater.reasons), item.kind, item.task, item.prompt]
            writer.writerow([*head, " ".join(item.versions), answer, item.seconds])
    return buffer.getvalue()
