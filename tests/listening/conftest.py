"""Small real tests: three systems of short synthetic sounds, prepared by the product itself."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Browser, Page, sync_playwright

from audioldm.listening.folder import Test, load
from audioldm.listening.prepare import Choices, prepare
from audioldm.listening.server import Server
from audioldm.listening.study import Study

# tests are imported by path (importlib mode): what a rater does becomes a plain module
spec = importlib.util.spec_from_file_location("rater", Path(__file__).with_name("rater.py"))
rater = sys.modules["rater"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rater)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--mute-audio",
    "--disable-dev-shm-usage",
]  # containers: root, no sound card, small /dev/shm
RATE = 16_000
CAPTIONS = {
    "dog": "a dog barking",
    "rain": "rain on a tin roof",
    "sea": "waves on a beach",
    "bell": "church bells far away",
}
NOISE = {"original": 0.0, "new": 0.02, "old": 0.2}


@pytest.fixture(scope="session")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of four clips of 0.45 s, with the prompts beside them; a system differs by its noise."""
    root, rng = tmp_path_factory.mktemp("systems"), np.random.default_rng(0)
    time = np.arange(int(0.45 * RATE)) / RATE
    for name, noise in NOISE.items():
        (root / name).mkdir()
        for i, (clip, caption) in enumerate(CAPTIONS.items()):
            wave = 0.4 * np.sin(2 * np.pi * (220 + 90 * i) * time) * np.exp(-3 * time)
            wave = wave + 0.05 * np.sin(2 * np.pi * 5000 * time) + noise * rng.normal(size=time.size)
            soundfile.write(root / name / f"{clip}.wav", wave.astype(np.float32), RATE)
            (root / name / f"{clip}.json").write_text(json.dumps({"prompt": caption}))
    return {name: root / name for name in NOISE}


@pytest.fixture(scope="session")
def prepared(systems: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of prepared tests, each made once."""
    root, made = tmp_path_factory.mktemp("prepared"), dict[str, Path]()

    def prepared(choices: Choices, names: tuple[str, ...]) -> Path:
        key = repr((choices, names))
        if key not in made:
            made[key] = root / str(len(made))
            prepare({name: systems[name] for name in names}, made[key], choices)
        return made[key]

    return prepared


@pytest.fixture
def make(prepared: Callable[..., Path], tmp_path: Path) -> Callable[..., Test]:
    """An own copy of a test of some systems by some method."""

    def make(method: str = "ab", names: tuple[str, ...] = ("old", "new"), **choices: Any) -> Test:
        if method == "mushra":
            names, choices = tuple(NOISE), {"reference": "original", **choices}
        source = prepared(Choices(method, **{"seed": 7, **choices}), names)
        return load(shutil.copytree(source, tmp_path / method))

    return make


@pytest.fixture
def study(make: Callable[..., Test]) -> Iterator[Callable[..., Study]]:
    """A study of a prepared test, closed in the end."""
    opened: list[Study] = []

    def start(*words: Any, **choices: Any) -> Study:
        opened.append(Study(make(*words, **choices)))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def serve(make: Callable[..., Test]) -> Iterator[Callable[..., Server]]:
    """A running server of a prepared test; a fault that it reports fails the test that caused it."""
    running: list[Server] = []
    faults: list[str] = []

    def start(*words: Any, test: Test | None = None, **choices: Any) -> Server:
        server = Server(test if test is not None else make(*words, **choices))
        server.failure = faults.append
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        if not server.server.should_exit:
            server.stop()
    assert not faults


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser, started once for each file."""
    found = os.environ.get("AUDIOLDM_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(
            "no Chromium for the tests of the listening page: run `make browser`, or set AUDIOLDM_CHROMIUM"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Any]]:
    """Open the page as a visitor with an own storage; a fault in its script fails the test."""
    faults: list[str] = []

    @contextmanager
    def visit(server: Server, storage: Any = None, **settings: Any) -> Iterator[Page]:
        context = chromium.new_context(**(settings or rater.DESKTOP), storage_state=storage)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
        page.goto(server.url)
        yield page
        context.close()

    yield visit
    assert not [fault for fault in faults if "Failed to load resource" not in fault]
