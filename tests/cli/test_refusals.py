"""What no run could use is one line and exit code 2 before work; what nobody expected is one line and exit code 1."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from audioldm.cli import generate as module
from audioldm.cli.console import printable

REFUSED = [
    (("",), "prompt=''"),
    (("  ",), "is empty"),
    (("rain", "--sampler", "magic"), "dpmpp_2m"),
    (("rain", "--sampler", "ddim:eta=2"), "eta='2' cannot be"),
    (("rain", "--set", "grid=magic"), "karras"),
    (("rain", "--seconds", "0"), "seconds=0"),
    (("rain", "--seconds", "1e6"), "and at most 600"),
    (("rain", "--seconds", "nan"), "seconds=nan"),
    (("rain", "--seconds", "inf"), "seconds=inf"),
    (("rain", "--steps", "0"), "steps=0"),
    (("rain", "--guidance", "nan"), "guidance=nan"),
    (("rain", "-n", "0"), "n=0"),
    (("rain", "--seed", "-1"), "seed=-1"),
    (("rain", "--set", "batch_size=0"), "batch_size=0"),
    (("rain", "--set", "rerank=0"), "rerank=0"),
    (("rain", "--set", "retry_silent=-1"), "retry_silent=-1"),
    (("rain", "--set", "dtype=int8"), "bfloat16"),
    (("rain", "--mode", "warp"), "fast"),
    (("rain", "--device", "tpu"), "device='tpu'"),
    (("rain", "--device", "cuda:77"), "cuda:77"),
    (("rain", "--resume", "--set", "rerank=2"), "resume"),
    (("rain", "--format", "opus"), "flac"),
    (("rain", "--set", "stepss=3"), "'stepss' is no setting here"),
    (("rain", "--set", "rerank"), "Known: loop"),
    (("rain", "--set", "rerank=many"), "Write rerank=N"),
    (("rain", "--normalize", "--lufs", "-23"), "both say how loud"),
    (("rain", "--lufs", "3"), "lufs=3 is out of range"),
    (("rain",), "no/such/model"),
    (("--prompts", "no/such.txt"), "No such file"),
    (("--prompts", "list.doc"), ".jsonl"),
    (("rain", "--prompts", "x.txt"), "both"),
    (("rain", "--set", "schedule=0-2 rain"), "both given"),
    (("--set", "schedule=0-1 rain; 1-2 wind", "--set", "rerank=2"), "schedule does not go with"),
    (("rain", "--audio-prompt", "no/such.wav"), "audio-prompt=no/such.wav is not a file"),
    (("rain", "--audio-prompt", "a.wav:1.5"), "0 to 1"),
    (("rain", "--interpolate-to", "b:nan"), "0 to 1"),
    (("rain", "--interpolate-to", ":0.5"), "is empty"),
    (("--audio-prompt", "{sound}:0.6"), "leaves 0.4 to a prompt"),
    (("--audio-prompt", "{sound}", "--interpolate-to", "wind"), "no prompt to come from"),
    (("rain", "--audio-prompt", "{sound}:0.2,0.4"), "has 2 shares"),
    (("rain", "--set", "guidance_method=magic"), "guidance_method='magic' is unknown"),
    (("rain", "--set", "guidance_method=apg:mu=1"), "there is no option 'mu'"),
    (("rain", "--set", "guidance_interval=5,1"), "LOW below HIGH"),
    (("rain", "--set", "guidance_interval=1,inf"), "out of range"),
    (("rain", "--set", "guidance_threshold=2,1"), "QUANTILE=2 is out of range"),
    (("rain", "--set", "guidance_threshold=0.9,0"), "FLOOR=0 is out of range"),
    (("rain", "--set", "guidance_clap=-1"), "guidance_clap=-1"),
    (("rain", "--set", "guidance_extra_prompts=:2"), "guidance_extra_prompts=':2'"),
    (("rain", "--set", "guidance_extra_prompts=b", "--set", "guidance_method=apg"), "one prompt only"),
    (
        ("rain", "--set", "guidance_method=cfg_plus_plus", "--sampler", "ddpm"),
        "does not go with sampler=ddpm",
    ),
    (("rain", "--set", "guidance_method=cfg_plus_plus", "--sampler", "euler", "--guidance", "3"), "0 to 1"),
]


@pytest.mark.parametrize(("words", "expected"), REFUSED, ids=lambda part: " ".join(part) if part else "")
def test_what_no_run_could_use_is_refused_before_the_model(refused, sound, words, expected):
    # The model folder is missing too: a complaint about it would mean that the model was touched first.
    refused([word.replace("{sound}", str(sound)) for word in words], expected)


def test_what_does_not_fit_the_models_defaults_is_refused(refused, tiny_model):
    words = ("rain", "--set", "guidance_method=cfg_plus_plus")
    refused(words, "guidance=2 is too much for cfg_plus_plus", model=tiny_model)


@pytest.mark.parametrize("content", [b"not a sound", None, "loud"])
def test_a_sound_that_says_nothing_is_refused(refused, tmp_path, tiny_model, content):
    path = tmp_path / "a.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        wave = (1e30 if content else 0) * np.sin(np.arange(16000) / 9)
        soundfile.write(path, wave.astype(np.float32), 16000, subtype="FLOAT")
    expected = {None: "is silent", "loud": "of full scale: it is no sound"}.get(content, "Cannot read audio")
    refused(("rain", "--audio-prompt", path), expected, model=tiny_model)


def test_existing_output_is_kept_without_force(generate, out):
    out.mkdir()
    (out / "rain_seed1.png").write_text("mine")
    code, _, err = generate("rain", "-n", "2", model="no/such/model", quick=())
    assert code == 2 and err.count("\n") == 1
    assert "rain_seed1.png" in err and "--force" in err
    assert (out / "rain_seed1.png").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused(command, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    assert command("generate", "rain", "-o", tmp_path / "file" / "out", "-m", "no/such/model") == 2
    assert "cannot be written" in capsys.readouterr().err
    if os.geteuid():  # root may write anywhere
        tmp_path.chmod(0o500)
        assert command("generate", "rain", "-o", tmp_path / "out", "-m", "no/such/model") == 2
        assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["aiff", "WMA"])
def test_an_ending_that_is_not_written_is_refused(generate, tmp_path, ending):
    (tmp_path / "p.csv").write_text(f"prompt,out\nrain,x.{ending}\n")
    for words in (("rain", "-o", tmp_path / f"x.{ending}"), ("--prompts", tmp_path / "p.csv")):
        code, _, err = generate(*words, "--dry-run")
        assert code == 2 and f"{ending.lower()} is not written. Use wav" in err


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("unet/{weights}", b"x" * 1000, "unet"),
        ("vae/{weights}", None, "no weights"),
        ("vocoder/config.json", b"{", "is not JSON"),
        ("audioldm.json", b"[]", "audioldm.json"),
        ("model_index.json", None, "model_index.json"),
    ],
)
def test_a_damaged_model_is_refused(refused, tiny_model, tmp_path, file, content, expected):
    """More of them are in tests/convert/test_mutations.py."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    place = broken / file.replace("{weights}", "diffusion_pytorch_model.safetensors")
    place.unlink() if content is None else place.write_bytes(content)
    assert str(place.parent) in refused(("rain",), expected, model=broken)


def while_handling(first: Exception, second: Exception) -> Exception:
    """A fault that came up because of another."""
    second.__context__ = first
    return second


class Panic(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (ValueError("two\nlines\x1b[0m"), 1, r"unexpected ValueError: two. Run it again with --debug"),
        (RuntimeError(""), 1, "unexpected RuntimeError"),
        (while_handling(MemoryError(), RuntimeError("no loader")), 1, "the memory is full (MemoryError)"),
        (MemoryError(), 1, "the memory is full (MemoryError). Ask for less"),
        (
            RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"),
            1,
            "the memory is full (unable to mmap",
        ),
        (OSError(28, "No space left on device", "out/x.wav"), 1, "out/x.wav: No space left on device."),
        (Panic("index out of bounds"), 1, "unexpected Panic: index out of bounds"),
        (SystemExit("usage: no such word"), 1, "unexpected RuntimeError: usage: no such word"),
        (SystemExit(3), 3, ""),
        (RecursionError("maximum depth"), 1, "unexpected RecursionError"),
    ],
)
def test_an_unexpected_fault_is_one_line(command, capsys, monkeypatch, error, code, expected):
    def fail(*_):
        raise error

    monkeypatch.setattr(module.Generate, "results", fail)
    assert command("generate", "rain") == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == bool(expected) and expected in err
    if not isinstance(error, SystemExit):
        with pytest.raises(type(error)):
            command("generate", "rain", "--debug")


def test_debug_goes_before_and_after_every_command(command):
    assert command("recipes", "--debug") == 0
    assert command("--debug", "recipes") == 0


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\u202eb", "a\udcffb", "a\x85b", "a\u2028b"])
def test_nothing_that_steers_a_terminal_is_printed(text):
    shown = printable(text)
    assert shown.isprintable() and shown.startswith("a\\") and shown.endswith("b")
    assert printable("café 雨 – ok") == "café 雨 – ok"


def test_a_name_in_broken_bytes_is_one_line(refused, tmp_path):
    refused(("--prompts", f"{tmp_path}/\udcff.txt"), "No such file")


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_a_command_whose_streams_are_closed_ends_without_a_trace(closed, tmp_path):
    words = f"{sys.executable} -m audioldm generate - --dry-run {closed} 2>{tmp_path}/err"
    shell = ["bash", "-c", f"({words}) </dev/null"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=120)
    said = done.stderr + (tmp_path / "err").read_text()
    assert done.returncode == 2 and "Traceback" not in said and "holds no prompt" in said
