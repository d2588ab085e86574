"""What a rater does at the page: begin, listen, answer; on a desktop or on a phone.

Waits are for a selector, which the browser watches at every frame; ``expect`` looks again only after up to a second.
"""

from playwright.sync_api import expect

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {
    "viewport": {"width": 360, "height": 640},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}
NARROWEST_FINGER = 44  # CSS pixels, WCAG 2.2 target size (enhanced)
THANKS = "h1:text('Thank you')"
expect.set_options(timeout=15_000)  # ms; a busy machine decodes slowly


def appears(page, selector):
    page.locator(selector).first.wait_for()


def begin(page, server, name="", tries=()):
    """Welcome, the volume check (with wrong answers first) and the first part's introduction."""
    page.get_by_label("Name or initials").fill(name)
    page.get_by_role("button", name="Begin").click()
    for number, heard in enumerate((*tries, None), start=2):
        appears(page, "h1:text('Check your sound')")
        count = server.study.rater(code_of(page)).beeps if heard is None else heard
        page.get_by_text("Headphones", exact=True).click()
        page.get_by_role("button", name="Play noise").click()
        page.get_by_role("button", name="Play tones").click()
        page.locator(".pills").get_by_text(str(count), exact=True).click()
        page.get_by_role("button", name="Continue").click()
        if heard is not None:
            appears(page, f".notice:has-text('(try {number} of')")  # the new screen, not the last one
    page.get_by_role("button", name="Start").click()


def code_of(page):
    return page.evaluate("Object.values(localStorage)[0]")


def trial_of(page, server):
    """What the server knows of the trial on the page."""
    rater = server.study.rater(code_of(page))
    return rater.trials[rater.answered] if rater.answered < len(rater.trials) else None


def listen(page):
    """Play every clip until all count as heard."""
    for number, button in enumerate(page.locator(".clip").all()):
        button.click()
        page.locator(f".clip >> nth={number} >> css=:scope.heard").wait_for()


def good(trial):
    """What somebody with ears says, who likes "new" better than "old"."""
    worth = {"original": 3, "new": 2, "old": 1}
    values = [worth.get(name, 0) for name in trial.slots]
    if trial.task == "ab":
        return "tie" if values[0] == values[1] else "AB"[values.index(max(values))]
    if trial.task == "abx":
        return "AB"[trial.slots.index(trial.slots[2])]
    if trial.task == "mushra":
        return [
            100 if name == trial.reference else 30 * value
            for name, value in zip(trial.slots, values, strict=True)
        ]
    return 1 if not values[0] or trial.caption_of not in (None, trial.prompt) else values[0] + 2


def click_answer(page, answer):
    page.locator(f"input[name=answer][value='{answer}']").locator("xpath=..").click()


def next_trial(page):
    """Send the answer; the next trial, which begins with Next disabled, or the end."""
    page.get_by_role("button", name="Next").click()
    appears(page, f"#next:disabled, {THANKS}")


def fits(page):
    """Nothing is wider than the screen, and every control is large enough for a finger."""
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    for control in page.locator("button:visible, .option:visible").all():
        box = control.bounding_box()
        assert box["height"] >= NARROWEST_FINGER, control.inner_text()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= page.viewport_size["width"] + 0.5
