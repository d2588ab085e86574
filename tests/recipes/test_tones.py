"""Whether the tiny chain's high tones are higher than its low ones, and that it is told when they are not."""

import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

CHECK = Path(__file__).parents[2] / "recipes" / "tiny" / "tones.py"


@pytest.mark.parametrize(
    ("low", "high", "code"), [(200, 2000, 0), (2000, 200, 1), (200, 0, 1), (200, None, 2)]
)
def test_tones_in_the_wrong_order_are_told(low: int, high: int | None, code: int, tmp_path, capsys):
    main = runpy.run_path(str(CHECK))["main"]
    for name, hertz in (("low", low), ("high", high)):
        if hertz is not None:  # 0 Hz is a constant, and a constant is no pitch
            wave = np.sin(2 * np.pi * hertz * np.arange(8000) / 16000) + 0.5
            sf.write(tmp_path / f"a_{name}_tone_seed0.wav", 0.5 * wave, 16000)
    assert main(tmp_path) == code
    told = capsys.readouterr()
    if code == 0:
        assert told.out == "a low tone: 200 Hz\na high tone: 2000 Hz\n"
    else:
        assert ("not above the low ones" if code == 1 else 'no "a high tone"') in told.err


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tiny_recipes_end_in_a_low_and_a_high_tone(
    tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
):
    """The commands of `make tiny`."""
    monkeypatch.chdir(tmp_path)
    for part in ("vae", "vocoder", "clap"):
        assert command("train", f"tiny/{part}") == 0
    parts = ("--vae", "runs/tiny/vae/model/vae", "--clap", "runs/tiny/clap/model")
    assert command("data", "encode", "synthetic", "-o", "runs/tiny/latents", "--seconds", "1.28", *parts) == 0
    assert command("train", "tiny/ldm") == 0
    runs = [word for part in ("ldm", "vae", "vocoder", "clap") for word in (f"--{part}", f"runs/tiny/{part}")]
    assert command("export", *runs, "--refine-phase", "8", "-o", "model") == 0
    for prompt in ("a low tone", "a high tone"):
        assert (
            command("generate", prompt, "-n", "8", "-m", "model", "-o", "out", "--set", "figure=false") == 0
        )
    assert runpy.run_path(str(CHECK))["main"](Path("out")) == 0
