"""The page in a real Chromium: whole tests by mouse, by keys and by touch; what it plays; what may go wrong.

``make browser`` installs the browser; without one these tests fail, they do not skip.
"""

import pytest
from playwright.sync_api import expect
from rater import (
    DESKTOP,
    PHONE,
    THANKS,
    appears,
    begin,
    click_answer,
    code_of,
    fits,
    good,
    listen,
    next_trial,
    trial_of,
)

from audioldm.listening.folder import answers_of
from audioldm.listening.report import analyse

# a real browser on a busy machine: a fault that stays fails all three
pytestmark = pytest.mark.flaky(reruns=2)
ONE = {"training": 0, "catch": 0, "per_rater": 1}


def answers(server):
    return [event for event in answers_of(server.study.test, {})[0] if event["event"] == "answer"]


def test_a_whole_test_by_mouse_closed_midway_and_resumed(serve, visit):
    server = serve(training=1, catch=1, per_rater=2)
    with visit(server) as page:
        begin(page, server, name="Ada")
        code, total = code_of(page), len(server.study.rater(code_of(page)).trials)
        for number in range(total // 2):
            listen(page)
            click_answer(page, good(trial_of(page, server)))
            next_trial(page)
            assert server.study.rater(code).answered == number + 1
        listen(page)
        click_answer(page, "A")  # chosen, but the tab is closed before Next
        storage = page.context.storage_state()
    assert server.study.rater(code).answered == total // 2
    server.stop()  # and the machine is started anew

    again = serve(test=server.study.test)
    storage["origins"][0]["origin"] = again.url.rstrip("/")
    with visit(again, storage) as page:
        appears(page, "h1:text('Which clip do you prefer?')")
        assert code_of(page) == code
        assert not page.locator("input[name=answer]:checked").count()
        while trial_of(page, again):
            listen(page)
            click_answer(page, good(trial_of(page, again)))
            next_trial(page)
        appears(page, THANKS)
    assert [event["trial"] for event in answers(server)] == list(range(total))
    assert all(min(event["heard"]) >= 0.35 and event["source"] == "page" for event in answers(server))
    result = analyse(server.study.test, resamples=200)
    (pair,) = result.outcomes[0].pairs
    assert (pair["name"], pair["mean"], pair["n"]) == ("new over old", 1.0, 2)
    (rater,) = result.raters
    assert (rater.rater.name, rater.device, rater.catches) == ("Ada", "headphones", (1, 1))
    assert "One rater" in " ".join(result.notes)


def test_quality_then_relevance_by_keys_alone(serve, visit):
    server = serve("acr", training=0, catch=1, per_rater=1)
    with visit(server) as page:
        begin(page, server)
        captions, last = set(), None
        while trial := trial_of(page, server):
            if last not in (None, trial.task):
                appears(page, ":text('Part 2 of 2')")
                page.keyboard.press("Enter")
            last = trial.task
            appears(page, ".clip:enabled")
            page.keyboard.press("5")  # too early: it was not heard
            page.keyboard.press("Enter")
            assert trial_of(page, server) is trial
            assert not page.locator("input[name=answer]:checked").count()
            page.keyboard.press("Space")
            appears(page, ".clip.heard")
            captions.add((trial.task, page.locator(".caption").count()))
            page.keyboard.press(str(good(trial)))
            appears(page, "#next:enabled")
            page.keyboard.press("Enter")
            appears(page, f".clip:not(.heard), {THANKS}, button:text('Start')")
        appears(page, THANKS)
    assert captions == {("quality", 0), ("relevance", 1)}, "no caption for quality, one for relevance"
    result = analyse(server.study.test, resamples=200)
    for outcome in result.outcomes:
        assert {line["name"]: line["mean"] for line in outcome.systems} == {"new": 4, "old": 3}
    assert result.raters[0].catches == (2, 2)


def test_mushra_by_touch_on_a_phone(serve, visit):
    server = serve("mushra", **ONE)
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
        appears(page, "#next:enabled")
        fits(page)
        page.get_by_role("button", name="Next").tap()
        appears(page, THANKS)
    (event,) = answers(server)
    assert all(abs(given - meant) <= 2 for given, meant in zip(event["answer"], good(trial), strict=True))
    assert event["switches"] >= 4
    assert analyse(server.study.test, resamples=200).outcomes[0].systems[-1]["name"] == "original"


def test_mushra_by_keys_and_its_sound_is_no_silence(serve, visit):
    """What the graph of nodes gives is measured inside the browser; keys play, switch, stop and rate."""
    server = serve("mushra", **ONE)
    tap = """
        const connect = AudioNode.prototype.connect;
        AudioNode.prototype.connect = function (target, ...rest) {
          if (target instanceof AudioDestinationNode) {
            window.probe ??= new AnalyserNode(target.context, { fftSize: 8192 });
            connect.call(this, window.probe);
          }
          return connect.call(this, target, ...rest);
        };
        window.level = () => {
          const wave = new Float32Array(8192);
          window.probe.getFloatTimeDomainData(wave);
          return Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
        };
    """
    with visit(server) as page:
        page.add_init_script(tap)
        page.reload()
        begin(page, server)
        appears(page, ".clip:enabled")
        for number, key in enumerate("r1234"):
            page.keyboard.press(key)
            if key in "r1":
                wait_for_level(page, lambda level: level > 0.005)
            page.locator(f".clip >> nth={number} >> css=:scope.heard").wait_for()
        page.keyboard.press("Space")
        wait_for_level(page, lambda level: level < 1e-6)
        for row in range(4):
            page.keyboard.press(str(row + 1))
            page.keyboard.press("Home")
            for _ in range(row):
                page.keyboard.press("ArrowUp")
        expect(page.locator(".row output")).to_have_text(["0", "1", "2", "3"])
        page.keyboard.press("Enter")
        appears(page, THANKS)
    assert [event["answer"] for event in answers(server)] == [[0, 1, 2, 3]]


def wait_for_level(page, reached):
    """Ask from outside: the page's policy allows no script from text, so the browser cannot wait for one."""
    for _ in range(200):
        if reached(page.evaluate("window.level()")):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"the level stays at {page.evaluate('window.level()')}")


def test_abx_on_a_phone(serve, visit):
    server = serve("abx", **ONE)
    with visit(server, **PHONE) as page:
        begin(page, server)
        trial = trial_of(page, server)
        listen(page)
        fits(page)
        click_answer(page, good(trial))
        page.get_by_role("button", name="Next").tap()
        appears(page, THANKS)
    assert analyse(server.study.test, resamples=200).outcomes[0].pairs[0]["right"] == 1


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_screen_fits(serve, visit, screen):
    server = serve("acr", training=0)
    with visit(server, **screen) as page:
        appears(page, "button:text('Begin')")
        fits(page)
        page.get_by_role("button", name="Begin").click()
        appears(page, "button:text('Play noise'):enabled")
        fits(page)
        count = server.study.rater(code_of(page)).beeps
        server.study.volume(code_of(page), device="loudspeakers", beeps=count)
        page.reload()
        appears(page, "button:text('Start')")
        fits(page)


def test_wrong_counts_of_tones_are_asked_again_and_noted(serve, visit):
    server = serve(**ONE)
    with visit(server) as page:
        begin(page, server, tries=(1, 6))
        expect(page.locator(".clip")).to_have_count(2)
    volume = [event for event in answers_of(server.study.test, {})[0] if event["event"] == "volume"]
    assert [event["right"] for event in volume] == [False, False, True]


def test_a_lost_connection_keeps_the_answer(serve, visit):
    server = serve(**ONE)
    with visit(server) as page:
        begin(page, server)
        listen(page)
        click_answer(page, good(trial_of(page, server)))
        page.context.set_offline(True)
        page.get_by_role("button", name="Next").click()
        appears(page, "[role=alert]:has-text('No connection')")
        assert not answers(server)
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        appears(page, THANKS)


def test_a_code_continues_in_another_browser(serve, visit):
    server = serve(**ONE)
    with visit(server) as page:
        begin(page, server)
        code = code_of(page)
    with visit(server) as page:
        page.get_by_text("I have a code").click()
        page.get_by_label("Code").fill("WRONG-CODES")
        page.get_by_role("button", name="Continue").click()
        appears(page, "[role=alert]:visible")
        page.get_by_label("Code").fill(code.lower())
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".clip")).to_have_count(2)
        assert code_of(page) == code


def test_two_tabs_of_one_rater_do_not_answer_one_trial_twice(serve, visit):
    server = serve(**{**ONE, "per_rater": 2})
    with visit(server) as page:
        begin(page, server)
        other = page.context.new_page()
        other.goto(server.url)
        other.get_by_role("button", name="Start").click()
        for tab, answer in ((page, "A"), (other, "B")):
            tab.bring_to_front()
            listen(tab)
            click_answer(tab, answer)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#count")).to_have_text("2 of 2")
        other.get_by_role("button", name="Next").click()
        appears(other, "[role=alert]:has-text('not the next one')")
        other.get_by_role("button", name="Try again").click()
        expect(other.locator("#count")).to_have_text("2 of 2")
    assert [event["answer"] for event in answers(server)] == ["A"]
