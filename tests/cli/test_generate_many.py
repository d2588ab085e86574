"""Many prompts: what fails alone is lost alone, what is there is not made again, a faster mode is named."""

import json
import os
from pathlib import Path

import pytest

from audioldm.errors import AudioLDMError
from audioldm.pipeline.audioldm import AudioLDM

QUICK = ("--seconds", 0.64, "--steps", 2, "--set", "figure=false")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("rain\nnoise\nchurch bells\na rooster\n")
    return path


@pytest.fixture
def bells_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pipeline, but every batch with church bells in it gives NaN."""
    sound = AudioLDM.__call__

    def call(self: AudioLDM, prompts, **settings):  # type: ignore[no-untyped-def]
        if "church bells" in prompts:
            raise AudioLDMError(
                "The model gave a sound with NaN or infinity.", "Try --dtype float32.", code=1
            )
        return sound(self, prompts, **settings)

    monkeypatch.setattr(AudioLDM, "__call__", call)


@pytest.mark.parametrize("batch", [1, 3])
def test_one_prompt_that_fails_does_not_end_the_others(
    command, tiny_model, prompts, tmp_path, capsys, bells_fail, batch
):
    out = tmp_path / "out"
    words = (
        "generate",
        "--prompts",
        prompts,
        "-m",
        tiny_model,
        "-o",
        out,
        "--set",
        f"batch_size={batch}",
        *QUICK,
    )
    assert command(*words) == 1
    _, err = capsys.readouterr()
    assert "'church bells', seed 2: The model gave a sound with NaN" in err
    assert "1 of 4 clips failed." in err
    assert sorted(p.name for p in out.glob("*.wav")) == [
        "a_rooster_seed3.wav",
        "noise_seed1.wav",
        "rain_seed0.wav",
    ]


def test_a_single_clip_that_fails_is_the_error(command, tiny_model, tmp_path, capsys, bells_fail):
    assert command("generate", "church bells", "-m", tiny_model, "-o", tmp_path, *QUICK) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("audioldm: The model gave a sound with NaN")


def test_resume_makes_what_is_missing_and_leaves_the_rest(command, tiny_model, prompts, tmp_path, capsys):
    words = ("generate", "--prompts", prompts, "-m", tiny_model, "-o", tmp_path / "out", *QUICK)
    assert command(*words) == 0
    files = sorted((tmp_path / "out").iterdir())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    gone = tmp_path / "out" / "noise_seed1.wav"
    gone.unlink()
    capsys.readouterr()
    assert command(*words, "--resume") == 0
    assert capsys.readouterr().out.split() == [str(gone), str(gone.with_suffix(".json"))]
    for path, (content, at) in before.items():
        assert path.read_bytes() == content, path
        assert path.stem == "noise_seed1" or path.stat().st_mtime_ns == at
    assert command(*words, "--resume") == 0
    assert capsys.readouterr().out == ""


def test_a_faster_mode_is_written_down_with_its_number_type(command, tiny_model, tmp_path):
    assert command("generate", "rain", "-m", tiny_model, "-o", tmp_path, "--mode", "fast", *QUICK) == 0
    settings = json.loads((tmp_path / "rain_seed0.json").read_text())["settings"]
    assert (settings["mode"], settings["dtype"]) == ("fast", "bfloat16")


def test_resume_sweeps_what_a_killed_run_left_even_where_all_is_there(generate, out):
    quick = ("--steps", "1", "--seconds", "0.2", "--set", "figure=false")
    assert generate("rain", quick=quick)[0] == 0
    left = out / ".rain_seed0.json.999999999-0123abcd.part"
    left.write_text("half")
    assert generate("rain", "--resume", quick=quick)[0] == 0 and not left.exists()


def test_resume_makes_a_clip_again_that_is_no_file(generate, out):
    quick = ("--steps", "1", "--seconds", "0.2", "--set", "figure=false")
    assert generate("rain", quick=quick)[0] == 0
    (sound := out / "rain_seed0.wav").unlink()
    os.mkfifo(sound)
    assert generate("rain", "--resume", quick=quick)[0] == 0 and sound.is_file()
