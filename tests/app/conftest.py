"""The page on a free port of this machine, with the tiny model, for all tests of this folder."""

import os

import pytest


@pytest.fixture(scope="session")
def studio(tiny_model, tmp_path_factory):
    from audioldm.app.studio import Limits, Studio
    from audioldm.pipeline.audioldm import AudioLDM

    out = tmp_path_factory.mktemp("app")
    os.environ["GRADIO_TEMP_DIR"] = str(out / "uploads")
    return Studio(AudioLDM.from_pretrained(tiny_model), out, Limits(seconds=5.0, upload_mb=1, waiting=32))


@pytest.fixture(scope="session")
def address(studio):
    from audioldm.app import page
    from audioldm.app.command import free_port

    blocks = page.build(studio)
    port = free_port("127.0.0.1")
    _, local, _ = blocks.launch(
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        **page.settings(studio, "127.0.0.1"),
    )
    yield local.rstrip("/")
    blocks.close()
