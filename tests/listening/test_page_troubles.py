"""What may go wrong for a rater at the page: wrong tones, a lost connection, another browser, two tabs."""

import pytest
from playwright.sync_api import expect
from rater import begin, click_answer, code_of, good, listen, trial_of

from audioldm.listening.folder import answers_of

pytestmark = pytest.mark.flaky(
    reruns=2
)  # a real browser on a busy machine: a fault that stays fails all three


def test_wrong_counts_of_tones_are_asked_again_and_noted(serve, visit):
    server = serve(training=0)
    with visit(server) as page:
        begin(page, server, tries=(1, 6))
        expect(page.locator(".clip")).to_have_count(2)
    volume = [event for event in answers_of(server.study.test)[0] if event["event"] == "volume"]
    assert [event["right"] for event in volume] == [False, False, True]


def test_a_lost_connection_keeps_the_answer(serve, visit):
    server = serve(training=0, repeats=0, catch=0, per_rater=1)
    with visit(server) as page:
        begin(page, server)
        listen(page)
        click_answer(page, good(trial_of(page, server)))
        page.context.set_offline(True)
        page.get_by_role("button", name="Next").click()
        expect(page.get_by_role("alert")).to_contain_text("No connection")
        assert server.study.rater(code_of(page)).answered == 0
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()


def test_a_code_continues_in_another_browser(serve, visit):
    server = serve(training=0)
    with visit(server) as page:
        begin(page, server)
        code = code_of(page)
    with visit(server) as page:
        page.get_by_text("I have a code").click()
        page.get_by_label("Code").fill("WRONG-CODES")
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Code").fill(code.lower())
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".clip")).to_have_count(2)
        assert code_of(page) == code


def test_two_tabs_of_one_rater_do_not_answer_one_trial_twice(serve, visit):
    server = serve(training=0, repeats=0, catch=0, per_rater=2)
    with visit(server) as page:
        begin(page, server)
        other = page.context.new_page()
        other.goto(server.url)
        other.get_by_role("button", name="Start").click()
        for tab, answer in ((page, "A"), (other, "B")):
            listen(tab)
            click_answer(tab, answer)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#count")).to_have_text("2 of 2")
        other.get_by_role("button", name="Next").click()
        expect(other.get_by_role("alert")).to_contain_text("not the next one")
        other.get_by_role("button", name="Try again").click()
        expect(other.locator("#count")).to_have_text("2 of 2")
    assert [event["answer"] for event in answers_of(server.study.test)[0][2:]] == ["A"]
