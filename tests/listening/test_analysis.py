"""From answers to numbers: known truths are found, careless raters are left out, and the report says what it must."""

import csv
import json
import random
import re

import numpy as np
import pytest

from audioldm.errors import AudioLDMError
from audioldm.listening.report import analyse, answers_csv, figures, save
from audioldm.listening.study import Session
from audioldm.metrics.interval import Resamples
from audioldm.metrics.ratings import bradley_terry, krippendorff_alpha, signed_rank
from notebooks.simulated_raters import take

WORTH = {"original": 3.0, "new": 1.0, "old": -1.0}


def fill(run, raters, worth=WORTH, **settings):
    for i in range(raters):
        take(run, worth, rng=random.Random(i), **settings)
    return run.test


def answer_all(run, choose, name="x"):
    """A rater who answers every trial by ``choose(trial)``."""
    code = run.join(name)
    for i, trial in enumerate(run.rater(code).trials):
        run.answer(code, i, choose(trial), Session(source="notebook"))


def test_preference_finds_the_order_of_three_systems(study):
    test = fill(study("ab", ("old", "new", "original")), 10)
    (found,) = analyse(test, resamples=1000).outcomes
    strength = {line["name"]: line["mean"] for line in found.systems}
    assert sorted(strength, key=strength.get) == ["old", "new", "original"]
    assert sum(strength.values()) == pytest.approx(0, abs=1e-9)
    best = next(line for line in found.pairs if line["name"] == "old over original")
    assert best["high"] < 0.5
    assert best["wins"] + best["ties"] + best["losses"] == best["n"] == 40
    assert all(line["p_holm"] >= line["p"] for line in found.pairs)


def test_preference_by_hand(study):
    """Two raters with chosen answers: every number of the table is recomputed here from the raw answers."""
    run = study(training=0, catch=0)
    liked = {
        0: {"dog": "new", "rain": "new", "sea": "new", "bell": "old"},
        1: dict.fromkeys(("dog", "rain"), "new"),
    }

    def choose(number):
        def by(trial):
            name = liked[number].get(trial.prompt)
            return "AB"[trial.slots.index(name)] if name else "tie"

        return by

    for number in (0, 1):
        answer_all(run, choose(number))
    result = analyse(run.test, resamples=4000)
    (found,) = result.outcomes
    (pair,) = found.pairs
    table = np.array([[0, 1, 1, 1], [0.5, 1, 1, 0.5]])  # prompts in order: bell, dog, rain, sea
    assert pair["name"] == "new over old"
    assert pair["mean"] == table.mean() == 0.75
    assert found.by_prompt == {
        name: {pair["name"]: m} for name, m in zip(found.by_prompt, table.mean(0), strict=True)
    }
    assert pair["p"] == signed_rank(table.mean(0) - 0.5)
    assert found.alpha == pytest.approx(krippendorff_alpha(table, "ordinal"))
    draws = Resamples.draw(2, 4, n=4000, rng=np.random.default_rng(0)).totals(table) / 8
    assert (pair["low"], pair["high"]) == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    strengths = {line["name"]: line["mean"] for line in found.systems}
    assert strengths["new"] == pytest.approx(bradley_terry([[0, 6], [2, 0]])[0])
    assert "intervals of so few raters" in " ".join(result.notes)


@pytest.mark.parametrize(("method", "task"), [("acr", "quality"), ("acr", "relevance"), ("mushra", "mushra")])
def test_ratings_find_the_order(study, method, task):
    test = fill(study(method, ("old", "new", "original")), 8)
    found = next(each for each in analyse(test, resamples=1000).outcomes if each.task == task)
    means = {line["name"]: line["mean"] for line in found.systems}
    assert sorted(means, key=means.get)[-3:] == ["old", "new", "original"]
    assert 0.2 < found.alpha < 1
    gap = next(line for line in found.pairs if line["name"] == "new - old")
    assert gap["mean"] == pytest.approx(means["new"] - means["old"])
    assert gap["low"] > 0
    if method == "mushra":
        assert means["original"] == 100
        assert means["anchor3500"] < means["old"]


def test_abx_of_the_same_and_of_the_different(study):
    test = fill(study("abx"), 8, {"new": 0.0, "old": 0.0})
    (pair,) = analyse(test, resamples=500, keep_all=True).outcomes[0].pairs
    assert pair["low"] < 0.5 < pair["high"]
    assert pair["p"] > 0.05


@pytest.mark.parametrize(
    ("method", "choices", "answer", "reason"),
    [
        ("ab", {"training": 0, "catch": 4}, lambda trial: "tie", "passed 0 of 4 catch trials"),
        (
            "mushra",
            {},
            lambda trial: [70] * len(trial.slots),
            "rated the hidden reference below 90 on 4 of 4 pages",
        ),
        (
            "acr-quality",
            {"training": 0, "catch": 0},
            lambda trial: 3,
            "gave one answer to all 8 trials of quality",
        ),
    ],
)
def test_careless_raters_are_left_out_with_the_reason(study, method, choices, answer, reason):
    run = study(method, **choices)
    fill(run, 3)
    answer_all(run, answer, name="bored")
    result = analyse(run.test, resamples=300)
    assert [left.rater.name for left in result.excluded] == ["bored"]
    assert reason in result.excluded[0].reasons
    assert result.outcomes[0].raters == 3
    assert analyse(run.test, resamples=300, keep_all=True).outcomes[0].raters == 4


def test_who_does_not_hear_the_tones_is_left_out(study):
    run = study()
    fill(run, 1)
    code = run.join("far away")
    for _ in range(3):
        run.volume(code, device="loudspeakers", beeps=0)
    for i, trial in enumerate(run.rater(code).trials):
        damaged = [name.startswith("damaged:") for name in trial.slots]
        run.answer(code, i, "B" if damaged[0] else "A", Session(source="notebook"))
    (left,) = analyse(run.test, resamples=300).excluded
    assert left.reasons == ["did not hear the quiet tones"]


def test_an_unfinished_session_counts(study):
    run = study(training=0, catch=0)
    fill(run, 1)
    code = run.join("interrupted")
    run.answer(code, 0, "A", Session(source="notebook"))
    found = analyse(run.test, resamples=300)
    assert found.outcomes[0].answers == 5
    assert found.raters[1].row()["answers"] == 1


def test_training_and_catches_are_not_results(study):
    run = study(training=2, catch=2)
    test = fill(run, 2)
    assert len(run.rater(run.test.code_of(0)).trials) == 4 + 4
    assert analyse(test, resamples=300).outcomes[0].answers == 8


def test_nothing_to_analyse_is_told(study):
    run = study(training=0)
    with pytest.raises(AudioLDMError, match="no answers yet"):
        analyse(run.test)
    answer_all(run, lambda trial: "tie")
    with pytest.raises(AudioLDMError, match=r"No rater passed the screening \(rater 0: passed 0 of 2"):
        analyse(run.test)


@pytest.mark.parametrize("method", ["ab", "acr", "abx", "mushra"])
def test_the_report_holds_everything(study, method, tmp_path):
    test = fill(study(method), 3)
    result = analyse(test, resamples=300, keep_all=True)
    page = save(test, result, tmp_path / "report").read_text()
    summary = json.loads((tmp_path / "report/summary.json").read_text())
    assert summary["raters"] == summary["raters_counted"] == 3
    assert analyse(test, resamples=300, keep_all=True).summary() == result.summary(), "the same answers"
    assert "3 of 3 raters are simulated" in page
    plots = [figure for found in result.outcomes for figure in figures(found).values()]
    assert page.count("data:image/png;base64,") == len(plots)
    assert all(axes.get_xlabel() for figure in plots for axes in figure.axes), "every axis has its unit"
    for axes in (axes for figure in plots for axes in figure.axes):
        low, high = axes.get_xlim()
        xs = np.concatenate([line.get_xdata() for line in axes.lines])
        assert low <= np.nanmin(xs) <= np.nanmax(xs) <= high, "every point is within its axis"
    sounds = re.findall(r'src="([^"]+\.wav)"', page)
    assert len(sounds) >= 8
    assert all((tmp_path / "report" / sound).resolve().is_file() for sound in sounds)
    rows = list(csv.DictReader((tmp_path / "report/answers.csv").open()))
    assert len(rows) == sum(len(rater.judgements) for rater in result.raters)
    assert {row["kind"] for row in rows} >= {"main", "training"}


def test_names_cannot_break_the_page_become_formulas_or_steer_a_terminal(study, tmp_path):
    run = study(title="<script>alert(1)</script>", training=0, catch=0)
    answer_all(run, lambda trial: "A", name="<img src=x onerror=y>")
    result = analyse(run.test, resamples=300)
    for item in result.raters[0].judgements:
        item["prompt"] = "=1+1\x1b[2J"
    rows = list(csv.DictReader(answers_csv(result).splitlines()))
    assert {row["prompt"] for row in rows} == {"'=1+1\x1b[2J"}
    page = save(run.test, result, tmp_path / "r").read_text()
    assert not [text for text in ("<script>", "<img src=x", "\x1b") if text in page]
