"""Shared by all tests: no network, one thread, and a real tiny model on disk."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two spinning threads crawl when another process wants the core

import pytest
import torch

ROOT = Path(__file__).parent.parent
PROMPTS = [
    "a dog barking",
    "rain on a tin roof",
    "church bells",
    "waves on a beach",
    "a rooster",
    "noise",
    "",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of AudioLDM's own classes at toy widths, with random weights of a fixed seed."""
    from audioldm.components import Sampling
    from audioldm.nets.clap import MelEncoder, SmallClap, build_text_encoder, train_tokenizer
    from audioldm.nets.hifigan import build_hifigan
    from audioldm.nets.unet import build_unet
    from audioldm.nets.vae import build_vae
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.spec import AudioSpec

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = train_tokenizer(PROMPTS, size=200)
        text = build_text_encoder(tokenizer, width=16, layers=1, heads=2, dim=16)
        clap = SmallClap(text, tokenizer, MelEncoder(widths=(8, 8), dim=16, hidden=16))
        vae = build_vae(channels=(8, 8, 16), latent_channels=4, layers=1, groups=4)
        unet = build_unet(
            channels=(16, 32), latent_channels=4, layers=1, head_channels=8, film_dim=16, groups=4
        )
        vocoder = build_hifigan(channels=32, kernels=(3,), dilations=((1, 3),))
        for layer in vocoder.modules():  # transformers starts these so small that the sound would be silence
            if isinstance(layer, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
                layer.reset_parameters()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    spec = AudioSpec(latent_channels=4)
    defaults = Sampling(1.28, 4, "ddim", "leading", 2.0)
    pipe = AudioLDM(unet, vae, vocoder, clap, spec, name="tiny", defaults=defaults)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run one ``audioldm`` command line inside this process; returns the exit code."""
    from audioldm.cli.app import run

    monkeypatch.setenv("COLUMNS", "120")
    return lambda *words: run([str(word) for word in words])


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a fresh interpreter that sees this checkout."""

    def execute(code: str, **settings: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=300,
            env=environment,
            **settings,
        )

    return execute


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--shuffle SEED``: another order of files, and of tests in each, for each seed."""
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="shuffle the tests; the same seed, the same order"
    )


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    seed = config.getoption("shuffle")
    if seed is not None:
        terminalreporter.write_line(
            f"shuffled; the same order again: --shuffle={seed}, make test SEED={seed}"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, loudly, what needs a GPU where there is none; shuffle where asked, files staying together."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    seed = config.getoption("shuffle")
    if seed is not None:
        rng = random.Random(seed)
        files = sorted({item.path for item in items})
        rng.shuffle(files)
        places = {path: place for place, path in enumerate(files)}
        rng.shuffle(items)
        items.sort(key=lambda item: places[item.path])
