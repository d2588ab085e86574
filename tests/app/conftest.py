"""The page on a free port of this machine, with the tiny model, for all tests of this folder."""

import os

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def studio(tiny_model, tmp_path_factory):
    from audioldm.pipeline.audioldm import AudioLDM
    from audioldm.serve.service import Limits, Service

    out = tmp_path_factory.mktemp("app")
    os.environ["GRADIO_TEMP_DIR"] = str(out / "uploads")
    return Service(
        AudioLDM.from_pretrained(tiny_model), Limits(seconds=5.0, upload_mb=1, waiting=32), out=out
    )


@pytest.fixture(scope="session")
def trainer(studio, tiny_model, tmp_path_factory):
    """Trains the tiny model on folders below a root: two sounds with captions, one broken, none at all."""
    from audioldm.app.training import Trainer
    from audioldm.cli.options.groups import ModelOptions

    root = tmp_path_factory.mktemp("sounds")
    for folder in ("my dogs", "broken", "empty"):
        (root / folder).mkdir()
    random = np.random.default_rng(0)
    for i in range(2):
        soundfile.write(root / "my dogs" / f"{i}.wav", 0.1 * random.normal(size=(24000, 2)), 22050)
        (root / "my dogs" / f"{i}.txt").write_text("a dog, barking", encoding="utf-8")
    (root / "broken" / "a.wav").write_text("not a sound")
    return Trainer(studio, ModelOptions(model=str(tiny_model), device="cpu"), root)


@pytest.fixture(scope="session")
def address(studio, trainer):
    from audioldm.app import page

    blocks = page.build(studio, trainer)
    port = page.free_port("127.0.0.1")
    _, local, _ = blocks.launch(
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        **page.settings(studio, "127.0.0.1"),
    )
    yield local.rstrip("/")
    blocks.close()
    trainer.stop()
