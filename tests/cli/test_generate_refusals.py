"""``audioldm generate``: what it refuses, in one line and before it has begun."""

import os
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

BAD_REQUESTS = {
    "empty prompt": (("",), "prompt=''"),
    "blank prompt": (("  ",), "is empty"),
    "unknown sampler": (("rain", "--sampler", "magic"), "dpmpp_2m"),
    "unknown grid": (("rain", "--set", "grid=magic"), "karras"),
    "no seconds": (("rain", "--seconds", "0"), "seconds=0"),
    "negative seconds": (("rain", "--seconds", "-3"), "seconds=-3"),
    "absurd seconds": (("rain", "--seconds", "1e6"), "and at most 600"),
    "seconds nan": (("rain", "--seconds", "nan"), "seconds=nan"),
    "seconds inf": (("rain", "--seconds", "inf"), "seconds=inf"),
    "no steps": (("rain", "--steps", "0"), "steps=0"),
    "negative steps": (("rain", "--steps", "-1"), "steps=-1"),
    "guidance nan": (("rain", "--guidance", "nan"), "guidance=nan"),
    "no clips": (("rain", "-n", "0"), "n=0"),
    "negative seed": (("rain", "--seed", "-1"), "seed=-1"),
    "no batch": (("rain", "--set", "batch_size=0"), "batch_size=0"),
    "unknown device": (("rain", "--device", "tpu"), "device='tpu'"),
    "unknown dtype": (("rain", "--set", "dtype=int8"), "bfloat16"),
    "unknown mode": (("rain", "--mode", "warp"), "fast"),
    "resume with rerank": (("rain", "--resume", "--set", "rerank=2"), "resume"),
    "unknown format": (("rain", "--format", "opus"), "flac"),
    "unknown key": (("rain", "--set", "stepss=3"), "'stepss' is no setting here"),
    "key without value": (("rain", "--set", "rerank"), "Known: loop"),
    "value of another type": (("rain", "--set", "rerank=many"), "Write rerank=N"),
    "device of another kind": (("rain", "--device", "cpu:0"), "device='cpu:0'"),
    "two loudnesses": (("rain", "--normalize", "--lufs", "-23"), "both say how loud"),
    "lufs out of range": (("rain", "--lufs", "3"), "lufs=3 is out of range"),
    "device not here": (("rain", "--device", "cuda:77"), "cuda:77"),
    "missing prompts": (("--prompts", "no/such.txt"), "No such file"),
    "prompts of unknown kind": (("--prompts", "list.doc"), ".jsonl"),
    "two sources": (("rain", "--prompts", "x.txt"), "both"),
}


@pytest.mark.parametrize(("words", "expected"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_request_is_refused_before_the_model(generate, out, words, expected):
    # The model folder is missing too: a complaint about it would mean that the model was touched first.
    refused(generate(*words, model="no/such/model", quick=()), expected, out)


def refused(answer: tuple[int, str, str], expected: str, out: Path) -> None:
    """Exit code 2, one line on stderr that says ``told``, nothing on stdout, nothing written."""
    code, printed, err = answer
    assert (code, printed) == (2, ""), err
    assert err.count("\n") == 1, err
    assert expected in err
    assert not out.exists()


def test_existing_output_is_kept_without_force(generate, out):
    out.mkdir()
    (out / "rain_seed1.png").write_text("mine")
    code, _, err = generate("rain", "-n", "2", model="no/such/model")
    assert code == 2
    assert err.count("\n") == 1
    assert "rain_seed1.png" in err
    assert "--force" in err
    assert (out / "rain_seed1.png").read_text() == "mine"


def test_folder_below_a_file_is_refused(command, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    assert command("generate", "rain", "-o", tmp_path / "file" / "out", "-m", "no/such/model") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(command, capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert command("generate", "rain", "-o", tmp_path / "out", "-m", "no/such/model") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_missing_model_is_refused(generate, out):
    refused(generate("rain", model="no/such/model"), "no/such/model", out)


DAMAGES = {
    "truncated": "truncated",
    "garbage": "cannot be read",
    "empty": "cannot be read",
    "absent": "no weights",
    "changed": "sha256",
    "shape": "of shape",
    "config": "not valid JSON",
}


@pytest.mark.parametrize("part", ["unet", "vae", "vocoder", "text_encoder"])
@pytest.mark.parametrize(("damage", "expected"), DAMAGES.items(), ids=DAMAGES)
def test_damaged_model_is_refused(generate, out, tiny_model, tmp_path, forget_hashes, part, damage, expected):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    spoil(broken, part, damage, forget_hashes)
    answer = generate("rain", model=broken)
    refused(answer, expected, out)
    assert str(broken / part) in answer[2]


def spoil(model: Path, part: str, damage: str, forget_hashes: Callable[[Path], None]) -> None:
    """Damage one weight file or its configuration; hashes are forgotten where another check is to be seen."""
    (weights,) = (model / part).glob("*.safetensors")
    content = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "absent":
        weights.unlink()
    elif damage == "config":
        (model / part / "config.json").write_text("{")
    else:
        forget_hashes(model)
        if damage == "shape":
            state = load_file(weights)
            name = max(state, key=lambda key: state[key].ndim)
            save_file({**state, name: state[name][1:].contiguous()}, weights, metadata={"format": "pt"})
        else:
            weights.write_bytes(b"" if damage == "empty" else b"\xff" * 1000)


DESCRIPTIONS = ["model_index.json", "audioldm.json", "scheduler/scheduler_config.json"]
# Of the index only its presence is read; without audioldm.json the folder is one of diffusers' own.
ALLOWED = [("model_index.json", "{}"), ("audioldm.json", None)]


@pytest.mark.parametrize(
    ("file", "content"),
    [case for case in product(DESCRIPTIONS, [None, "", "{", "[]", "{}"]) if case not in ALLOWED],
    ids=str,
)
def test_damaged_description_is_refused(generate, out, tiny_model, tmp_path, file, content):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / file).unlink() if content is None else (broken / file).write_text(content)
    refused(generate("rain", model=broken), file, out)


def test_debug_shows_the_traceback(command):
    from audioldm.errors import AudioLDMError

    with pytest.raises(AudioLDMError):
        command("generate", "", "--debug")


@pytest.mark.parametrize("ending", ["aiff", "opus", "WMA"])
def test_an_ending_that_is_not_written_is_refused(generate, tmp_path, ending):
    code, _, err = generate("rain", "-o", tmp_path / f"x.{ending}", "--dry-run")
    assert code == 2 and f"{ending.lower()} is not written. Use wav" in err
    (tmp_path / "p.csv").write_text(f"prompt,out\nrain,x.{ending}\n")
    code, _, err = generate("--prompts", tmp_path / "p.csv", "--dry-run")
    assert code == 2 and f"{ending.lower()} is not written. Use wav" in err
