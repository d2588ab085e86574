"""Windows and macOS, imitated on Linux: no POSIX modules, spawned workers, cp1252, backslashes, no float64 on MPS."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from audioldm.pipeline.audioldm import AudioLDM

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "audioldm").rglob("*.py"))
POSIX_MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "readline")
POSIX_NAMES = ("pread", "fork", "getuid", "geteuid", "killpg")
POSIX_SIGNALS = ("SIGHUP", "SIGALRM", "setitimer", "ITIMER_REAL", "pause")
AS_WINDOWS = f"""
import importlib, multiprocessing, os, pkgutil, signal, sys
def every():
    import audioldm
    names = [module.name for module in pkgutil.walk_packages(audioldm.__path__, "audioldm.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]
def become_windows():
    every()  # what others need of these modules is theirs: they have versions for Windows
    for name in [name for name in sys.modules if name.partition(".")[0] == "audioldm"]: del sys.modules[name]
    for name in {POSIX_MODULES}: sys.modules[name] = None
    for name in {POSIX_NAMES}: delattr(os, name)
    for name in {POSIX_SIGNALS}: delattr(signal, name)
    multiprocessing.set_start_method("spawn")  # macOS and Windows start workers anew: all must travel by pickle
    every()
if __name__ == "__main__":
    become_windows()
    from audioldm.cli.app import main, run
"""
TRAIN = (
    "tiny/vae data=manifests data.workers=2 batches=2 batch_size=2 val_every=2 trainer.log_every_n_steps=1"
)


def test_everything_works_without_what_only_posix_has(tiny_model, tmp_path, command):
    """All imports, a training with spawned workers, and a prompt that the console's cp1252 cannot write."""
    (tmp_path / "sounds").mkdir()
    for i in range(8):
        wave = 0.1 * np.random.default_rng(i).normal(size=16000)
        soundfile.write(tmp_path / "sounds" / f"dog {i}.wav", wave, 16000)
    assert command("data", "prepare", "folder", tmp_path / "sounds", "-o", tmp_path / "m.jsonl") == 0
    words = ["train", *TRAIN.split(), f"data.manifests=[{tmp_path}/m.jsonl]"]
    generate = ["generate", "雨 – rain ☂", "-m", str(tiny_model), "--seconds", "0.3"]
    script = tmp_path / "windows.py"
    script.write_text(
        AS_WINDOWS + f"    code = run({words}) or run(['bench', '-m', {str(tiny_model)!r}, '--help'])\n"
        f"    sys.argv = ['audioldm', *{generate}]\n    sys.exit(code) if code else main()\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = tmp_path / "runs" / "tiny" / "vae"
    rows = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert (run / "model").is_dir() and "speed/peak_gb" in json.loads(rows[0])
    assert rb"\u96e8_rain_seed0.wav" in done.stdout and (tmp_path / "out" / "雨_rain_seed0.wav").is_file()


OTHER_DOORS = re.compile(
    r"\b(os|tarfile|zipfile|tables|paths|decode|self|box|part)\.|^(read_text|write_text)\("
)
"""Calls of these names that are not Path's or the builtin: ours are UTF-8"""


def is_silent(call: ast.Call) -> bool:
    """Whether a call opens a text without naming its encoding."""
    name, line = getattr(call.func, "attr", getattr(call.func, "id", "")), ast.unparse(call)
    if name not in ("open", "read_text", "write_text") or "encoding=" in line or OTHER_DOORS.match(line):
        return False
    return name != "open" or not re.search(r"'[rwax]?\+?b\+?[rwax]?\+?'|\.open\((\w*)\)$", line)


def test_every_text_is_read_and_written_with_its_encoding():
    """The default of Windows is cp1252, in which most captions cannot be written and all are misread."""
    calls = [
        (f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and is_silent(node)
    ]
    assert calls == []
    assert is_silent(ast.parse("path.read_text()", mode="eval").body)
    assert is_silent(ast.parse("open(path, 'a')", mode="eval").body)


def test_memory_is_probed_without_fork(monkeypatch):
    from audioldm import recipes

    methods = []
    monkeypatch.setattr(recipes, "probe", lambda build, **how: methods.append(how["method"]) or 1)
    cfg = recipes.load("tiny/vae")
    for platform in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        recipes.fitting(cfg)
    assert methods == ["fork", "spawn", "spawn"]


def test_names_with_backslashes_and_drives(tmp_path, command, capsys):
    folder = tmp_path / "sounds"
    (folder / "sub").mkdir(parents=True)
    soundfile.write(folder / "sub" / "a.wav", 0.1 * np.random.default_rng(0).normal(size=16000), 16000)
    (folder / "metadata.csv").write_bytes(b'file_name,caption\r\nsub\\a.wav,"caf\xe9, open"\r\n')
    assert command("data", "prepare", "folder", folder, "-o", tmp_path / "m.jsonl") == 0, (
        capsys.readouterr().err
    )
    text = (tmp_path / "m.jsonl").read_text(encoding="utf-8")
    assert "café, open" in text and "a.wav" in text
    capsys.readouterr()
    for words in (
        ("--adapter", r"C:\sounds\mine.safetensors:0.8"),
        ("--audio-prompt", r"C:\sounds\mine.wav:0.8"),
        ("-m", r"C:\models\mine"),
    ):
        assert command("generate", "rain", *words, "-o", tmp_path) in (1, 2)
        error = capsys.readouterr().err
        assert re.search(r"C:\\\S*mine", error) and "Traceback" not in error, error


def test_no_door_needs_make():
    texts = [path.read_text(encoding="utf-8") for path in [*SOURCES, *(ROOT / "recipes").rglob("*.yaml")]]
    assert not [
        line for text in texts for line in text.splitlines() if re.search(r"[`:\"] ?make [a-z]+[`\"]", line)
    ]
    install = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert "no make," in install and "pip install" in install


class NoDoubles(TorchDispatchMode):
    """A device without float64, as MPS is, and numbers for what only a real tensor could tell."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(10**6, -1)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return float(next(self.numbers))
        if function is torch.ops.aten.allclose.default:
            return True
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            on_device = isinstance(value, torch.Tensor) and value.device.type != "cpu"
            if on_device and value.dtype in (torch.float64, torch.complex128):
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


@pytest.fixture
def without_doubles(monkeypatch):
    """Put a model on a device of that kind: PyTorch of Linux knows MPS by name only, so CUDA lends its own."""
    from audioldm.diffusion import schedule

    monkeypatch.setattr(schedule, "WITHOUT_DOUBLES", ("mps", "cuda"))
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


@torch.no_grad()
def test_generation_and_edits_need_no_float64_on_the_device(without_doubles, monkeypatch, tiny_model):
    from audioldm.nets import istft_vocoder, pictures
    from audioldm.pipeline import edit, run
    from audioldm.signal import mel

    pipe, small = AudioLDM.from_pretrained(), AudioLDM.from_pretrained(tiny_model)
    bank = istft_vocoder.filterbank(pipe.spec)
    for module in (istft_vocoder, mel):
        monkeypatch.setattr(module, "filterbank", lambda spec: bank)
    monkeypatch.setattr(edit.edit, "start_level", lambda schedule, strength: 10.0)
    monkeypatch.setattr(run, "silent", lambda waves: [])  # only real samples can tell
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)  # such a device has no Triton
    with FakeTensorMode(allow_non_fake_inputs=True), NoDoubles():
        pipe.to("cuda")
        wave = pipe(["rain"], seeds=[0], steps=2, sampler="ddim", negative="wind")
        assert wave.shape == (1, pipe.spec.samples(pipe.defaults.seconds))
        small.to("cuda")
        for sampler in ("dpmpp_2m", "heun"):
            small(["rain"], seeds=[0], steps=2, sampler=sampler, negative="wind", seconds=0.64)
        sound = torch.rand(20000)
        edit.transfer(small, sound, "rain", seed=0, steps=2)
        edit.transfer(small, sound, "rain", seed=0, steps=2, invert=True)
        edit.inpaint(small, sound, "rain", seed=0, steps=2, regions=[(0.2, 0.6)])
        edit.outpaint(small, sound, "rain", seed=0, steps=2, after=0.5)
        edit.vary(small, sound, seed=0, steps=2)
        edit.morph(small, sound, sound, ("rain", "wind"), seed=0, steps=2)
