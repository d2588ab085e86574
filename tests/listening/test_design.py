"""Balance of the plans: Williams squares, sides, places, catch trials; and that a plan is a function of its secret."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioldm.listening.design import DAMAGED, METHODS, Design, plan, williams_square

BASE = Design(
    "ab", ("a", "b", "c"), ("p0", "p1", "p2", "p3"), ("dog", "rain", "sea", "dog on a beach"), secret="s"
)


def test_williams_square_is_balanced():
    for n in range(1, 13):
        rows, times = williams_square(n), 2 if n % 2 and n > 1 else 1
        assert all(sorted(row) == list(range(n)) for row in rows)
        assert len(rows) == n * times
        for place in range(n):
            assert set(Counter(row[place] for row in rows).values()) == {times}
        neighbours = Counter(pair for row in rows for pair in pairwise(row))
        assert len(neighbours) == n * (n - 1)
        assert set(neighbours.values()) <= {times}


def test_williams_square_is_the_usual_one_mirrored():
    # the usual first row for six treatments is 0 1 5 2 4 3
    assert [(-x) % 6 for x in williams_square(6)[0]] == [0, 1, 5, 2, 4, 3]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("systems", [("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")])
def test_every_rater_hears_every_condition_of_every_prompt(method, systems):
    design = replace(BASE, method=method, systems=systems, reference="a")
    pairs = len(systems) * (len(systems) - 1) // 2
    each = {"ab": pairs, "abx": pairs, "quality": len(systems), "relevance": len(systems), "mushra": 1}
    for rater in range(3):
        trials = plan(design, rater)
        for task in METHODS[method]:
            main = [trial for trial in trials if trial.task == task and trial.kind == "main"]
            assert Counter(trial.prompt for trial in main) == dict.fromkeys(design.prompts, each[task])
            assert len(set(main)) == len(main)
    assert plan(design, 0) == plan(design, 0)
    assert plan(design, 0) != plan(replace(design, secret="t"), 0)


def test_captions_are_hidden_for_quality_and_shown_for_relevance():
    trials = plan(replace(BASE, method="acr"), 0)
    assert [trial.task for trial in trials] == sorted(trial.task for trial in trials)
    assert all(trial.caption_of is None for trial in trials if trial.task == "quality")
    plain = [trial for trial in trials if trial.task == "relevance" and trial.kind == "main"]
    assert all(trial.caption_of == trial.prompt for trial in plain)


@pytest.mark.parametrize("systems", [("a", "b"), ("a", "b", "c")])
def test_sides_are_balanced_over_raters_and_within_each(systems):
    design = replace(BASE, systems=systems)
    rows = {2: 1, 3: 6}[len(systems)]
    firsts: Counter[tuple[str, frozenset[str], str]] = Counter()
    for rater in range(2 * rows):
        main = [trial for trial in plan(design, rater) if trial.kind == "main"]
        for trial in main:
            firsts[trial.prompt, frozenset(trial.slots), trial.slots[0]] += 1
        turned = sum(trial.slots[0] > trial.slots[1] for trial in main)
        assert abs(2 * turned - len(main)) <= 2, "about half of the pairs are turned for each rater"
    assert set(firsts.values()) == {rows}, "each pair of each prompt has each side equally often"


def test_x_is_a_and_b_equally_often_on_each_side():
    design = replace(BASE, method="abx", systems=("a", "b"))
    seen = Counter(
        (trial.prompt, trial.slots) for r in range(4) for trial in plan(design, r) if trial.kind == "main"
    )
    assert len(seen) == 4 * 4
    assert set(seen.values()) == {1}


def test_systems_come_at_every_place_and_after_every_other_over_the_raters():
    design = replace(BASE, method="acr-quality", systems=("a", "b", "c", "d"), catch=0, training=0)
    places: Counter[tuple[str, int]] = Counter()
    after: Counter[tuple[str, str]] = Counter()
    for rater in range(4):
        trials = plan(design, rater)
        for start in range(0, len(trials), 4):
            names = [trial.slots[0] for trial in trials[start : start + 4]]
            places.update(zip(names, range(4), strict=True))
            after.update(pairwise(names))
    assert set(places.values()) == {4}
    assert set(after.values()) == {4}
    assert len(after) == 12


def test_mushra_has_the_open_and_the_hidden_reference_and_the_anchor():
    design = replace(BASE, method="mushra", reference="a", training=1)
    for trial in plan(design, 2):
        assert trial.reference == "a"
        assert sorted(trial.slots) == ["a", "anchor3500", "b", "c"]
    assert [trial.kind for trial in plan(design, 2)].count("training") == 1
    first = Counter(plan(replace(design, training=0), r)[0].slots[0] for r in range(40))
    assert len(first) == 4, "the hidden reference has no fixed letter"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([name for name in METHODS if name != "mushra"]), st.tuples(*[st.integers(0, 4)] * 4))
def test_catches_and_training_are_as_many_as_asked(method, numbers):
    catch, training, per_rater, rater = numbers
    asked = {"catch": catch, "training": training, "per_rater": per_rater}
    design = replace(BASE, method=method, **asked)
    trials = plan(design, rater)
    for task in METHODS[method]:
        kinds = [trial.kind for trial in trials if trial.task == task]
        main = kinds.count("main")
        assert kinds.count("catch") == catch
        assert kinds.count("training") == training
        assert kinds[:training] == ["training"] * training
        assert main == 3 * (per_rater or 4), "3 systems, and 3 pairs of them"
    known = set(design.versions())
    assert all(set(trial.slots) <= known for trial in trials)


def test_catch_trials_have_a_right_answer():
    for rater in range(20):
        for method in ("ab", "abx", "acr"):
            for trial in plan(replace(BASE, method=method, catch=3), rater):
                if trial.kind != "catch":
                    continue
                damaged = [name for name in trial.slots[:2] if name.startswith(DAMAGED)]
                if trial.task in ("ab", "abx"):
                    assert sorted(trial.slots[:2]) == sorted([damaged[0].removeprefix(DAMAGED), damaged[0]])
                elif trial.task == "quality":
                    assert damaged == list(trial.slots)
                else:
                    words = dict(zip(BASE.prompts, BASE.captions, strict=True))
                    told, own = words[trial.caption_of], words[trial.prompt]
                    assert not set(told.split()) & set(own.split())


def test_a_share_of_the_prompts_covers_all_over_the_raters():
    design = replace(BASE, per_rater=3, catch=0, training=0, systems=("a", "b"))
    heard = Counter(trial.prompt for rater in range(4) for trial in plan(design, rater))
    assert heard == dict.fromkeys(design.prompts, 3)
