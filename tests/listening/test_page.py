"""Whole tests in a real Chromium: by mouse, by keys and by touch; closed midway, resumed, analysed.

``make browser`` installs the browser; without one these tests fail, they do not skip.
"""

import re

import pytest
from playwright.sync_api import expect
from rater import PHONE, begin, click_answer, code_of, fits, good, listen, trial_of

from audioldm.listening.folder import answers_of
from audioldm.listening.report import analyse

pytestmark = pytest.mark.flaky(
    reruns=2
)  # a real browser on a busy machine: a fault that stays fails all three


def test_a_whole_test_by_mouse_closed_midway_and_resumed(serve, visit):
    server = serve(training=1, repeats=1)
    with visit(server) as page:
        begin(page, server, name="Ada")
        code, total = code_of(page), len(server.study.rater(code_of(page)).trials)
        for _ in range(total // 2):
            listen(page)
            click_answer(page, good(trial_of(page, server)))
            before = server.study.rater(code).answered
            page.get_by_role("button", name="Next").click()
            expect(page.locator("#next")).to_be_disabled()
            assert server.study.rater(code).answered == before + 1
        listen(page)
        click_answer(page, "A")  # chosen, but the tab is closed before Next
        storage = page.context.storage_state()
    done = server.study.rater(code).answered
    assert done == total // 2
    server.stop()  # and the machine is started anew

    again = serve(test=server.study.test)
    storage["origins"][0]["origin"] = again.url.rstrip("/")
    with visit(again, storage) as page:
        expect(page.get_by_role("heading", name="Which clip do you prefer?")).to_be_visible()
        assert code_of(page) == code
        assert not page.locator("input[name=answer]:checked").count()
        while trial_of(page, again):
            listen(page)
            click_answer(page, good(trial_of(page, again)))
            page.get_by_role("button", name="Next").click()
            page.locator("#next:disabled, h1:text('Thank you')").first.wait_for()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    events, cut = answers_of(server.study.test)
    answers = [event for event in events if event["event"] == "answer"]
    assert cut == 0
    assert [event["trial"] for event in answers] == list(range(total))
    assert all(min(event["heard"]) >= 0.35 and event["source"] == "page" for event in answers)
    result = analyse(server.study.test, resamples=200)
    (pair,) = result.outcomes[0].pairs
    assert (pair.name, pair.estimate.mean, pair.n) == ("new over old", 1.0, 4)
    (rater,) = result.raters
    assert (rater.name, rater.device, rater.catches, rater.repeats) == ("Ada", "headphones", (2, 2), (1, 1))
    assert "One rater" in " ".join(result.notes)


def test_quality_then_relevance_by_keys_alone(serve, visit):
    server = serve("acr", training=0, repeats=0, catch=1, per_rater=2)
    with visit(server) as page:
        begin(page, server)
        captions, last = [], None
        while trial := trial_of(page, server):
            if last not in (None, trial.task):
                expect(page.get_by_text("Part 2 of 2")).to_be_visible()
                page.keyboard.press("Enter")
            last = trial.task
            expect(page.locator(".clip")).to_be_enabled()
            page.keyboard.press("5")  # too early: it was not heard
            page.keyboard.press("Enter")
            assert trial_of(page, server) is trial
            assert not page.locator("input[name=answer]:checked").count()
            page.keyboard.press("Space")
            expect(page.locator(".clip")).to_have_class(re.compile("heard"))
            captions.append((trial.task, page.locator(".caption").count()))
            page.keyboard.press(str(good(trial)))
            expect(page.locator("#next")).to_be_enabled()
            page.keyboard.press("Enter")
            page.locator(".clip:not(.heard), h1:text('Thank you'), button:text('Start')").first.wait_for()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert set(captions) == {("quality", 0), ("relevance", 1)}, "no caption for quality, one for relevance"
    result = analyse(server.study.test, resamples=200)
    for outcome in result.outcomes:
        assert {line.name: line.estimate.mean for line in outcome.systems} == {"new": 4, "old": 3}
    assert result.raters[0].catches == (2, 2)


def test_mushra_by_touch_on_a_phone(serve, visit):
    server = serve("mushra", training=0, repeats=0, per_rater=1)
    with visit(server, **PHONE) as page:
        begin(page, server)
        trial = trial_of(page, server)
        listen(page)
        expect(page.locator(".row output")).to_have_text(["–"] * 4)
        expect(page.locator("#next")).to_be_disabled()
        for row, score in zip(page.locator(".row").all(), good(trial), strict=True):
            box = row.locator("input").bounding_box()
            # a thumb of 24 px travels the track without its own width
            x = box["x"] + 12 + (box["width"] - 24) * score / 100
            page.touchscreen.tap(x, box["y"] + box["height"] / 2)
        expect(page.locator("#next")).to_be_enabled()
        fits(page)
        page.get_by_role("button", name="Next").tap()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    (event,) = [event for event in answers_of(server.study.test)[0] if event["event"] == "answer"]
    assert all(abs(given - meant) <= 2 for given, meant in zip(event["answer"], good(trial), strict=True))
    assert event["switches"] >= 4
    assert analyse(server.study.test, resamples=200).outcomes[0].systems[-1].name == "original"


def test_mushra_by_keys(serve, visit):
    server = serve("mushra", training=0, repeats=0, per_rater=1)
    with visit(server) as page:
        begin(page, server)
        for key in ("r", "1", "2", "3", "4"):
            expect(page.locator(".clip").first).to_be_enabled()
            page.keyboard.press(key)
            button = page.locator(".clip").nth("r1234".index(key))
            expect(button).to_have_class(re.compile("heard"))
        for row in range(4):
            page.keyboard.press(str(row + 1))
            page.keyboard.press("Home")
            for _ in range(row):
                page.keyboard.press("ArrowUp")
        expect(page.locator(".row output")).to_have_text(["0", "1", "2", "3"])
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    (event,) = [event for event in answers_of(server.study.test)[0] if event["event"] == "answer"]
    assert event["answer"] == [0, 1, 2, 3]


def test_abx_on_a_phone(serve, visit):
    server = serve("abx", training=0, repeats=0, catch=0, per_rater=1)
    with visit(server, **PHONE) as page:
        begin(page, server)
        trial = trial_of(page, server)
        listen(page)
        fits(page)
        click_answer(page, good(trial))
        page.get_by_role("button", name="Next").tap()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert analyse(server.study.test, resamples=200).outcomes[0].pairs[0].extra["right"] == 1
