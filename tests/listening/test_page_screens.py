"""What the page shows and plays in a real Chromium: every screen fits, and its sound is no silence."""

import re

import pytest
from playwright.sync_api import expect
from rater import DESKTOP, PHONE, begin, code_of, fits

pytestmark = pytest.mark.flaky(
    reruns=2
)  # a real browser on a busy machine: a fault that stays fails all three


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_screen_fits(serve, visit, screen):
    server = serve("acr", training=0)
    with visit(server, **screen) as page:
        expect(page.get_by_role("button", name="Begin")).to_be_visible()
        fits(page)
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("button", name="Play noise")).to_be_enabled()
        fits(page)
        count = server.study.rater(code_of(page)).beeps
        server.study.volume(code_of(page), device="loudspeakers", beeps=count)
        page.reload()
        expect(page.get_by_role("button", name="Start")).to_be_visible()
        fits(page)


def test_sound_really_plays_and_switches(serve, visit):
    """What the graph of nodes gives is not silence: it is measured inside the browser."""
    server = serve("mushra", training=0)
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
        expect(page.locator(".clip").first).to_be_enabled()
        page.keyboard.press("r")
        wait_for_level(page, lambda level: level > 0.005)
        page.keyboard.press("1")
        expect(page.locator(".clip[data-slot='0']")).to_have_class(re.compile("on"))
        wait_for_level(page, lambda level: level > 0.005)
        page.keyboard.press("Space")
        wait_for_level(page, lambda level: level < 1e-6)


def wait_for_level(page, reached):
    """Ask from outside: the page's policy allows no script from text, so the browser cannot wait for one."""
    for _ in range(200):
        if reached(page.evaluate("window.level()")):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"the level stays at {page.evaluate('window.level()')}")
